"""Tests of beatmaps/."""
