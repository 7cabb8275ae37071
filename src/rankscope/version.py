"""The version, stated once: the build reads it from here, and results carry it."""

__version__ = "0.2.0"
