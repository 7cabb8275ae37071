"""References to functions and classes of the user: "file.py:name" or "package.module:name", with a hash of the source.

A job names the user's code instead of holding it, and any process can load it. The hash of the source is part of the
job's description, so that results of a rewritten function are never taken for those of the old one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sys
import threading
from collections.abc import Hashable
from pathlib import Path
from types import ModuleType
from typing import Any

from rankscope.errors import InputError
from rankscope.user_source import SOURCE_TEXT, is_interactive, source_text
from rankscope.validation import choice

MODULE_PREFIX = "_rankscope_user_"
MAIN_MODULES = ("__main__", "__mp_main__")

RECEIVED: dict[str, str] = {}
"""Hashes of functions and classes of a notebook that another process sent, by name."""

_hash_lock = threading.Lock()
_load_lock = threading.RLock()


def is_reference(name: object) -> bool:
    """Return whether `name` has the form of a reference, whether or not it leads anywhere."""
    return isinstance(name, str) and ":" in name


def load_user_code(argument: str, reference: str) -> Any:
    """Return the object that a reference names.

    Parameters
    ----------
    argument
        Name of the argument for error messages.
    reference
        "file.py:name", relative to the working directory or absolute, or "package.module:name". A file is executed
        once for each version of its text, as a module of its own that cannot hide any other. The script that is
        running is not executed again.

    Raises
    ------
    InputError
        If the file or module is missing or fails, or has no such name; the nearest one is given.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise InputError(f"{argument} must be 'file.py:name' or 'package.module:name', got {reference!r}")
    with _load_lock:
        module = _file_module(argument, place) if place.endswith(".py") else _named_module(argument, place)
        found = _attribute(argument, module, name, reference)
        if isinstance(found, Hashable):
            source_hash(found)  # now, while the file still has the text that was executed
    return found


def reference_to(named: Any, *, absolute: bool = False) -> str:
    """Return the reference under which `load_user_code` finds a function or class.

    Files below the working directory are named relative to it, so that a description does not depend on where a
    project is kept.

    Parameters
    ----------
    named
        The function or class.
    absolute : bool
        Whether to name every file by its absolute path.
    """
    module = sys.modules.get(named.__module__)
    file = getattr(module, "__file__", None)
    is_main = named.__module__ in MAIN_MODULES
    spec = getattr(module, "__spec__", None) if is_main else None
    if spec is not None:  # python -m package.module
        return f"{spec.name}:{named.__qualname__}"
    if file is None or not (is_main or named.__module__.startswith(MODULE_PREFIX)):
        return f"{named.__module__}:{named.__qualname__}"
    path, here = Path(file).resolve(), Path.cwd()
    if not absolute and path.is_relative_to(here):
        path = path.relative_to(here)
    return f"{path.as_posix()}:{named.__qualname__}"


def describe_user_code(thing: Any, *, absolute: bool = False) -> dict[str, str]:
    """Return {"function": reference, "source": hash} of a function or class; of an instance, those of its class."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    named: Any = thing if hasattr(thing, "__qualname__") else type(thing)
    return {"function": reference_to(named, absolute=absolute), "source": source_hash(named)}


def check_source(argument: str, reference: str, loaded: Hashable, expected: str | None) -> None:
    """Raise `InputError` unless what a reference names has the source it had; None is any source."""
    found = source_hash(loaded) if expected is not None else None
    if expected != found:
        raise InputError(
            f"{argument} must be {reference!r} with the source {expected}, got {found}: it has changed; restore it, or "
            "run again in a new folder"
        )


def source_hash(named: Hashable) -> str:
    """Return twelve hexadecimal digits of the SHA-256 of the source text, helpers included; "" if there is none.

    The values that the code of a notebook uses may change at any time. A process that received such code by value has
    no source, and `RECEIVED` the hash.
    """
    if not is_interactive(named):
        return _cached_hash_of(named)
    return RECEIVED.get(getattr(named, "__qualname__", ""), "") or _hash_of(named)


def _hash_of(named: Hashable) -> str:
    """Return the hash.

    The text is read once and under a lock: `inspect` is not thread-safe (cpython issue 106905), and a file edited
    during a run must not change the description of the code that is loaded.
    """
    with _hash_lock:
        try:
            text = source_text(named)
        except (OSError, TypeError):
            return ""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_cached_hash_of = functools.cache(_hash_of)


def _named_module(argument: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the module raises
        raise InputError(
            f"{argument} must name a module that can be imported, got {name!r}: {type(error).__name__}: {error}; "
            "install it, put its folder on PYTHONPATH, or name its file ('file.py:name')"
        ) from error


def _file_module(argument: str, place: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    for main in map(sys.modules.get, MAIN_MODULES):
        file = getattr(main, "__file__", None)
        if main is not None and file and os.path.realpath(file) == str(path):
            return main
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"{argument} must name a file that can be read, got {place!r}: {error}") from error
    version = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()[:12]
    name = f"{MODULE_PREFIX}{version}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    setattr(module, SOURCE_TEXT, source.decode("utf-8", "replace"))
    sys.modules[name] = module  # where dataclasses and inspect look up the module of a class
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:  # whatever the file raises
        del sys.modules[name]
        hint = "; install that module or put its folder on PYTHONPATH" if isinstance(error, ImportError) else ""
        raise InputError(
            f"{argument} must name a file that runs, got {place!r}: {type(error).__name__}: {error}{hint}"
        ) from error
    return module


def _attribute(argument: str, module: ModuleType, name: str, reference: str) -> Any:
    if "<locals>" in name:
        raise InputError(
            f"{argument} must be defined at the top level of a file, so that it can be loaded, got {reference!r}"
        )
    found: Any = module
    for step in name.split("."):
        if not hasattr(found, step):
            if module.__name__ in MAIN_MODULES and getattr(module, "__file__", None) is None:
                raise InputError(
                    f"{argument} must be defined in a file, so that other processes can load it, got {reference!r}"
                )
            here = [key for key, value in vars(found).items() if getattr(value, "__module__", None) == module.__name__]
            choice(f"{argument}: name in {reference.rpartition(':')[0]}", step, here)
        found = getattr(found, step)
    return found
