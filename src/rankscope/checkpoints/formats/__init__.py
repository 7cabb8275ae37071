"""Readers of checkpoint files, one module a format."""
