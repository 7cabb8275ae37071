"""The loss of any network with other recurrent weights than its own: truncated, or on shuffled initial ones.

A rate network has a fast way to run with many matrices at once (`networks.many`); here a copy of the network gets one
set of matrices after the other. Where there are several, they are truncated together, all to the same rank.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from rankscope.linalg.threads import threads_for
from rankscope.networks.protocol import Network, evaluating, hidden_size_of, outputs_of
from rankscope.tasks.trials import Trials
from rankscope.training.loss import Loss
from rankscope.validation import RngLike, generator

Array = NDArray[np.float64]


@torch.no_grad()
def losses_with(
    network: Network, replacements: Iterable[Mapping[str, Array]], trials: Trials, rng: RngLike, loss: Loss
) -> Array:
    """Return the loss of `network` with each of the sets of matrices, (sets,).

    Parameters
    ----------
    replacements
        Matrices by the names of the network's parameters.
    rng
        Source of the network's noise, which is the same for all sets.
    """
    twin = copy.deepcopy(network)
    parameters = dict(twin.named_parameters())
    seed = int(generator(rng).integers(2**63 - 1))
    losses = []
    with evaluating(twin), threads_for(hidden_size_of(twin)):
        for matrices in replacements:
            for name, matrix in matrices.items():
                parameters[name].copy_(torch.as_tensor(matrix))
            outputs = outputs_of(twin, trials.inputs, np.random.default_rng(seed))
            losses.append(float(loss(outputs, trials.targets.to(outputs), trials.mask.to(outputs))))
    return np.array(losses)
