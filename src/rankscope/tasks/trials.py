"""What a task is, and what it hands out.

A task is anything with a `sample(batch_size, rng)` method that returns `Trials`: what the network hears,
what it should say, and when it is listened to. Nothing else is asked of a task that you write yourself. The
tasks of this package are frozen dataclasses, so that a task is fully described by its parameters and equal
parameters mean an equal task.

The contract, stated once and kept by every task here:

* Arrays are (batch, time, channels). Times and durations are in units of the membrane time constant.
* `inputs[:, t]` drives the network during step t. The readout with index t is taken *after* that step, at
  time (t + 1) dt, and is compared with `targets[:, t]`.
* `mask` says how much each entry counts: 1 counts, 0 does not. The loss is half the masked mean square,
  1/2 sum(mask (z - target)^2) / sum(mask), so every batch has some mask that is not 0.
* A target where the mask is 0 is never looked at. The tasks put 0 there, or what a picture should show.
* A stretch of time of length d lasts `steps_in(d, dt)` steps, and starts where the one before it ended.
* All randomness comes from `rng`: the same seed gives the same bits. The caller may change what it is given.

Source: Schuessler et al. 2020, task descriptions (paper section 2 and its supplement).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
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
    """Return how many whole steps of length `dt` fit into `duration` (both in time constants).

    This is int(duration / dt) with a guard: in floating point 0.3 / 0.1 is 2.9999999999999996, and must
    count as 3.
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
        fits = isinstance(lengths, torch.Tensor) and lengths.dtype == torch.int64
        if not fits or lengths.shape != self.inputs.shape[:1]:
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
        arrays = (np.ascontiguousarray(array, dtype=np.float32) for array in (inputs, targets, mask))
        counts = None if lengths is None else torch.from_numpy(np.ascontiguousarray(lengths, dtype=np.int64))
        tensors = [torch.from_numpy(array) for array in arrays]
        return cls(tensors[0], tensors[1], tensors[2], counts)

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
            wanted = where if isinstance(where, torch.dtype) else torch.device(where)
        except (RuntimeError, TypeError) as error:
            raise InputError(f"where must be a torch device or a floating-point dtype, got {where!r}") from error
        lengths = self.lengths
        if lengths is not None and isinstance(wanted, torch.device):
            lengths = lengths.to(wanted)
        return Trials(self.inputs.to(wanted), self.targets.to(wanted), self.mask.to(wanted), lengths)

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def __getitem__(self, batch: slice) -> Trials:
        """Return some trials, as in `trials[0:4]`: a view on the same memory, with the batch axis kept."""
        asked: Any = batch  # Any, so that a type checker also sees the refusal below as reachable
        if not isinstance(asked, slice):
            raise InputError(f"trials take a slice of the batch, such as trials[3:4], got {asked!r}")
        lengths = None if self.lengths is None else self.lengths[asked]
        return Trials(self.inputs[asked], self.targets[asked], self.mask[asked], lengths)

    def __repr__(self) -> str:
        sizes = f"in={self.inputs.shape[2]}, out={self.targets.shape[2]}"
        return f"Trials(batch_size={self.batch_size}, steps={self.steps}, {sizes}, {self.inputs.dtype})"


def as_trials(handed_out: object) -> Trials:
    """Return what a task has handed out.

    Raises
    ------
    InputError
        If that is something else than Trials.
    """
    if isinstance(handed_out, Trials):
        return handed_out
    raise InputError(
        f"task must hand out Trials, got {type(handed_out).__name__}; Trials.from_arrays(inputs, targets, mask) makes "
        "them of arrays"
    )


@runtime_checkable
class Task(Protocol):
    """Anything that makes trials. This method is all that your own task needs.

    The package always passes `rng` as a numpy Generator, which `sample` draws from (and so advances); a
    task may accept a seed as well, as the built-in ones do.
    """

    def sample(self, batch_size: int, rng: np.random.Generator) -> Trials:
        """Return `batch_size` fresh trials, with all randomness drawn from `rng`."""
        ...


class BuiltInTask(ABC):
    """What the tasks of this package share: checked parameters, a checked `sample`, and a description.

    A new one is a frozen dataclass in a file of its own that says how big its channels are, how long a
    trial is, how to draw a batch (`_draw`) and which trial to show in a picture (`example`).
    """

    name: ClassVar[str]
    autonomous: ClassVar[bool] = False  # True: nothing drives the network, so the initial state has to
    by_rng_alone: ClassVar[bool] = False  # True: batches depend on nothing else, so they may be drawn early
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
        """Return one fixed trial (batch 1) to look at; the same at every call."""

    @abstractmethod
    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        """Draw a batch; the arguments are already checked."""

    def sample(self, batch_size: int, rng: RngLike = None) -> Trials:
        """Draw fresh trials.

        Parameters
        ----------
        batch_size : int
            How many, at least 1.
        rng : int, numpy.random.Generator or None
            A seed, or a Generator, which is advanced. None draws fresh entropy.

        Returns
        -------
        Trials
            float32, shapes (batch_size, steps, input_size) and twice (batch_size, steps, output_size).

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
        own: Any = self  # every subclass is a dataclass, which this base class cannot say in its type
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(own)}

    def _settle(self, name: str, value: object) -> None:
        """Store a checked parameter as a plain Python value, so that equal tasks are recorded equally."""
        object.__setattr__(self, name, value)  # the dataclass is frozen

    def _check_number(self, name: str, **bounds: float) -> None:
        """Check that one parameter is a finite number within the bounds, and store it as a float."""
        self._settle(name, number(name, getattr(self, name), **bounds))

    def _check_times(self, *phases: str, may_be_zero: tuple[str, ...] = ()) -> None:
        """Check dt and durations: each lasts a step or more, or is 0 where `may_be_zero` allows it."""
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
    """A task of which every trial is the same: one channel in, one out, `duration` long, from the array `_trial`."""

    duration: float

    @property
    def input_size(self) -> int:
        """One channel."""
        return 1

    @property
    def output_size(self) -> int:
        """One output."""
        return 1

    @property
    def steps(self) -> int:
        """Number of time steps of a trial."""
        return steps_in(self.duration, self.dt)

    @property
    @abstractmethod
    def _trial(self) -> NDArray[np.float32]:
        """Inputs, targets and mask of the one trial, shape (3, 1, steps, 1)."""

    def example(self) -> Trials:
        """Return the trial; there is only one."""
        return self.sample(1, rng=0)

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        # repeat copies, so that nobody can change the trial that the task keeps
        return Trials.from_arrays(*np.repeat(self._trial, batch_size, axis=1))


def _describe(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return type(value).__name__
