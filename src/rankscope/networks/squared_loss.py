"""Squared loss of a rate network and its gradient by compiled kernels, with all buffers and views allocated once.

The general passes of `forward_backward` allocate small tensors and dispatch some sixty torch operations. For a network
of 64 units these take as long as a third of its matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.networks.kernels.dispatch import grams, time_loop
from rankscope.networks.nonlinearities import Nonlinearity
from rankscope.networks.recurrence import Dynamics, Weights, leading_zeros


def squared_loss_into(grad: NDArray[Any], outputs: NDArray[Any], targets: NDArray[Any], mask: NDArray[Any]) -> float:
    """Write the gradient of the masked squared loss with respect to `outputs` into `grad`; return the loss.

    All arrays have one shape. numpy: operations on few numbers cost a third of torch's.
    """
    with np.errstate(all="ignore"):  # a divergence shows in the loss
        error = np.where(mask == 0, 0, outputs - targets)
        np.multiply(mask, error, out=grad)
        total = mask.sum()
        loss = 0.5 * np.vdot(grad, error) / total
        grad /= total
    return float(loss)


class _Views(NamedTuple):
    """The buffers of the steps that are computed, those after the silent ones."""

    inputs: Tensor
    outputs: Tensor
    rates: Tensor
    delta: Tensor
    grad: Tensor
    grad_before: Tensor


class SquaredLoss:
    """Loss and gradient of a network without noise, bias and initial state.

    Parameters
    ----------
    weights
        Their memory is read at every call.
    batch, steps
        Shape of the trials.
    gradients
        Buffers for the gradients of "input", "recurrent" and "output", or some of them.
    """

    def __init__(
        self, weights: Weights, dynamics: Dynamics, batch: int, steps: int, gradients: Mapping[str, Tensor]
    ) -> None:
        phi, dt = dynamics.nonlinearity, dynamics.dt
        assert isinstance(phi, Nonlinearity)
        forward = time_loop(phi.name, weights.recurrent, weights.input, dt, dt)
        back = time_loop(phi.name, weights.recurrent.t(), weights.output.t(), dt)
        assert forward is not None
        assert back is not None
        self._forward, self._back, self._phi, self._dt = forward, back, phi, dt
        self._weights, self._gradients = weights, gradients
        (N, inputs), outputs = weights.input.shape, len(weights.output)
        zeros, empty = weights.recurrent.new_zeros, weights.recurrent.new_empty
        self._inputs, self._outputs = zeros(steps, batch, inputs), zeros(steps, batch, outputs)
        self._rates, self._delta = empty(steps + 1, batch, N), empty(steps, batch, N)
        self._rates[0].zero_()
        self._grad, self._state = zeros(steps + 1, batch, outputs), zeros(1, batch, N)
        self._product = gradients["recurrent"] if "recurrent" in gradients else zeros(N, N)
        self._by_silent: dict[int, _Views] = {}

    @staticmethod
    def fits(weights: Weights, dynamics: Dynamics) -> bool:
        """Return whether the kernels cover this network."""
        phi = dynamics.nonlinearity
        return (
            weights.bias is None
            and weights.initial_state is None
            and dynamics.convention == "current"
            and dynamics.readout_nonlinearity is phi
            and isinstance(phi, Nonlinearity)
            and time_loop(phi.name, weights.recurrent, weights.input) is not None
        )

    def __call__(self, inputs: Tensor, targets: Tensor, mask: Tensor) -> float:
        """Write the gradients; return the loss. All arguments are (batch, time, channels)."""
        driving = self._inputs.numpy()
        driving[...] = inputs.numpy().transpose(1, 0, 2)
        silent = leading_zeros(driving)
        views = self._by_silent.get(silent) or self._views(silent)
        leak = 1 - self._dt
        self._forward.pack()
        state, readout = self._state.zero_(), self._weights.output
        self._forward.forward(
            self._phi.name, views.inputs, state, state, views.rates, leak, readout, views.outputs.transpose(0, 1)
        )
        self._outputs[:silent].zero_()
        wanted, weights = targets.numpy().transpose(1, 0, 2), mask.numpy().transpose(1, 0, 2)
        loss = squared_loss_into(self._grad[1:].numpy(), self._outputs.numpy(), wanted, weights)
        last, last_rates = views.delta[-1], views.rates[-1]
        torch.mm(views.grad[-1], readout, out=last)
        self._phi.backward_into(last, last_rates, last)
        self._back.pack()
        self._back.adjoint(self._phi.name, views.delta, views.grad, views.rates[1:], leak)
        self._accumulate(views)
        return loss

    def _views(self, silent: int) -> _Views:
        steps = len(self._inputs) - silent
        self._by_silent[silent] = _Views(
            self._inputs[silent:],
            self._outputs[silent:],
            self._rates[: steps + 1],
            self._delta[:steps],
            self._grad[silent + 1 :],
            self._grad[silent:-1],
        )
        return self._by_silent[silent]

    def _accumulate(self, views: _Views) -> None:
        """Write the gradients of the weights."""
        # The rates before the first computed step are zero, so that the first `grad_before` does not matter.
        delta, rates, inputs, grad = (
            x.flatten(0, 1) for x in (views.delta, views.rates[:-1], views.inputs, views.grad_before)
        )
        _, input_total, output_total = grams(delta, rates, inputs, grad, self._product)
        self._product.mul_(self._dt)
        if "input" in self._gradients:
            torch.mul(input_total.t(), self._dt, out=self._gradients["input"])
        if "output" in self._gradients:
            torch.addmm(output_total, views.grad[-1].t(), views.rates[-1], out=self._gradients["output"])
