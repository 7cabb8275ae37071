"""What `table.py` compares with: the loop over time as one writes it in PyTorch, and an epoch of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import rankscope as rs

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
    return rs.RateRNN.initialize(task, hidden_size=hidden_size, gain=0.9, rng=0), task.sample(BATCH, rng=0)


def epoch_of(model: rs.RateRNN | PlainRNN, trials: rs.Trials) -> Callable[[], None]:
    """Return a function that does one gradient step on these trials: forward, backward, Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05 / model.recurrent_weights.shape[0], fused=True)

    def epoch() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = rs.squared_loss(model(trials.inputs), trials.targets, trials.mask)
        loss.backward()
        optimizer.step()

    return epoch


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
