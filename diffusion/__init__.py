"""Gaussian diffusion: noise levels, parametrisations and losses, solvers.

Everything meets in one function, `denoise(x, sigma) -> x0`: parametrisations provide it, wrappers
(guidance, constraints) change it, solvers integrate it.
"""
