"""A copy of a network in which chosen matrices are replaced by others, and its outputs with each of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankscope.linalg.threads import threads_for
from rankscope.lowrank.matrices import Block
from rankscope.networks.computed import Names, replace_matrix
from rankscope.networks.many import outputs_of_many
from rankscope.networks.protocol import Network, hidden_size_of, outputs_of
from rankscope.networks.rate import RateRNN
from rankscope.networks.use import check_use
from rankscope.tasks.trials import Trials
from rankscope.validation import RngLike, generator

Array = NDArray[np.float64]
Metric = Callable[[Tensor, Tensor, Tensor], Tensor | float]
Matrices = Mapping[str, Array]


class Replacement:
    """A copy of a network, in evaluation mode, in which these matrices and gates can be replaced.

    Attributes
    ----------
    computed
        Names of the matrices that the network computes.
    used
        Those of them that it has read since.
    """

    def __init__(self, network: Network, blocks: Sequence[Block]) -> None:
        self._network = cast(nn.Module, copy.deepcopy(network)).eval()
        names = {block.matrix for block in blocks}
        self.computed = names - dict(self._network.named_parameters()).keys()
        self.used = Names()
        matrices = {name: replace_matrix(self._network, name, self.used) for name in names}
        self._targets = {block.name: matrices[block.matrix][block.rows] for block in blocks}
        self._own = {name: target.clone() for name, target in self._targets.items()}

    @torch.no_grad()
    def network(self, matrices: Matrices) -> nn.Module:
        """Return the copy with these matrices, and its own ones otherwise; the next call changes it in place."""
        for name, target in self._targets.items():
            target.copy_(self._own[name])
        for name, matrix in matrices.items():  # after all others: a gate shares its memory with the whole matrix
            self._targets[name].copy_(torch.as_tensor(matrix))
        return self._network


def metric_of_replacements(
    network: Network, blocks: Sequence[Block], trials: Trials, rng: RngLike, metric: Metric
) -> Callable[[Iterable[Matrices]], list[float]]:
    """Return a function that evaluates a metric of outputs, targets and mask for each of several sets of matrices.

    The network's noise, drawn from `rng`, is the same for all sets.
    """
    if isinstance(network, RateRNN) and [block.name for block in blocks] == ["recurrent_weights"]:
        return _of_rate_network(network, trials, rng, metric)
    check_use(network, trials, {block.matrix for block in blocks})
    replacement = Replacement(network, blocks)
    seed = int(generator(rng).integers(2**63 - 1))

    @torch.no_grad()
    def evaluate(sets: Iterable[Matrices]) -> list[float]:
        values = []
        with threads_for(hidden_size_of(network)):
            for matrices in sets:
                replaced = replacement.network(matrices)
                outputs = outputs_of(replaced, trials.inputs, np.random.default_rng(seed), trials.lengths)
                values.append(float(metric(outputs, trials.targets.to(outputs), trials.mask.to(outputs))))
        return values

    return evaluate


def _of_rate_network(
    network: RateRNN, trials: Trials, rng: RngLike, metric: Metric
) -> Callable[[Iterable[Matrices]], list[float]]:
    """Return the same for the recurrent weights of a rate network, run with all matrices at once."""
    own = network.recurrent_weights.detach()
    inputs = network.checked(trials.inputs)
    noise = network.draw_noise(inputs, rng)
    targets, mask = trials.targets.to(own), trials.mask.to(own)

    def evaluate(sets: Iterable[Matrices]) -> list[float]:
        recurrent = [
            torch.as_tensor(matrices["recurrent_weights"]).to(own, copy=True) if matrices else own for matrices in sets
        ]
        with threads_for(network.hidden_size):
            outputs = outputs_of_many(inputs, network.weights, recurrent, network.dynamics, noise)
        return [float(metric(z, targets, mask)) for z in outputs]

    return evaluate
