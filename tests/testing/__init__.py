"""Tests of testing/."""
