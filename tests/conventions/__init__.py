"""Tests of conventions/."""
