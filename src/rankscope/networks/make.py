"""Networks by description: {"kind": "rate" | "rnn" | "gru" | "lstm" | "file.py:function", **options}."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rankscope.errors import InputError
from rankscope.networks.gated import GATED_OPTIONS, GatedRNN
from rankscope.networks.gates import GATES
from rankscope.networks.protocol import check_network
from rankscope.networks.rate import RATE_OPTIONS, RateRNN
from rankscope.tasks.trials import Task
from rankscope.user_code import load_user_code
from rankscope.validation import RngLike, choice

KINDS = ("rate", *GATES)
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def make_network(spec: Mapping[str, Any], task: Task, rng: RngLike = None) -> nn.Module:
    """Build an untrained network for `task`.

    Parameters
    ----------
    spec
        "kind": "rate" (the options of `RateRNN.initialize`); "rnn", "gru" or "lstm" (those of `GatedRNN.initialize`);
        or "file.py:function" or "package.module:function", a function `make(task, rng, **options)` that returns a
        torch module. All other entries are options; a `dtype` may be the text "float32" or "float64".
    rng
        Seed or Generator for the initial weights.

    Raises
    ------
    InputError
        If the kind or an option is unknown or out of range.
    """
    kind, options = check_spec(spec)
    if isinstance(options.get("dtype"), str):
        options["dtype"] = DTYPES[choice("dtype", options["dtype"], DTYPES)]
    if kind == "rate":
        return RateRNN.initialize(task, rng=rng, **options)
    if kind in GATES:
        return GatedRNN.initialize(task, kind, rng=rng, **options)
    network = load_user_code("network kind", kind)(task, rng, **options)
    check_network(f"what {kind} returns", network)
    assert isinstance(network, nn.Module)
    return network


def check_spec(spec: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Check the kind and the names of the options without building the network, and return them.

    Raises
    ------
    InputError
        If the kind or an option is unknown, or a user's function cannot be imported.
    """
    if not isinstance(spec, Mapping) or not all(isinstance(name, str) for name in spec):
        raise InputError(f"network must be a mapping such as {{'kind': 'rate', 'gain': 0.9}}, got {spec!r:.200}")
    options = dict(spec)
    kind = options.pop("kind", "rate")
    if isinstance(kind, str) and ":" in kind:
        known = _options_of_function(kind)
    else:
        choice("network kind", kind, [*KINDS, "file.py:function"])
        known = [n for n in (RATE_OPTIONS if kind == "rate" else GATED_OPTIONS) if n not in ("rng", "kind")]
    for option in options:
        if known is not None:
            choice(f"option of the network {kind!r}", option, known)
    return kind, options


def _options_of_function(kind: str) -> list[str] | None:
    """Return the names of the options of a user's function, or None if it takes any."""
    make = load_user_code("network kind", kind)
    if not callable(make):
        raise InputError(f"network kind must name a function make(task, rng, **options), got {kind!r}, a {type(make)}")
    parameters = list(inspect.signature(make).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters[2:]]
