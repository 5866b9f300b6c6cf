"""Tests of diffusion/."""
