"""Libraries that are imported when a test first uses them, not by every process that collects the tests."""

import warnings

import pytest


class Lazily:
    """A module by its name; a test that uses it is skipped where it is not installed."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(pytest.importorskip(self._name), attribute)
