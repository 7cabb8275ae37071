"""What learning wrote: the change dW = W - W0, its singular values, and the loss when part of it is taken away.

Three questions of the paper are answered here. How many directions does dW have (singular values, variance
explained)? How many of them does the task need (truncation losses, functional rank)? And is dW tied to the W0
it was learned on (loss after shuffling W0)? (paper section 3)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.any_network import losses_with
from rankscope.networks.many import outputs_of_many
from rankscope.networks.protocol import Network, recurrent_names
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Trials
from rankscope.training.loss import Loss, find_loss
from rankscope.validation import RngLike, generator, integer, number

Array = NDArray[np.float64]
RATE_RNN = ("recurrent_weights",)
"""The matrices of a RateRNN that are truncated unless others are asked for."""
PAPER_RANKS = 26


class Change:
    """dW = W - W0 and its singular value decomposition, computed once, in double precision.

    Attributes
    ----------
    before, after, matrix
        W0, W and dW = W - W0, (post, pre).
    """

    def __init__(self, before: Array, after: Array) -> None:
        self.before = before
        self.after = after
        self.matrix = after - before

    @cached_property
    def svd(self) -> tuple[Array, Array, Array]:
        """U (post, k), s (k,), V^T (k, pre) with dW = U diag(s) V^T and k = min(post, pre)."""
        with threads_for(max(self.matrix.shape)):
            U, s, Vt = np.linalg.svd(self.matrix, full_matrices=False)
        return U, s, Vt

    @property
    def singular_values(self) -> Array:
        """Singular values of dW, largest first, (k,)."""
        return self.svd[1]

    @cached_property
    def norm(self) -> float:
        """Frobenius norm of dW."""
        return float(np.linalg.norm(self.matrix))

    @property
    def variance_explained(self) -> Array:
        """Fraction of the squared norm of dW in the first 1, 2, ... directions, (k,)."""
        return variance_explained(self.singular_values)

    def truncated(self, rank: int) -> Array:
        """Return the best approximation of dW of that rank, (post, pre)."""
        U, s, Vt = self.svd
        R = integer("rank", rank, minimum=0, maximum=len(s))
        return (U[:, :R] * s[:R]) @ Vt[:R]


def change(before: Network | Tensor | ArrayLike, after: Network | Tensor | ArrayLike) -> Change:
    """Return what was added to the (recurrent) weights.

    Parameters
    ----------
    before, after
        Two networks, whose recurrent weights are compared, or two matrices of one shape.

    Raises
    ------
    InputError
        If shapes differ, a matrix holds values that are not finite, or a network has several recurrent matrices.
    """
    W0, W = _matrix("before", before), _matrix("after", after)
    if W0.shape != W.shape:
        raise InputError(f"after must have the shape of before, {W0.shape}, got {W.shape}")
    return Change(W0, W)


def variance_explained(singular_values: ArrayLike) -> Array:
    """Return cumulative s^2 / sum s^2, (k,); all ones where there is no variance to explain."""
    s2 = np.square(np.asarray(singular_values, dtype=np.float64))
    total = s2.sum()
    return np.cumsum(s2) / total if total > 0 else np.ones_like(s2)


def truncation_losses(
    before: Network,
    after: Network,
    trials: Trials,
    ranks: Iterable[int] | None = None,
    rng: RngLike = None,
    loss: str | Loss = "squared",
    matrices: Iterable[str] | None = None,
) -> Array:
    """Return the loss of W0 + (dW truncated to rank R), with all other weights as trained, for each R.

    Parameters
    ----------
    before, after
        The network before and after learning, of any kind that can be trained.
    trials
        What to evaluate on; the paper takes a fresh batch of 512.
    ranks
        Ranks R to truncate at; by default the paper's 0 to 25, as far as the matrices have them.
    rng
        Source of the network's noise, the same for all ranks; not touched where it has none.
    loss
        As in `train`; that of the training.
    matrices
        As in `train`: what to truncate, all to the same rank where there are several; a matrix of a lower rank is then
        whole. By default the recurrent weights. Single gates: see `rankscope.functional_rank`.

    Returns
    -------
    (len(ranks),) losses.

    Raises
    ------
    InputError
        If a rank is negative or above N, or the networks do not fit together.
    """
    names = recurrent_names(after, matrices)
    changes = _changes(before, after, names)
    most = max(min(dW.matrix.shape) for dW in changes.values())
    wanted = list(range(min(PAPER_RANKS, most + 1)) if ranks is None else ranks)
    if isinstance(after, RateRNN) and names == RATE_RNN:
        dW = changes[RATE_RNN[0]]
        return _losses(after, [dW.before + dW.truncated(rank) for rank in wanted], trials, rng, loss)
    truncated = (
        {name: dW.before + dW.truncated(min(R, *dW.matrix.shape)) for name, dW in changes.items()}
        for R in (integer("rank", rank, minimum=0, maximum=most) for rank in wanted)
    )
    return losses_with(after, truncated, trials, rng, find_loss(loss))


def functional_rank(losses: ArrayLike, ranks: Sequence[int] | None = None, tolerance: float = 0.05) -> int | None:
    """Return the smallest rank whose truncation loss is below `tolerance` times that of rank 0, or None.

    Parameters
    ----------
    losses
        (R,) truncation losses; the first belongs to rank 0.
    ranks
        The ranks they belong to, the first of them 0; by default 0, 1, 2, ...

    Raises
    ------
    InputError
        If `losses` is empty or does not begin at rank 0.
    """
    curve = np.asarray(losses, dtype=np.float64)
    steps = range(curve.size) if ranks is None else list(ranks)
    if curve.ndim != 1 or curve.size == 0 or len(steps) != curve.size or steps[0] != 0:
        raise InputError(
            f"losses must be one loss a rank beginning at rank 0, got shape {curve.shape}, ranks {list(steps)}"
        )
    enough = np.flatnonzero(curve < number("tolerance", tolerance, above=0) * curve[0])
    return min((int(steps[i]) for i in enough), default=None)


def shuffled_loss(
    before: Network,
    after: Network,
    trials: Trials,
    rng: RngLike = None,
    loss: str | Loss = "squared",
    matrices: Iterable[str] | None = None,
) -> float:
    """Return the loss of (W0 with its entries randomly permuted) + dW, with all other weights as trained.

    Divided by the loss at epoch 0, this is the paper's measure of how much dW is tied to its own W0.

    Parameters
    ----------
    rng
        Seed or Generator for the permutation.
    loss
        As in `train`; that of the training.
    matrices
        As in `truncation_losses`: each is permuted by itself.
    """
    rng = generator(rng)
    names = recurrent_names(after, matrices)
    shuffled = {
        name: rng.permutation(dW.before.ravel()).reshape(dW.before.shape) + dW.matrix
        for name, dW in _changes(before, after, names).items()
    }
    if isinstance(after, RateRNN) and names == RATE_RNN:
        return float(_losses(after, [shuffled[RATE_RNN[0]]], trials, rng, loss)[0])
    return float(losses_with(after, [shuffled], trials, rng, find_loss(loss))[0])


def _changes(before: Network, after: Network, names: Iterable[str]) -> dict[str, Change]:
    if before is after:
        raise InputError("before must be the network before learning (network.snapshot()), got the one after learning")
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    absent = [name for name in names if name not in old]
    if absent:
        raise InputError(f"before must have the parameters of after, got a network without {absent[0]!r}")
    return {name: change(old[name], new[name]) for name in names}


def _losses(network: RateRNN, matrices: Sequence[Array], trials: Trials, rng: RngLike, loss: str | Loss) -> Array:
    judge = find_loss(loss)
    like = network.recurrent_weights
    recurrent = [torch.as_tensor(matrix).to(like) for matrix in matrices]
    inputs = network.checked(trials.inputs)
    kicks = network.draw_noise(inputs, rng)
    with threads_for(network.hidden_size):
        outputs = outputs_of_many(inputs, network.weights, recurrent, network.dynamics, kicks)
    targets, mask = trials.targets.to(like), trials.mask.to(like)
    return np.array([float(judge(z, targets, mask)) for z in outputs])


def _matrix(name: str, value: Network | Tensor | ArrayLike) -> Array:
    weights = value
    if isinstance(value, Network):
        names = recurrent_names(value)
        if len(names) > 1:
            raise InputError(
                f"{name} must be one matrix of a network that has {list(names)}, got all: say "
                f"{name}.get_parameter({names[0]!r})"
            )
        weights = dict(value.named_parameters())[names[0]]
    if isinstance(weights, Tensor):
        weights = weights.detach().cpu().double().numpy()
    try:
        matrix = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a network or a matrix of numbers, got {type(weights).__name__}") from error
    if matrix.ndim != 2:
        raise InputError(f"{name} must be a network or a matrix, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise InputError(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(matrix))} entries that are not")
    return matrix
