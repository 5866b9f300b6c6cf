"""Tests of constraints/."""
