"""The things that `recurrence.py` compares: plain autograd loops, an epoch, networks side by side in processes."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import rankscope as rs
from timing import Turn, timed

BATCH = 32
AGREEMENT = 1e-4
"""Largest relative difference, in Euclidean norm, that float32 accounts for."""


class PlainRNN(nn.Module):
    """The rate network as one writes it in PyTorch: a loop over time, and autograd does the rest.

    The input drive is one product before the loop and the readout one product after it, and no tanh is computed
    twice. Weights are copied from `network`.
    """

    def __init__(self, network: rs.RateRNN) -> None:
        super().__init__()
        self.input_weights = nn.Parameter(network.input_weights.detach().clone())
        self.recurrent_weights = nn.Parameter(network.recurrent_weights.detach().clone())
        self.output_weights = nn.Parameter(network.output_weights.detach().clone())
        self.dt = network.dynamics.dt

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs, (batch, time, out), for inputs (batch, time, in)."""
        drive = functional.linear(inputs, self.input_weights)
        h = drive.new_zeros(inputs.shape[0], self.recurrent_weights.shape[0])
        r = torch.tanh(h)
        rates = []
        for now in drive.unbind(1):
            h = (1 - self.dt) * h + self.dt * (functional.linear(r, self.recurrent_weights) + now)
            r = torch.tanh(h)
            rates.append(r)
        return functional.linear(torch.stack(rates, dim=1), self.output_weights)


class ThriftyRNN(PlainRNN):
    """The same loop by someone who counts operations: time first, addition inside the product, lerp for the leak."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs, (batch, time, out), for inputs (batch, time, in)."""
        drive = functional.linear(inputs.transpose(0, 1), self.input_weights)
        h = drive.new_zeros(inputs.shape[0], self.recurrent_weights.shape[0])
        r = torch.tanh(h)
        rates = []
        for now in drive.unbind(0):
            h = torch.lerp(h, torch.addmm(now, r, self.recurrent_weights.t()), self.dt)
            r = torch.tanh(h)
            rates.append(r)
        return functional.linear(torch.stack(rates, dim=1), self.output_weights)


def fresh(task: rs.tasks.BuiltInTask, hidden_size: int) -> tuple[rs.RateRNN, rs.Trials]:
    """Return an untrained network and one batch, always the same ones."""
    return rs.RateRNN.initialise(task, hidden_size=hidden_size, gain=0.9, rng=0), task.sample(BATCH, rng=0)


def epoch_of(model: rs.RateRNN | PlainRNN, trials: rs.Trials) -> Callable[[], None]:
    """Return a function that does one gradient step on these trials: forward, backward, Adam."""
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05 / model.recurrent_weights.shape[0], fused=True)

    def epoch() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss = rs.squared_loss(model(trials.inputs), trials.targets, trials.mask)
        loss.backward()
        optimiser.step()

    return epoch


def forward_of(model: rs.RateRNN | PlainRNN, trials: rs.Trials) -> Callable[[], Tensor]:
    """Return a function that runs these trials, without preparing for a backward pass."""

    @torch.no_grad()
    def forward() -> Tensor:
        return model(trials.inputs)

    return forward


def disagreement(task: rs.tasks.BuiltInTask, hidden_size: int) -> float:
    """Return the largest relative difference between either loop here and ours, in loss and gradients.

    Raises
    ------
    AssertionError
        If it is more than float32 accounts for.
    """
    network, trials = fresh(task, hidden_size)
    found = []
    for model in (network, PlainRNN(network), ThriftyRNN(network)):
        loss = rs.squared_loss(model(trials.inputs), trials.targets, trials.mask)
        loss.backward()
        names = ("input_weights", "recurrent_weights", "output_weights")
        found.append([loss.detach(), *(getattr(model, name).grad for name in names)])
    ours, *others = found
    pairs = [pair for other in others for pair in zip(ours, other, strict=True)]
    worst = max(float((mine - theirs).norm() / theirs.norm()) for mine, theirs in pairs)
    if not worst < AGREEMENT:
        raise AssertionError(
            f"ours and the plain loops must agree to {AGREEMENT:g} at N = {hidden_size}, got {worst:g}"
        )
    return worst


@dataclass
class SideBySide:
    """Networks that learn at the same time, each in a process of its own with one thread.

    A turn gives the wall time of an epoch divided by the number of networks. All start together; each goes on after its
    own timed epochs until the last one has finished, so that none is ever timed while it is alone. Between turns
    the processes sleep.
    """

    task: rs.tasks.BuiltInTask
    hidden_size: int
    count: int = 2
    epochs: int = 20
    warm_ups: int = 3
    _pipes: list[Connection] = field(default_factory=list)
    _processes: list[BaseProcess] = field(default_factory=list)
    _shared: tuple[Any, ...] = ()

    def __enter__(self) -> SideBySide:
        context = multiprocessing.get_context("spawn")
        self._shared = context.Barrier(self.count), context.Value("i", 0)
        for _ in range(self.count):
            ours, theirs = context.Pipe()
            arguments = (theirs, *self._shared, self)
            self._pipes.append(ours)
            self._processes.append(context.Process(target=_learn_when_told, args=arguments, daemon=True))
            self._processes[-1].start()
            theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            with contextlib.suppress(BrokenPipeError):
                pipe.send(False)
            process.join(timeout=10)

    def __getstate__(self) -> dict[str, Any]:
        """Send the settings to a process, not the connections to the others."""
        return {**self.__dict__, "_pipes": [], "_processes": [], "_shared": ()}

    def prepare(self, turn_seconds: float) -> None:
        """Wait until the processes have begun, and warm them up."""
        self.turn()

    def turn(self) -> Turn:
        """Return the seconds of an epoch, per network."""
        _, finished = self._shared
        finished.value = 0
        for pipe in self._pipes:
            pipe.send(True)
        turns: list[Turn] = [pipe.recv() for pipe in self._pipes]
        seconds, received = (sum(numbers) / len(turns) for numbers in zip(*turns, strict=True))
        return Turn(seconds / self.count, received)


def _learn_when_told(pipe: Connection, barrier: Any, finished: Any, settings: SideBySide) -> None:
    torch.set_num_threads(1)
    epoch = epoch_of(*fresh(settings.task, settings.hidden_size))
    while pipe.recv():
        barrier.wait(timeout=60)
        for _ in range(settings.warm_ups):
            epoch()
        turn = timed(epoch, settings.epochs)
        with finished.get_lock():
            finished.value += 1
        while finished.value < settings.count:
            epoch()
        pipe.send(turn)
