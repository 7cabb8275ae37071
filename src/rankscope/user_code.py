"""References to functions and classes of the user: "file.py:name" or "package.module:name", with a hash of the source.

A job names the user's code instead of holding it. The hash of the source is part of the job's description, so that
results of a rewritten function are never taken for those of the old one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from rankscope.errors import InputError

_reading = threading.Lock()


def load_user_code(argument: str, reference: str) -> Any:
    """Return the object that a reference names.

    Parameters
    ----------
    argument
        Name of the argument for error messages.
    reference
        "file.py:name" or "package.module:name".

    Raises
    ------
    InputError
        If the file or module cannot be imported, or lacks the name.
    """
    where, colon, name = reference.rpartition(":")
    if not colon or not where or not name:
        raise InputError(f"{argument} must be 'file.py:name' or 'package.module:name', got {reference!r}")
    try:
        module = _module_from_file(Path(where).resolve()) if where.endswith(".py") else importlib.import_module(where)
    except InputError:
        raise
    except Exception as error:  # the user's code runs at import and may raise anything
        raise InputError(f"{argument} {reference!r} cannot be imported: {type(error).__name__}: {error}") from error
    found: Any = module
    for step in name.split("."):
        if not hasattr(found, step):
            raise InputError(f"{argument} {reference!r} must exist, but {where} has no {name!r}")
        found = getattr(found, step)
    return found


def describe_user_code(thing: Any) -> dict[str, str]:
    """Return {"function": reference, "source": hash} of a function or class; of an instance, those of its class."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    module = sys.modules.get(named.__module__)
    file = getattr(module, "__rankscope_file__", None) or named.__module__
    return {"function": f"{file}:{named.__qualname__}", "source": source_hash(named)}  # type: ignore[arg-type]


@functools.cache
def source_hash(thing: Hashable) -> str:
    """Return twelve hexadecimal digits of the SHA-256 of the source text; "" if there is none.

    The text is read once and under a lock: `inspect` is not thread-safe (cpython issue 106905), and a file edited
    during a run must not change the description of the code that is loaded.
    """
    with _reading:
        try:
            text = inspect.getsource(thing)  # type: ignore[arg-type]
        except (OSError, TypeError):
            return ""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.cache
def _module_from_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"file {path} must exist")
    name = f"rankscope_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__rankscope_file__ = str(path)  # type: ignore[attr-defined]
    sys.modules[name] = module  # dataclasses and pickle look classes up by module name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
