"""Jobs whose tasks and networks are defined in a cell of a notebook, sent to worker processes by value.

A worker process cannot import the cells of a notebook. With each job it receives the definitions that the job names
("__main__:MyTask"), by value as cloudpickle writes them, and puts them into its own `__main__`.
"""

from __future__ import annotations

import json
import pickle
import re
import sys
from dataclasses import dataclass
from typing import Any

import cloudpickle

from rankscope.errors import InputError
from rankscope.sweep.job import Job
from rankscope.user_code import RECEIVED, source_hash

REFERENCE = re.compile(r'"__main__:([A-Za-z_]\w*)[^"]*"')


@dataclass(frozen=True)
class Sent:
    """An item of work as bytes, with the definitions that it needs."""

    content: bytes


def to_send(item: Any) -> Any:
    """Return an item of work in the form in which another process can load it.

    Raises
    ------
    InputError
        If something that it uses cannot be sent to another process.
    """
    main = sys.modules["__main__"]
    if not isinstance(item, Job) or getattr(main, "__file__", None) is not None:
        return item
    _ = item.digest  # computed here, where the source is
    named = set(REFERENCE.findall(json.dumps(item.description)))
    found = {name: getattr(main, name) for name in named if hasattr(main, name)}
    definitions = {name: (thing, source_hash(thing)) for name, thing in found.items()}
    try:
        return Sent(cloudpickle.dumps((definitions, cloudpickle.dumps(item))))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"task must be sent to another process, got one that cannot: {error}; write its class "
            "into a file, or run with executor=ThreadPoolExecutor(1)"
        ) from error


def received(item: Any) -> Any:
    """Return the item that `to_send` was given."""
    if not isinstance(item, Sent):
        return item
    definitions, content = pickle.loads(item.content)
    for name, (thing, source) in definitions.items():
        setattr(sys.modules["__main__"], name, thing)
        RECEIVED[name] = source
    return pickle.loads(content)
