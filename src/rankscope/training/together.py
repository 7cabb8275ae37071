"""Training many networks at once, as `train` trains each: for a device on which one of them is too small.

Each network draws its trials from its own `rng`, in the order in which `train` would, so that it sees the same trials
as alone; results agree to the rounding of the products, which are batched over networks. One that diverges keeps its
weights from before and leaves the others alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rankscope.arguments import RngLike, choice, generator, integer, number
from rankscope.errors import InputError
from rankscope.networks.ensemble import can_run_together, ensemble
from rankscope.networks.parts import PARAMETERS
from rankscope.networks.rate import RateRNN
from rankscope.networks.recurrence import Weights
from rankscope.tasks.trials import Task, Trials, as_trials
from rankscope.training.history import History, MatrixRecords, Records, record_schedule
from rankscope.training.loss import Loss, find_loss, squared_loss
from rankscope.training.train import LARGEST_STEP, OPTIMISERS, Progress

MATRIX = "recurrent_weights"


def train_together(
    networks: Sequence[RateRNN],
    task: Task,
    epochs: int,
    rngs: Sequence[RngLike],
    *,
    batch_size: int = 32,
    optimiser: str = "adam",
    learning_rate: float | None = None,
    clip_norm: float | None = None,
    loss: str | Loss | None = None,
    recorded_epochs: int | Sequence[int] | None = None,
    singular_values: int = 40,
    eigenvalues: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> list[History]:
    """Train networks of one kind in place, all on the same task and each on its own trials.

    Parameters
    ----------
    networks
        Of one size, one dynamics (current convention, one nonlinearity known by name, no noise) and the same trained
        parts.
    rngs
        A source of trials for each.
    device
        Where to train, "cuda" for one; by default where the networks are. They stay where they are.
    epochs, batch_size, optimiser, learning_rate, clip_norm, loss
        As in `train`.
    recorded_epochs, singular_values, eigenvalues, progress
        As in `train`; the loss given to `progress` is the mean.

    Returns
    -------
    list of History
        One for each network; `seconds` is its share of the time.

    Raises
    ------
    InputError
        For anything out of range, or networks that cannot run together.
    """
    first = _check_alike(networks)
    if len(rngs) != len(networks):
        raise InputError(f"rngs must have one source for each of {len(networks)} networks, got {len(rngs)}")
    total, batch_size = integer("epochs", epochs, minimum=1), integer("batch_size", batch_size, minimum=1)
    N = first.hidden_size
    rate = 0.05 / N if learning_rate is None else number("learning_rate", learning_rate, above=0)
    clip = None if clip_norm is None else number("clip_norm", clip_norm, above=0)
    judge = find_loss(loss, task)
    kind = OPTIMISERS[choice("optimiser", optimiser, OPTIMISERS)]
    schedule = record_schedule(total, recorded_epochs, N)
    counts = (integer("singular_values", singular_values, minimum=1), integer("eigenvalues", eigenvalues, minimum=0))
    stack = _Stack(networks, first.recurrent_weights.device if device is None else torch.device(device))
    updates = kind(stack.trained, lr=rate, fused=True)
    generators = [generator(rng) for rng in rngs]
    records = [_records(W, schedule, *counts) for W in stack.recurrent_weights()]
    diverged: set[int] = set()
    began = time.perf_counter()
    for epoch in range(total):
        learning = [e for e in range(len(networks)) if e not in diverged]
        if not learning:
            break
        trials = _drawn(task, batch_size, generators, diverged)
        if epoch in schedule:
            seen = stack.recurrent_weights()
            for e in learning:
                records[e].look_at(epoch, {MATRIX: seen[e]})
        losses = _losses(judge, stack.outputs(trials[0]), *trials[1:])
        updates.zero_grad(set_to_none=True)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        norms = stack.gradient_norms()
        losses_now, norms_now = torch.stack([losses.detach(), norms]).tolist()
        for e in learning:
            records[e].losses.append(losses_now[e])
            records[e].gradient_norms.append(norms_now[e])
            fine = math.isfinite(losses_now[e]) and math.isfinite(norms_now[e])
            if not (fine and rate * max(norms_now[e], 1.0) < LARGEST_STEP):
                diverged.add(e)
                stack.keep(e)
        if clip is not None:
            stack.scale_gradients((clip / (norms + 1e-6)).clamp(max=1))
        updates.step()
        if progress is not None:
            progress(epoch + 1, total, float(np.mean([losses_now[e] for e in learning])))
    stack.hand_back(networks)
    share = (time.perf_counter() - began) / len(networks)
    return [records[e].finish("diverged" if e in diverged else "finished", rate, share) for e in range(len(networks))]


class _Stack:
    """The weights of all networks, one tensor a part with the networks in front."""

    def __init__(self, networks: Sequence[RateRNN], device: torch.device) -> None:
        self._dynamics = networks[0].dynamics
        self._parts: dict[str, Tensor | None] = {}
        self.trained: list[Tensor] = []
        for part, name in PARAMETERS.items():
            values = [getattr(network, name) for network in networks]
            if values[0] is None:
                self._parts[name] = None
                continue
            stacked = torch.stack([value.detach() for value in values]).to(device)
            if part in networks[0].trained:
                self.trained.append(stacked.requires_grad_())
            self._parts[name] = stacked
        self._kept: dict[int, dict[str, Tensor]] = {}

    def recurrent_weights(self) -> Tensor:
        """Return (E, N, N) of now, in memory."""
        W = self._parts[MATRIX]
        assert W is not None
        return W.detach().cpu().clone()

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return (E, batch, time, out)."""
        weights = Weights(*self._parts.values())  # type: ignore[arg-type]
        return ensemble(inputs.to(weights.recurrent), weights, self._dynamics)

    def gradient_norms(self) -> Tensor:
        """Return (E,) norms over all trained parts."""
        squares = [weights.grad.flatten(1).square().sum(1) for weights in self.trained if weights.grad is not None]
        return torch.stack(squares).sum(0).sqrt()

    def scale_gradients(self, factors: Tensor) -> None:
        """Multiply the gradients of each network by its factor, (E,)."""
        for weights in self.trained:
            if weights.grad is not None:
                weights.grad.mul_(factors.view(-1, *[1] * (weights.grad.ndim - 1)))

    def keep(self, e: int) -> None:
        """Remember the weights of one network as those that it ends with, whatever becomes of them in the stack."""
        self._kept[e] = {name: part[e].detach().clone() for name, part in self._parts.items() if part is not None}

    @torch.no_grad()
    def hand_back(self, networks: Sequence[RateRNN]) -> None:
        """Put the weights into their networks."""
        for e, network in enumerate(networks):
            for name, part in self._parts.items():
                if part is not None:
                    getattr(network, name).copy_(self._kept[e][name] if e in self._kept else part[e])


def _check_alike(networks: Sequence[RateRNN]) -> RateRNN:
    if isinstance(networks, RateRNN) or not len(networks) or not all(isinstance(n, RateRNN) for n in networks):
        raise InputError(f"networks must be a list of RateRNN, at least one, got {networks!r}")
    first = networks[0]
    if not can_run_together(first.dynamics) or first.noise_std > 0:
        raise InputError(
            "networks must have the current convention, one nonlinearity known by name, and no noise, to be trained "
            f"together, got {first.architecture()!r}; train them one by one with rankscope.train"
        )
    if not first.trained:
        raise InputError(f"networks must have something to train, got trained = {first.trained!r}")
    for index, network in enumerate(networks):
        shapes = {name: (w.shape, w.dtype) for name, w in network.state_dict().items()}
        if network.architecture() != first.architecture() or shapes != {
            name: (w.shape, w.dtype) for name, w in first.state_dict().items()
        }:
            raise InputError(f"networks must be alike but for their weights, got another kind or size at {index}")
    return first


def _records(W: Tensor, schedule: frozenset[int], singular_count: int, eigenvalue_count: int) -> Records:
    return Records({MATRIX: MatrixRecords(W.clone())}, schedule, singular_count, False, eigenvalue_count)


def _drawn(
    task: Task, batch_size: int, rngs: Sequence[np.random.Generator], diverged: set[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, targets and mask, each (E, batch, time, channels); those of diverged networks are another's."""
    each: list[Trials | None] = [
        None if e in diverged else as_trials(task.sample(batch_size, rng)) for e, rng in enumerate(rngs)
    ]
    some = next(trials for trials in each if trials is not None)
    whole = [some if trials is None else trials for trials in each]
    for trials in whole:
        if trials.inputs.shape != some.inputs.shape or trials.targets.shape != some.targets.shape:
            raise InputError(
                f"task must hand out trials of one shape to networks that are trained together, got inputs "
                f"{tuple(trials.inputs.shape)} beside {tuple(some.inputs.shape)}"
            )
    inputs, targets, mask = (torch.stack([getattr(t, part) for t in whole]) for part in ("inputs", "targets", "mask"))
    return inputs, targets, mask


def _losses(judge: Loss, outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the loss of each network, (E,)."""
    targets, mask = targets.to(outputs), mask.to(outputs)
    if judge is squared_loss:
        error = torch.where(mask == 0, 0, outputs - targets)
        return 0.5 * (mask * error * error).flatten(1).sum(1) / mask.flatten(1).sum(1)
    return torch.stack([judge(*each) for each in zip(outputs, targets, mask, strict=True)])
