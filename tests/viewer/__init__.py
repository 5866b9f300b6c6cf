"""Tests of viewer/."""
