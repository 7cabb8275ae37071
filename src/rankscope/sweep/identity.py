"""What determines the networks of a job, as plain values, and the digest of these values.

These are the task with all its parameters, the network with its kind, size and gain spelled out, the options of the
training that differ from their defaults, the seed, and the labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rankscope.errors import InputError
from rankscope.sweep.axes import canonical, key_of, network_defaults, plain_defaults
from rankscope.tasks import OPTIONAL_TASKS, describe, make
from rankscope.training import TrainingConfig
from rankscope.user_code import is_reference, load_user_code, source_hash

FORMAT = "rankscope.job.2"
"""Part of every digest. To be changed with the default of an option or the meaning of a field."""
SPELLED_OUT = ("hidden_size", "gain")
"""Options of a network that its description holds even where they are the default."""


def describe_task(task: Any) -> dict[str, Any]:
    """Return the name of the task of a job and its parameters, where it can be made with its defaults."""
    if not isinstance(task, dict):
        return describe(task)
    if task["name"] not in OPTIONAL_TASKS or task["name"] == "recorded":
        return describe(make(task))
    # What needs a package or data may be described where it cannot be made.
    return dict(task)


def describe_network(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the network of a job with size and gain spelled out and without other defaults.

    A function of your own has all its defaults spelled out, and a hash of its source.
    """
    if is_reference(spec["kind"]):
        function = load_user_code("network kind", spec["kind"])
        return {**plain_defaults(function), **spec, "source": source_hash(function)}
    defaults = network_defaults(spec["kind"])
    given = {
        name: value
        for name, value in spec.items()
        if name in SPELLED_OUT or name not in defaults or key_of(value) != key_of(defaults[name])
    }
    return {name: defaults[name] for name in SPELLED_OUT if name in defaults} | given


def describe_training(config: TrainingConfig) -> dict[str, Any]:
    """Return the options of a training that differ from their defaults.

    Raises
    ------
    InputError
        If a function is none of a module: two that differ in what they enclose would have one description.
    """
    for name in ("optimizer", "schedule", "loss", "penalties"):
        value = getattr(config, name)
        for one in value or () if name == "penalties" else [value]:
            qualified = getattr(one, "__qualname__", "<none>")
            if callable(one) and "<" in qualified:
                got = qualified if hasattr(one, "__qualname__") else f"a {type(one).__name__}"
                raise InputError(
                    f"training.{name} must be a function at the top level of a file, so that a job can name it, got "
                    f"{got}; write one function for each choice of its options"
                )
    defaults = TrainingConfig().model_dump(mode="json")
    return {name: value for name, value in config.model_dump(mode="json").items() if value != defaults[name]}


def digest_of(description: Mapping[str, Any]) -> str:
    """Return twelve hexadecimal digits of the SHA-256 of the canonical JSON of a job's description."""
    text = FORMAT + canonical_json(canonical(description))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def canonical_json(value: Any) -> str:
    """Return the one JSON text of plain values.

    Raises
    ------
    InputError
        If JSON cannot hold a value.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"a job must hold text, finite numbers and lists of them, got {value!r:.300}: {error}"
        ) from error
