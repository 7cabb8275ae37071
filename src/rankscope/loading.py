"""Classes and functions of the user's own, referred to as "file.py:Name" or "package.module:Name".

A description of a job can then name a task, a network or a loss that is not part of the package, and any process can
rebuild it. Nothing is pickled. `source_hash` detects that the code has changed since.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from rankscope.errors import InputError
from rankscope.validation import choice

MODULE_PREFIX = "_rankscope_file_"
MAIN_MODULES = ("__main__", "__mp_main__")
LOCAL = "<locals>"

_hashes: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
_hash_lock = threading.Lock()
_load_lock = threading.RLock()


def is_reference(name: object) -> bool:
    """Return whether `name` has the form "file.py:Name" or "package.module:Name"."""
    return isinstance(name, str) and ":" in name


def load_object(reference: str, argument: str) -> Any:
    """Return the class or function that `reference` names.

    Parameters
    ----------
    reference : str
        "file.py:Name", relative to the working directory or absolute, or "package.module:Name". A file is executed
        once for each version of its text, as a module of its own that cannot hide any other. The script that is
        running is not executed again.
    argument : str
        Name of the argument in error messages.

    Raises
    ------
    InputError
        If the file or module is missing or fails, or has no such name; the nearest one is given.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise InputError(f"{argument} must be 'file.py:Name' or 'package.module:Name', got {reference!r}")
    with _load_lock:
        module = _file_module(place, argument) if place.endswith(".py") else _named_module(place, argument)
        found = _attribute(module, name, reference, argument)
        source_hash(found)  # now, while the file still has the text that was executed
    return found


def reference_to(kind: type | Any, *, absolute: bool = False) -> str:
    """Return the reference under which `load_object` finds a class or function.

    Files below the working directory are named relative to it, so that a description does not depend on where a
    project is kept.

    Parameters
    ----------
    kind
        The class or function.
    absolute : bool
        Whether to name files by their absolute path always.
    """
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if kind.__module__ in MAIN_MODULES and getattr(module, "__spec__", None) is not None and file is not None:
        return f"{module.__spec__.name}:{kind.__qualname__}"  # type: ignore[union-attr]  # python -m package.module
    if file is None or not (kind.__module__ in MAIN_MODULES or kind.__module__.startswith(MODULE_PREFIX)):
        return f"{kind.__module__}:{kind.__qualname__}"
    path = Path(file).resolve()
    here = Path.cwd()
    if not absolute and path.is_relative_to(here):
        path = path.relative_to(here)
    return f"{path.as_posix()}:{kind.__qualname__}"


def source_hash(kind: type | Any) -> str:
    """Return twelve hexadecimal digits that change with the source of a class or function; "" if it has no source.

    The source is read once, when the code is loaded, so that editing a file does not affect a computation under way.
    One thread reads at a time: the parser that `inspect` uses is not thread-safe (cpython issue 106905).
    """
    with _hash_lock:
        if kind not in _hashes:
            try:
                source = inspect.getsource(kind)
            except (OSError, TypeError):
                source = ""
            _hashes[kind] = hashlib.sha256(source.encode()).hexdigest()[:12] if source else ""
        return _hashes[kind]


def _named_module(name: str, argument: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the module raises
        raise InputError(
            f"{argument} must name a module that can be imported, got {name!r}: {type(error).__name__}: {error}; "
            "install it, put its folder on PYTHONPATH, or name its file ('file.py:Name')"
        ) from error


def _file_module(place: str, argument: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    for name in MAIN_MODULES:
        main = sys.modules.get(name)
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
    # dataclasses and inspect look a class's module up here.
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:  # whatever the file raises
        del sys.modules[name]
        hint = "; install that module or put its folder on PYTHONPATH" if isinstance(error, ImportError) else ""
        raise InputError(
            f"{argument} must name a file that runs, got {place!r}: {type(error).__name__}: {error}{hint}"
        ) from error
    return module


def _attribute(module: ModuleType, name: str, reference: str, argument: str) -> Any:
    if LOCAL in name:
        raise InputError(
            f"{argument} must be defined at the top level of a file, so that it can be rebuilt, got {reference!r}"
        )
    found: Any = module
    for step in name.split("."):
        if not hasattr(found, step):
            if module.__name__ in MAIN_MODULES and getattr(module, "__file__", None) is None:
                raise InputError(
                    f"{argument} must be defined in a file, so that other processes can rebuild it, got {reference!r}"
                )
            here = [key for key, value in vars(found).items() if getattr(value, "__module__", None) == module.__name__]
            choice(f"{argument}: name in {reference.rpartition(':')[0]}", step, here)
        found = getattr(found, step)
    return found
