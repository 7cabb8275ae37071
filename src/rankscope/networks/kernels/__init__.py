"""Compiled kernels of the time loop."""
