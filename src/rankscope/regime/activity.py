"""Activity of a network on trials: what its output weights read, its states, and its outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.networks.gated import GatedRNN
from rankscope.networks.protocol import Network, evaluating
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Task, Trials, trials_of
from rankscope.validation import RngLike, generator

Array = NDArray[np.float64]

TRIALS = 128
"""Trials that are drawn of a task."""


class Activity(NamedTuple):
    """Activity in all steps of all trials, (samples, ...), and the weights that read it out.

    Attributes
    ----------
    rates
        What the output weights multiply, (samples, N): phi_out(h), in the rate convention h; the states of the last
        layer of a network with gates.
    outputs
        (samples, out).
    output_weights
        (out, N).
    states
        h, (samples, N).
    last
        h in the last step of each trial, (trials, N).
    """

    rates: Array
    outputs: Array
    output_weights: Array
    states: Array
    last: Array


@torch.no_grad()
def activity(network: Network, task: Task | Trials, rng: RngLike = 0) -> Activity:
    """Return the activity of a network.

    Parameters
    ----------
    network
        A RateRNN, or a GatedRNN that reads out every step; run in evaluation mode.
    task
        Trials, or a task of which 128 are drawn.
    rng
        Source of the trials and of noise.

    Raises
    ------
    InputError
        For another network, or a task that is none.
    """
    reason = unreadable(network)
    if reason is not None:
        raise InputError(f"network must be one whose activity is known, got {type(network).__name__}: {reason}")
    source = generator(rng)
    trials = trials_of(task, TRIALS, source)
    assert isinstance(network, RateRNN | GatedRNN)
    with evaluating(network), threads_for(network.hidden_size):
        if isinstance(network, RateRNN):
            outputs, states = network(trials.inputs, rng=source, return_states=True)
            d = network.dynamics
            rates = d.readout_nonlinearity(states) if d.convention == "current" else states
            w: Tensor = network.output_weights
        else:
            outputs, states = network(trials.inputs.to(network.readout.weight), return_states=True)
            rates, w = states, network.readout.weight
    inside = within(trials)
    last = states[torch.arange(len(states)), inside.sum(1) - 1]
    return Activity(*map(_array, (rates[inside], outputs[inside], w, states[inside], last)))


def within(trials: Trials) -> Tensor:
    """Return which steps belong to a trial, (batch, time)."""
    if trials.lengths is None:
        return torch.ones(trials.inputs.shape[:2], dtype=torch.bool)
    return torch.arange(trials.steps)[None] < trials.lengths[:, None]


def unreadable(network: Network) -> str | None:
    """Return why the activity that the output weights of a network read is not known, or None if it is."""
    if isinstance(network, RateRNN) or (isinstance(network, GatedRNN) and network.readout_steps == "every"):
        return None
    return "it needs a rate network, or one with gates that reads out every step"


def finite(name: str, values: Any, columns: int | None = None) -> Array:
    """Return a matrix in double precision.

    Raises
    ------
    InputError
        If `values` are no finite matrix (rows, columns) with a row.
    """
    try:
        found = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a matrix of numbers, got {type(values).__name__}") from error
    if found.ndim != 2 or 0 in found.shape or (columns is not None and found.shape[1] != columns):
        expected = "any" if columns is None else columns
        raise InputError(f"{name} must have shape (rows, {expected}), got {found.shape}")
    if not np.isfinite(found).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return found


def _array(x: Tensor) -> Array:
    found: Array = x.detach().cpu().double().numpy()
    return found
