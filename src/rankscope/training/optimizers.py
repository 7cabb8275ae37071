"""Optimizers and learning rate schedulers of torch, by name with their options."""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch

from rankscope.errors import InputError
from rankscope.networks.protocol import Network
from rankscope.validation import choice

FUSED = ("adam", "adamw", "sgd")
"""Optimizers whose fused kernels make one pass over the weights instead of a dozen."""
NOT_HERE = ("LBFGS", "SparseAdam")
"""Optimizers that need several losses a step, or sparse gradients."""
OPTIMIZERS: dict[str, Any] = {
    name.lower(): kind
    for name, kind in sorted(vars(torch.optim).items())
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and name not in ("Optimizer", *NOT_HERE)
}
"""Optimizers of torch by their names in lower case."""


def find_optimizer(name: str, value: Any) -> str | dict[str, Any]:
    """Return a checked name, or mapping of "name" and options, of a torch optimizer.

    Raises
    ------
    InputError
        If the optimizer or an option is unknown.
    """
    options = dict(value) if isinstance(value, Mapping) else {"name": value}
    given = options.pop("name", None)
    kind = choice(name, given.lower() if isinstance(given, str) else given, OPTIMIZERS)
    for option in options:
        allowed = [one for one in _options(kind) if one not in ("params", "lr", "weight_decay")]
        choice(f"option of {kind}", option, allowed)
    return {"name": kind, **options} if options else kind


def make_optimizer(
    value: str | Mapping[str, Any], parameters: list[Any], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return the optimizer that `find_optimizer` checked.

    Raises
    ------
    InputError
        If it has no weight decay, or refuses an option or these parameters.
    """
    options: dict[str, Any] = {"name": value} if isinstance(value, str) else dict(value)
    kind = options.pop("name")
    if "weight_decay" in _options(kind):
        options["weight_decay"] = weight_decay
    elif weight_decay:
        raise InputError(f"weight_decay must be 0 for {kind}, which has none, got {weight_decay:g}")
    if kind in FUSED and not {"fused", "foreach"} & options.keys():
        options["fused"] = True
    try:
        optimizer: torch.optim.Optimizer = OPTIMIZERS[kind](parameters, lr=learning_rate, **options)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"optimizer {kind} cannot be used with {options}: {error}") from error
    return optimizer


def parameter_groups(network: Network, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the trained parameters of a network in groups of one learning rate each.

    Parameters
    ----------
    rates
        Pattern of names -> learning rate; the first that fits a parameter counts. Parameters that none fits are in the
        first group, without a learning rate.

    Raises
    ------
    InputError
        If a pattern fits no trained parameter, or no further one.
    """
    left = {name: weights for name, weights in network.named_parameters() if weights.requires_grad}
    known = list(dict.fromkeys(map(_name_of, left)))
    groups: list[dict[str, Any]] = []
    for pattern, rate in rates.items():
        fitting = [name for name in left if fnmatch.fnmatchcase(_name_of(name), pattern)]
        if not fitting:
            raise InputError(f"learning_rates must name trained parameters, of {known}, got {pattern!r}")
        groups.append({"params": [left.pop(name) for name in fitting], "lr": rate})
    return [*([{"params": list(left.values())}] if left else []), *groups]


def _name_of(parameter: str) -> str:
    """Return the name of the weight that a parameter of its constraint belongs to."""
    return re.sub(r"(^|\.)parametrizations\.(\w+)\.original\d*$", r"\1\2", parameter)


def find_schedule(name: str, value: Any) -> dict[str, Any]:
    """Return a checked mapping of "name" and options of a torch scheduler.

    Raises
    ------
    InputError
        If the scheduler or an option is unknown.
    """
    if not isinstance(value, Mapping) or "name" not in value:
        example = '{"name": "StepLR", "step_size": 100}'
        raise InputError(f"{name} must be a function or a mapping such as {example}, got {value!r}")
    options = {option: one for option, one in value.items() if option != "name"}
    try:
        inspect.signature(_scheduler(value["name"])).bind(None, **options)
    except TypeError as error:
        raise InputError(f"schedule {value['name']} has other options, got {value!r}: {error}") from error
    return dict(value)


def make_scheduler(value: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> Any:
    """Return the scheduler that `find_schedule` checked."""
    options = {option: one for option, one in value.items() if option != "name"}
    try:
        return _scheduler(value["name"])(optimizer, **options)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"schedule {value['name']} cannot be used with {options}: {error}") from error


def _scheduler(name: Any) -> Any:
    base = torch.optim.lr_scheduler.LRScheduler
    found = vars(torch.optim.lr_scheduler).items()
    known = [name for name, kind in found if isinstance(kind, type) and issubclass(kind, base) and kind is not base]
    return getattr(torch.optim.lr_scheduler, choice("schedule", name, known))


def _options(name: str) -> list[str]:
    return list(inspect.signature(OPTIMIZERS[name].__init__).parameters)[1:]
