"""`TrainingConfig`: every option of a training, validated, with one canonical JSON form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, ValidationInfo, field_serializer

from rankscope.description import Description
from rankscope.errors import InputError
from rankscope.training.loss import LOSSES
from rankscope.training.optimizers import find_optimizer, find_schedule, make_optimizer, make_scheduler
from rankscope.training.penalties import describe_penalties, find_penalties
from rankscope.user_code import MODULE_PREFIX, check_source, describe_user_code, load_user_code
from rankscope.validation import choice, integer, number

DEFAULT_EPOCHS = 1000
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def _check(check: Callable[..., Any], **bounds: float) -> BeforeValidator:
    """Return a validator that applies `check` to the field's name and value, unless the value is None."""

    def checked(value: Any, info: ValidationInfo) -> Any:
        return None if value is None else check(info.field_name, value, **bounds)

    return BeforeValidator(checked)


def _function(name: str, value: Any) -> Any:
    """Return the user's function that a reference or its JSON description names; other values as they are."""
    source = None
    if isinstance(value, dict) and set(value) == {"function", "source"}:
        value, source = value["function"], value["source"]
    if isinstance(value, str) and ":" in value:
        loaded = load_user_code(name, value)
        if not callable(loaded):
            raise InputError(f"{name} must be a function, got {type(loaded).__name__}")
        check_source(name, value, loaded, source)
        return loaded
    return value


def _optimizer(name: str, value: Any) -> Any:
    value = _function(name, value)
    return value if callable(value) else find_optimizer(name, value)


def _schedule(name: str, value: Any) -> Any:
    value = _function(name, value)
    return value if callable(value) else find_schedule(name, value)


def _rates(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping) or not value or not all(isinstance(pattern, str) for pattern in value):
        raise InputError(f'{name} must be a mapping such as {{"recurrent_weights": 0.002}}, got {value!r}')
    return {pattern: number(f"{name} of {pattern}", rate, above=0) for pattern, rate in value.items()}


def _dtype(name: str, value: Any) -> str:
    return choice(name, str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value, DTYPES)


def _loss(name: str, value: Any) -> Any:
    value = _function(name, value)
    if not callable(value):
        return choice(name, value, LOSSES)
    return next((known for known, loss in LOSSES.items() if loss is value), value)


def _epochs(name: str, value: Any) -> Any:
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return tuple(integer(name, epoch, minimum=0) for epoch in value)
    return integer(name, value, minimum=0)


def _kept_epochs(value: Any, info: ValidationInfo) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"kept_epochs must be a list of epochs, such as [30, 125], got {value!r}")
    kept = tuple(sorted({integer("kept_epochs", epoch, minimum=1) for epoch in value}))
    check_kept(kept, info.data.get("epochs"))
    return kept


def check_kept(kept: tuple[int, ...], epochs: int | None) -> None:
    """Raise `InputError` if an epoch is beyond the training."""
    if kept and epochs is not None and kept[-1] > epochs:
        raise InputError(f"kept_epochs must be at most epochs = {epochs}, got {kept[-1]}")


def _names(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        raise InputError(f"{name} must be a list of names, got the text {value!r}; write [{value!r}]")
    if not isinstance(value, Iterable):
        raise InputError(f"{name} must be a list of names, got {value!r}")
    return tuple(value)


Count = Annotated[int, _check(integer, minimum=1)]
Positive = Annotated[float | None, _check(number, above=0)]


class TrainingConfig(Description):
    """Options of a training.

    Parameters
    ----------
    epochs
        Gradient steps, or passes over finite data. None: as many batches as an iterable yields.
    batch_size
        Trials in a batch. Ignored for an iterable of Trials.
    optimizer
        "adam", "sgd" or any other optimizer of `torch.optim`, with torch's default options (no momentum); or a mapping
        of its name and options, {"name": "sgd", "momentum": 0.9}; or a function of the list of parameters that returns
        a torch optimizer with a learning rate and weight decay of its own.
    learning_rate
        0.05 / N by default, with N the network's `hidden_size`, or else the number of columns of its first recurrent
        matrix. For a rate network whose outputs are divided by gamma, the default is multiplied by gamma^2 for "sgd"
        and by gamma for other optimizers, so that outputs change at the same pace.
    learning_rates
        Learning rates of some parameters in place of `learning_rate`, by name or pattern: {"recurrent_weights": 0.002}.
        The name of a constrained weight stands for all that its constraint trains.
    schedule
        Learning rate schedule, stepped after every epoch: {"name": "StepLR", "step_size": 100} for a scheduler of
        `torch.optim.lr_scheduler`, or a function of the optimizer that returns one. ReduceLROnPlateau follows the
        validation loss where there is one, else the loss.
    weight_decay
        Passed to a named optimizer.
    clip_norm
        Largest norm of the gradient; longer gradients are scaled down.
    gradient_noise
        Standard deviation of independent Gaussian noise that is added to each entry of the gradient, after clipping.
    penalties
        What is added to the loss, with strengths: {"rates_l2": 0.1, "weights_nuclear": 1e-4}. Names are those in
        `training/penalties.py`; a key may also be a function of (network, rates) that returns a scalar tensor. The
        recorded loss is without them, the gradient norm is that of the sum.
    dtype
        "float32", "float64" or a torch.dtype that the network is converted to first.
    stop_below
        Stop once the loss is below this fraction of the first epoch's.
    stop_loss
        Stop once the loss of an epoch is below this value.
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
    validation_trials
        Number of trials drawn once, the same in every training, for validation. A task with `validation()` has its own.
    validation_every
        Epochs between two validations.
    keep_best
        Whether the network ends with the weights of the lowest validation loss.
    kept_epochs
        Numbers of completed epochs after which a copy of the network is kept, such as (30, 125).
    patience
        Stop after this many validations without a new lowest loss.

    Raises
    ------
    InputError
        If an option is unknown or out of range.

    Notes
    -----
    In `optimizer`, `schedule` and `loss` a function may also be given as "file.py:name" or "package.module:name". In
    JSON it is described by this reference and a hash of its source.
    """

    epochs: Count | None = DEFAULT_EPOCHS
    batch_size: Count = 32
    optimizer: Annotated[str | dict[str, Any] | Callable[..., Any], _check(_optimizer)] = "adam"
    learning_rate: Positive = None
    learning_rates: Annotated[dict[str, float] | None, _check(_rates)] = None
    schedule: Annotated[dict[str, Any] | Callable[..., Any] | None, _check(_schedule)] = None
    weight_decay: Annotated[float, _check(number, minimum=0)] = 0.0
    clip_norm: Positive = None
    gradient_noise: Annotated[float, _check(number, minimum=0)] = 0.0
    penalties: Annotated[dict[Any, float] | None, _check(find_penalties)] = None
    dtype: Annotated[str | None, _check(_dtype)] = None
    stop_below: Positive = None
    stop_loss: Positive = None
    loss: Annotated[str | Callable[..., Any] | None, _check(_loss)] = None
    recorded_epochs: Annotated[int | tuple[int, ...] | None, _check(_epochs)] = None
    singular_values: Count = 40
    eigenvalues: Annotated[int, _check(integer, minimum=0)] = 0
    record_weights: bool = False
    matrices: Annotated[tuple[str, ...] | None, _check(_names)] = None
    validation_trials: Count | None = None
    validation_every: Count = 1
    keep_best: bool = False
    kept_epochs: Annotated[tuple[int, ...], BeforeValidator(_kept_epochs)] = ()
    patience: Count | None = None

    @field_serializer("penalties", when_used="json")
    def _described_penalties(self, value: Any) -> Any:
        return None if value is None else describe_penalties(value)

    @field_serializer("optimizer", "schedule", "loss", when_used="json")
    def _described(self, value: Any) -> Any:
        return describe_user_code(value) if callable(value) else value

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle functions from files of the user by reference, as other processes have not loaded these files."""
        values = dict(self)
        functions = {name: one for name, one in values.items() if _of_a_file(one)}
        penalties = [one for one in self.penalties or () if _of_a_file(one)]
        if not functions and not penalties:
            return super().__reduce_ex__(protocol)
        described: dict[str, Any] = {name: describe_user_code(one, absolute=True) for name, one in functions.items()}
        if penalties:
            described["penalties"] = describe_penalties(self.penalties or {}, absolute=True)
        return _rebuilt, ({**values, **described},)

    def rate_for(self, hidden_size: int, gamma: float = 1.0) -> float:
        """Return the initial learning rate for a network of this size, with outputs divided by gamma."""
        if self.learning_rate is not None:
            return self.learning_rate
        name = self.optimizer.get("name") if isinstance(self.optimizer, dict) else self.optimizer
        # The gradient of SGD is divided by gamma; Adam's steps do not depend on its scale.
        return 0.05 / hidden_size * (gamma**2 if name == "sgd" else gamma)

    def make_optimizer(self, parameters: list[Any], hidden_size: int, gamma: float = 1.0) -> torch.optim.Optimizer:
        """Return the optimizer of `parameters`, or of groups of them as torch takes.

        Raises
        ------
        InputError
            If the user's function returns something else, or there is one beside `learning_rates`.
        """
        if not callable(self.optimizer):
            return make_optimizer(self.optimizer, parameters, self.rate_for(hidden_size, gamma), self.weight_decay)
        if self.learning_rates is not None:
            raise InputError("learning_rates must not be given beside an optimizer that is a function; it sets its own")
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
        return make_scheduler(self.schedule, optimizer)

    def __repr__(self) -> str:
        """Return the options that differ from their defaults."""
        fields = type(self).model_fields
        given = {name: value for name, value in self if value != fields[name].default}
        return f"TrainingConfig({', '.join(f'{name}={_shown(value)}' for name, value in given.items())})"

    def __str__(self) -> str:
        """Return all options, one a line; those that differ from their defaults are marked with a star."""
        fields = type(self).model_fields
        lines = [f"{' *'[value != fields[name].default]} {name + ':':19}{_shown(value)}" for name, value in self]
        return "\n".join(["TrainingConfig (* not the default)", *lines])


def _of_a_file(value: Any) -> bool:
    return callable(value) and str(getattr(value, "__module__", "")).startswith(MODULE_PREFIX)


def _rebuilt(fields: dict[str, Any]) -> TrainingConfig:
    return TrainingConfig(**fields)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(one)}" for key, one in value.items()) + "}"
    return str(getattr(value, "__qualname__", type(value).__name__)) if callable(value) else repr(value)
