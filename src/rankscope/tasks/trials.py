"""The contract of tasks: `Task`, which every task satisfies, `Trials`, which it returns, and a base class.

A task is any object with a method `sample(batch_size, rng)` that returns `Trials`: inputs that drive the network,
targets for its readout, and a mask with the weight of each target. The tasks of this package are frozen dataclasses,
fully described by their parameters: equal parameters, equal task.

* Arrays are (batch, time, channels). Times and durations are in units of the membrane time constant.
* `inputs[:, t]` drives the network during step t. The readout with index t is taken *after* that step, at time
  (t + 1) dt, and is compared with `targets[:, t]`.
* `mask` is the weight of each target in the loss, by default 1/2 sum(mask (z - target)^2) / sum(mask). Every batch has
  some mask above 0. Targets with mask 0 are ignored; tasks put 0 there, or a value for figures.
* A phase of length d lasts `steps_in(d, dt)` steps and starts where the previous one ended.
* All randomness comes from `rng`: the same seed gives the same bits. The caller may modify the arrays.
* A task with finite data also has `batches(batch_size, rng)`, one pass over it, and may have `validation()`, held-out
  batches; see `sentiment/task.py`. One that is judged trial by trial has `trial_accuracy(outputs, targets, mask)`, the
  fraction of right trials; see `fixed_set.py`.

References
----------
Schuessler et al. 2020, Fig. 1 and supplement.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, overload, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from rankscope.errors import InputError
from rankscope.validation import RngLike, generator, integer, number


@overload
def steps_in(duration: float, dt: float) -> int: ...
@overload
def steps_in(duration: NDArray[np.float64], dt: float) -> NDArray[np.int64]: ...
def steps_in(duration: float | NDArray[np.float64], dt: float) -> int | NDArray[np.int64]:
    """Return the number of whole steps of length `dt` in `duration` (both in time constants).

    It is int(duration / dt) up to rounding: in floating point 0.3 / 0.1 is 2.9999999999999996, which counts as 3.
    """
    steps = np.floor(np.asarray(duration) / dt + 1e-9).astype(np.int64)
    return int(steps) if steps.ndim == 0 else steps


@dataclass(frozen=True, eq=False, repr=False)
class Trials:
    """A batch of trials: inputs, targets, and the weight of each target in the loss.

    Parameters
    ----------
    inputs : torch.Tensor, shape (batch, time, in)
        Input that drives the network at each step.
    targets : torch.Tensor, shape (batch, time, out)
        Desired readout after each step; (batch, 1, out) for a network that is read out after the last step only.
    mask : torch.Tensor, shape of targets
        Weight of each entry of `targets` in the loss; 0 or 1 in the tasks of this package.
    lengths : torch.Tensor or None, shape (batch,)
        Number of steps of each trial (int64) where trials differ in length; `inputs` are padded beyond.

    Raises
    ------
    InputError
        If inputs, targets and mask are not non-empty three-dimensional floating-point tensors that fit together and
        share a dtype (float32 unless converted) and a device, or lengths are not between 1 and the number of steps.
        The entries of inputs, targets and mask are not checked; see `check_content`.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor
    lengths: torch.Tensor | None = None

    def __post_init__(self) -> None:
        inputs, targets, mask = self.inputs, self.targets, self.mask
        for name, value in (("inputs", inputs), ("targets", targets), ("mask", mask)):
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                raise InputError(
                    f"{name} must be a float32 torch tensor, got {_describe(value)}; Trials.from_arrays converts arrays"
                )
            if value.ndim != 3 or 0 in value.shape:
                raise InputError(
                    f"{name} must have shape (batch, time, channels), none of them 0, got {_describe(value)}"
                )
            if value.dtype != inputs.dtype or value.device != inputs.device:
                raise InputError(
                    f"{name} must have the dtype and device of inputs ({inputs.dtype} on {inputs.device}), "
                    f"got {value.dtype} on {value.device}"
                )
        if targets.shape[0] != inputs.shape[0] or targets.shape[1] not in (inputs.shape[1], 1):
            raise InputError(
                f"targets must have the batch and time of inputs, {tuple(inputs.shape[:2])}, or one step, "
                f"got shape {tuple(targets.shape)}"
            )
        if mask.shape != targets.shape:
            raise InputError(f"mask must have the shape of targets, {tuple(targets.shape)}, got {tuple(mask.shape)}")
        if self.lengths is not None:
            self._check_lengths(self.lengths)

    def _check_lengths(self, lengths: torch.Tensor) -> None:
        is_int64 = isinstance(lengths, torch.Tensor) and lengths.dtype == torch.int64
        if not is_int64 or lengths.shape != self.inputs.shape[:1]:
            raise InputError(f"lengths must be an int64 tensor of shape ({self.batch_size},), got {_describe(lengths)}")
        if lengths.device.type != "meta" and not bool(((lengths >= 1) & (lengths <= self.steps)).all()):
            raise InputError(
                f"lengths must be between 1 and {self.steps}, got {int(lengths.min())} to {int(lengths.max())}"
            )

    @classmethod
    def from_arrays(
        cls, inputs: ArrayLike, targets: ArrayLike, mask: ArrayLike, lengths: ArrayLike | None = None
    ) -> Self:
        """Build trials from numpy arrays or nested lists; float32 arrays share their memory with the trials."""

        def tensor(values: ArrayLike, dtype: type) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, dtype=dtype))

        stepwise = [tensor(values, np.float32) for values in (inputs, targets, mask)]
        return cls(stepwise[0], stepwise[1], stepwise[2], None if lengths is None else tensor(lengths, np.int64))

    @classmethod
    def padded(cls, trials: Iterable[Trials]) -> Self:
        """Join trials of different length into one batch, with zeros after the end of the shorter ones.

        Steps beyond the end have mask 0, and `lengths` holds the number of steps of each trial.

        Raises
        ------
        InputError
            If there are none, or their channels differ.
        """
        given = [as_trials(one) for one in trials]
        if not given or any(one.targets.shape[1] != one.steps for one in given):
            raise InputError("trials must be at least one, with a target for each step, to be joined in a batch")
        steps = max(one.steps for one in given)
        lengths = [torch.full((one.batch_size,), one.steps) if one.lengths is None else one.lengths for one in given]
        try:
            joined = [
                torch.cat([torch.nn.functional.pad(getattr(one, name), (0, 0, 0, steps - one.steps)) for one in given])
                for name in ("inputs", "targets", "mask")
            ]
        except RuntimeError as error:
            raise InputError(f"trials must have the same channels to be joined in a batch: {error}") from error
        return cls(joined[0], joined[1], joined[2], torch.cat(lengths))

    def check_content(self) -> None:
        """Raise `InputError` if the mask is 0 everywhere, or an input, a mask or a target that counts is not finite."""
        if not bool((self.mask != 0).any()):
            raise InputError("mask must count something, got 0 everywhere")
        counting = torch.where(self.mask == 0, 0, self.targets)
        for name, value in (("inputs", self.inputs), ("mask", self.mask), ("targets", counting)):
            bad = (~torch.isfinite(value)).nonzero()
            if len(bad):
                trial, step, channel = bad[0].tolist()
                got = float(value[trial, step, channel])
                raise InputError(f"{name} must be finite, got {got} at trial {trial}, step {step}, channel {channel}")

    @property
    def batch_size(self) -> int:
        """Number of trials."""
        return self.inputs.shape[0]

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return self.inputs.shape[1]

    def to(self, where: str | torch.device | torch.dtype) -> Trials:
        """Return the same trials on another device (`"cuda"`) or in another dtype (`torch.float64`).

        Raises
        ------
        InputError
            If `where` is neither, or names a dtype that is not floating point.
        """
        try:
            target = where if isinstance(where, torch.dtype) else torch.device(where)
        except (RuntimeError, TypeError) as error:
            raise InputError(f"where must be a torch device or a floating-point dtype, got {where!r}") from error
        lengths = self.lengths
        if lengths is not None and isinstance(target, torch.device):
            lengths = lengths.to(target)
        return Trials(self.inputs.to(target), self.targets.to(target), self.mask.to(target), lengths)

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def __getitem__(self, batch: slice) -> Trials:
        """Return a slice of the batch, as in `trials[0:4]`: views of the same memory."""
        chosen: Any = batch  # Any, so that a type checker regards the check below as reachable
        if not isinstance(chosen, slice):
            raise InputError(f"trials take a slice of the batch, such as trials[3:4], got {chosen!r}")
        lengths = None if self.lengths is None else self.lengths[chosen]
        return Trials(self.inputs[chosen], self.targets[chosen], self.mask[chosen], lengths)

    def __repr__(self) -> str:
        sizes = f"in={self.inputs.shape[2]}, out={self.targets.shape[2]}"
        return f"Trials(batch_size={self.batch_size}, steps={self.steps}, {sizes}, {self.inputs.dtype})"


def as_trials(sampled: object) -> Trials:
    """Return what a task has sampled, or raise `InputError` if it is no `Trials`."""
    if isinstance(sampled, Trials):
        return sampled
    raise InputError(
        f"task must return Trials from sample, got {type(sampled).__name__}; Trials.from_arrays(inputs, targets, mask) "
        "builds them from arrays"
    )


@runtime_checkable
class Task(Protocol):
    """Any object that draws trials. A task of your own needs this method only.

    The package passes `rng` as a numpy Generator, which `sample` advances. The built-in tasks accept a seed as well.
    """

    def sample(self, batch_size: int, rng: np.random.Generator) -> Trials:
        """Return `batch_size` fresh trials, with all randomness drawn from `rng`."""
        ...


def trials_of(task: Task | Trials, count: int, rng: np.random.Generator) -> Trials:
    """Return the trials that are given, or `count` trials of a task; raise `InputError` if it is neither."""
    if isinstance(task, Trials):
        return task
    if not isinstance(task, Task):
        raise InputError(f"task must be Trials or have a method sample(batch_size, rng), got {task!r:.100}")
    return as_trials(task.sample(count, rng))


class BuiltInTask(ABC):
    """Base class of the tasks of this package: checks of parameters, `sample`, and the description.

    A subclass is a frozen dataclass in a file of its own. It defines the numbers of channels and steps, how to draw a
    batch (`_draw`), and a trial for figures (`example`).
    """

    name: ClassVar[str]
    autonomous: ClassVar[bool] = False  # True: without input; the network starts from its input vector
    by_rng_alone: ClassVar[bool] = False  # True: batches depend on rng alone and may be drawn in advance
    dt: float
    loss: str | Callable[..., Any] | None = None  # what `train` minimizes; None: the squared loss

    @property
    @abstractmethod
    def input_size(self) -> int:
        """Number of input channels."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Number of output channels."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Number of time steps of a trial."""

    @abstractmethod
    def example(self) -> Trials:
        """Return one fixed trial (batch 1) for figures; the same at every call."""

    @abstractmethod
    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        """Draw a batch; the arguments have been checked."""

    def sample(self, batch_size: int, rng: RngLike = None) -> Trials:
        """Draw fresh trials in float32; a Generator as `rng` is advanced.

        Raises
        ------
        InputError
            If `batch_size` is not a whole number >= 1 or `rng` is neither a seed nor a Generator.
        """
        return self._draw(integer("batch_size", batch_size, minimum=1), generator(rng))

    def fresh(self) -> BuiltInTask:
        """Return the task to evaluate on: this one, unless it draws from a fixed set of trials."""
        return self

    @classmethod
    def expected_steps(cls, batch_size: int, **parameters: Any) -> int:
        """Return the approximate number of time steps in an epoch, without any data or library that the task needs."""
        make: Any = cls
        steps: int = make(**parameters).steps
        return steps

    def parameters(self) -> dict[str, Any]:
        """Return the parameters by name; `type(task)(**task.parameters()) == task`."""
        own: Any = self  # every subclass is a dataclass, which the type of this class cannot express
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(own)}

    def _settle(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen

    def _check_number(self, name: str, **bounds: float) -> None:
        """Check that a parameter is a finite number within the bounds, and store it as a float."""
        self._settle(name, number(name, getattr(self, name), **bounds))

    def _check_times(self, *phases: str, may_be_zero: tuple[str, ...] = ()) -> None:
        """Check dt and durations: each is a step or longer; those in `may_be_zero` may be 0."""
        self._check_number("dt", above=0)
        for name in (*phases, *may_be_zero):
            self._check_number(name, **({"minimum": 0} if name in may_be_zero else {"above": 0}))
            duration: float = getattr(self, name)
            if duration > 0 and steps_in(duration, self.dt) == 0:
                raise InputError(
                    f"dt must be at most {duration:g}, so that {name} = {duration:g} lasts one step or more, "
                    f"got {self.dt!r}"
                )


class OneTrialTask(BuiltInTask):
    """Base class of tasks whose trials are all the same: one input, one output, given by the array `_trial`."""

    duration: float
    input_size = 1
    output_size = 1

    @property
    def steps(self) -> int:
        """Number of time steps of a trial."""
        return steps_in(self.duration, self.dt)

    @property
    @abstractmethod
    def _trial(self) -> NDArray[np.float32]:
        """Inputs, targets and mask of the one trial, shape (3, 1, steps, 1)."""

    def example(self) -> Trials:
        """Return the trial."""
        return self.sample(1, rng=0)

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        # repeat copies, so that callers cannot change the cached trial
        return Trials.from_arrays(*np.repeat(self._trial, batch_size, axis=1))


def _describe(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return type(value).__name__
