"""YAML of sweep files: read safely, with numbers as YAML 1.2 writes them, and bounded in size."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import yaml

from rankscope.errors import InputError

LARGEST_FILE = 100_000
MOST_VALUES = 20_000
"""Largest number of values in a file, those that aliases repeat included: a few lines can stand for gigabytes."""
MOST_BRACKETS = 100
LARGEST_NUMBER = 10**9
LARGEST_SHOWN = 1e300


class _Loader(yaml.SafeLoader):
    """YAML 1.1, where 1e-3 is text, with the numbers of YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_yaml(text: str) -> Any:
    """Return the values of a YAML text.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        depth = itertools.accumulate((letter in "[{") - (letter in "]}") for letter in text)
        if max(depth, default=0) > MOST_BRACKETS:  # the time that the library takes grows with the square of the depth
            raise ValueError(f"it has more than {MOST_BRACKETS} brackets inside each other")
        return yaml.load(text, Loader=_Loader)
    except Exception as error:
        # Besides errors of its own, the library raises what its constructors raise, for example for impossible dates.
        raise InputError(f"is not readable YAML: {error!s:.500}") from error


def read_sweep(path: Path) -> dict[str, Any]:
    """Return the content of a sweep file, a mapping of few values.

    Raises
    ------
    InputError
        If the file is missing, large, not YAML or no mapping, or holds too many values or huge numbers.
    """
    if not path.is_file():
        raise InputError(f"a sweep must be a YAML file, got {str(path)!r}, which does not exist")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path} must be smaller than {LARGEST_FILE} bytes, got {path.stat().st_size}")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not readable YAML: {error}") from error
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} must be a mapping such as 'task: flipflop', got {type(content).__name__}")
    _check_values(path, content)
    return content


def _check_values(path: Path, content: dict[str, Any]) -> None:
    """Refuse too many values, huge numbers, and content that contains itself, before other code traverses it."""
    waiting: list[Any] = [content]
    seen = 1
    while waiting and seen <= MOST_VALUES:
        value = waiting.pop()
        if type(value) in (int, float) and abs(value) > LARGEST_NUMBER:
            got = f"{value:.3g}" if abs(value) < LARGEST_SHOWN else f"one beyond {LARGEST_SHOWN:g}"
            raise InputError(f"{path} must hold numbers up to {LARGEST_NUMBER:g}, got {got}")
        held: list[Any] = []
        if isinstance(value, dict):
            held = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            held = list(value)
        seen += len(held)
        waiting += held
    if waiting:
        raise InputError(f"{path} must hold at most {MOST_VALUES} values, got more, or one that contains itself")
