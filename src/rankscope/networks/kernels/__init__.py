"""Compiled kernels of the time loop: tiles (micro-kernels), gemm, time_loop, build (compilation), dispatch (choice)."""
