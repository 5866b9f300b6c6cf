"""Tests of sampling/."""
