"""What the server of `forking.py` imports and compiles once, for all processes that it forks."""

from importlib import import_module

from rankscope.networks.kernels.build import compiled

# An optimizer imports the first, which takes seconds.
for name in ("torch._dynamo", "rankscope.cli.main", "rankscope.experiments"):
    import_module(name)
compiled()
