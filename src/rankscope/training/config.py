"""`TrainingConfig`: every option of a training, validated, with one canonical JSON form."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from pydantic import field_serializer, field_validator

from rankscope.description import Description
from rankscope.errors import InputError
from rankscope.training.loss import LOSSES, Loss, find_loss
from rankscope.user_code import describe_user_code, load_user_code
from rankscope.validation import choice, integer, number

DEFAULT_EPOCHS = 1000
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    # The fused kernels make one pass over the weights instead of a dozen.
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "sgd": (torch.optim.SGD, {"fused": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
}
"""Optimizers by name, with options beside the learning rate and the weight decay."""


class TrainingConfig(Description):
    """Options of a training.

    Parameters
    ----------
    epochs
        Gradient steps, or passes over finite data. None: as many batches as an iterable yields.
    batch_size
        Trials in a batch. Ignored for an iterable of Trials.
    optimizer
        "adam", "adamw", "sgd" (both without momentum), "rmsprop", or a function of the list of parameters that returns
        a torch optimizer (which then has its own learning rate and weight decay).
    learning_rate
        0.05 / N by default, with N the network's `hidden_size`, or else the number of columns of its first recurrent
        matrix.
    schedule
        Learning rate schedule, stepped after every epoch: {"name": "StepLR", "step_size": 100} for a scheduler of
        `torch.optim.lr_scheduler`, or a function of the optimizer that returns one.
    weight_decay
        Passed to a named optimizer.
    clip_norm
        Largest norm of the gradient; longer gradients are scaled down.
    stop_below
        Stop once the loss is below this fraction of the first epoch's.
    loss
        "squared", "cross_entropy", "binary_cross_entropy", or a function of (outputs, targets, mask) that returns a
        scalar tensor. None is the task's attribute `loss`, or "squared".
    recorded_epochs
        Number of evenly spaced epochs, or the epochs, at which the matrices are recorded. By default 200, but no more
        than every seventh epoch (every tenth above 256 units).
    singular_values
        Number of leading singular values of W - W0 to record.
    eigenvalues
        Number of eigenvalues of W to record, those with the largest real parts (square matrices only).
    record_weights
        Whether W itself is recorded.
    matrices
        Names of the matrices to record, or patterns such as ``"*.weight_hh_l*"``. By default the recurrent weights:
        what the network's `recurrent_names()` returns; else the matrices called `recurrent_weights` or
        `weight_hh...`; else all square ones; else all.
    validation_every
        Epochs between two validations, for finite data with `validation()`.

    Raises
    ------
    InputError
        If an option is unknown or out of range.

    Notes
    -----
    In `optimizer`, `schedule` and `loss` a function may also be given as "file.py:name" or "package.module:name". In
    JSON it is described by this reference and a hash of its source.
    """

    epochs: int | None = DEFAULT_EPOCHS
    batch_size: int = 32
    optimizer: str | Callable[..., Any] = "adam"
    learning_rate: float | None = None
    schedule: dict[str, Any] | Callable[..., Any] | None = None
    weight_decay: float = 0.0
    clip_norm: float | None = None
    stop_below: float | None = None
    loss: str | Callable[..., Any] | None = None
    recorded_epochs: int | tuple[int, ...] | None = None
    singular_values: int = 40
    eigenvalues: int = 0
    record_weights: bool = False
    matrices: tuple[str, ...] | None = None
    validation_every: int = 1

    @field_validator("epochs", mode="before")
    @classmethod
    def _epochs(cls, value: Any) -> Any:
        return None if value is None else integer("epochs", value, minimum=1)

    @field_validator("batch_size", "singular_values", "validation_every", "eigenvalues", mode="before")
    @classmethod
    def _count(cls, value: Any, info: Any) -> Any:
        return integer(info.field_name, value, minimum=0 if info.field_name == "eigenvalues" else 1)

    @field_validator("learning_rate", "clip_norm", "stop_below", mode="before")
    @classmethod
    def _positive(cls, value: Any, info: Any) -> Any:
        return None if value is None else number(info.field_name, value, above=0)

    @field_validator("weight_decay", mode="before")
    @classmethod
    def _decay(cls, value: Any) -> Any:
        return number("weight_decay", value, minimum=0)

    @field_validator("record_weights", mode="before")
    @classmethod
    def _flag(cls, value: Any) -> Any:
        return bool(value)

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizer(cls, value: Any) -> Any:
        value = _function("optimizer", value)
        return value if callable(value) else choice("optimizer", value, OPTIMIZERS)

    @field_validator("schedule", mode="before")
    @classmethod
    def _schedule(cls, value: Any) -> Any:
        value = _function("schedule", value)
        if value is None or callable(value):
            return value
        if not isinstance(value, dict) or "name" not in value:
            raise InputError(f"schedule must be a function or a mapping such as {EXAMPLE}, got {value!r}")
        scheduler = getattr(torch.optim.lr_scheduler, choice("schedule", value["name"], _schedulers()))
        try:
            inspect.signature(scheduler).bind(None, **_without_name(value))
        except TypeError as error:
            raise InputError(f"schedule {value['name']} has other options, got {value!r}: {error}") from error
        return value

    @field_validator("loss", mode="before")
    @classmethod
    def _loss(cls, value: Any) -> Any:
        value = _function("loss", value)
        known = [name for name, loss in LOSSES.items() if loss is value]
        if known:
            return known[0]
        return value if value is None or callable(value) else choice("loss", value, LOSSES)

    @field_validator("recorded_epochs", mode="before")
    @classmethod
    def _recorded(cls, value: Any) -> Any:
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
            return tuple(integer("recorded_epochs", epoch, minimum=0) for epoch in value)
        return None if value is None else integer("recorded_epochs", value, minimum=0)

    @field_validator("matrices", mode="before")
    @classmethod
    def _matrices(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise InputError(f"matrices must be a list of names, got the text {value!r}; write [{value!r}]")
        if value is not None and not isinstance(value, Iterable):
            raise InputError(f"matrices must be a list of names, got {value!r}")
        return None if value is None else tuple(value)

    @field_serializer("optimizer", "schedule", "loss", when_used="json")
    def _described(self, value: Any) -> Any:
        return describe_user_code(value) if callable(value) else value

    def rate_for(self, hidden_size: int) -> float:
        """Return the initial learning rate for a network of this size."""
        return 0.05 / hidden_size if self.learning_rate is None else self.learning_rate

    def make_optimizer(self, parameters: list[Any], hidden_size: int) -> torch.optim.Optimizer:
        """Return the optimizer of `parameters`.

        Raises
        ------
        InputError
            If the user's function returns no torch optimizer.
        """
        if isinstance(self.optimizer, str):
            make, options = OPTIMIZERS[self.optimizer]
            return make(parameters, lr=self.rate_for(hidden_size), weight_decay=self.weight_decay, **options)
        optimizer = self.optimizer(parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError(f"optimizer must return a torch.optim.Optimizer, got {type(optimizer).__name__}")
        return optimizer

    def make_scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return the learning rate scheduler of `optimizer`, or None without a schedule."""
        if self.schedule is None:
            return None
        if callable(self.schedule):
            return self.schedule(optimizer)
        scheduler = getattr(torch.optim.lr_scheduler, self.schedule["name"])
        return scheduler(optimizer, **_without_name(self.schedule))

    def find_loss(self, task: object) -> Loss:
        """Return the loss function: the option, or else the task's."""
        return find_loss(self.loss, task)


EXAMPLE = '{"name": "StepLR", "step_size": 100}'


def make_config(config: TrainingConfig | None, options: dict[str, Any]) -> TrainingConfig:
    """Return `config`, or one of `options`.

    Raises
    ------
    InputError
        If both are given, or an option is unknown.
    """
    if config is None:
        for name in options:
            choice("option", name, TrainingConfig.model_fields)
        return TrainingConfig(**options)
    if options:
        raise InputError(f"options must be fields of config where config is given, got {', '.join(options)} beside it")
    if not isinstance(config, TrainingConfig):
        raise InputError(f"config must be a TrainingConfig, got {config!r}")
    return config


def _function(argument: str, value: Any) -> Any:
    """Return the user's function that a reference or its JSON description names; other values as they are."""
    if isinstance(value, dict) and set(value) == {"function", "source"}:
        value = value["function"]
    if isinstance(value, str) and ":" in value:
        value = load_user_code(argument, value)
        if not callable(value):
            raise InputError(f"{argument} must be a function, got {type(value).__name__}")
    return value


def _without_name(schedule: dict[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in schedule.items() if option != "name"}


def _schedulers() -> list[str]:
    base = torch.optim.lr_scheduler.LRScheduler
    found = vars(torch.optim.lr_scheduler).items()
    return [name for name, kind in found if isinstance(kind, type) and issubclass(kind, base) and kind is not base]
