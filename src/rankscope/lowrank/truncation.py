"""Truncation curve: the score of a network over the rank that its change, or its weights, are truncated to.

    W(R) = W0 + dW_R    or    W(R) = W_R,

where the index R denotes the best approximation of rank R. All other weights are as trained (Schuessler et al. 2020,
Fig. 1). Each matrix is decomposed once, and going from one rank to a higher one adds the directions between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.change import Change
from rankscope.lowrank.curve import Criterion, TruncationCurve, functional_rank
from rankscope.lowrank.matrices import blocks_of, changes_of
from rankscope.lowrank.replacement import Matrices, Replacement, metric_of_replacements
from rankscope.networks.protocol import Network, hidden_size_of
from rankscope.networks.use import issue
from rankscope.tasks.trials import Trials
from rankscope.training.loss import Loss, accuracy, find_loss
from rankscope.validation import RngLike, choice, integer

Array = NDArray[np.float64]
Score = Callable[[nn.Module], float]
Truncate = Literal["change", "weights"]

RANKS = range(26)
"""Default ranks: those of the paper, as far as the matrices have them."""


@overload
def truncation_curve(
    before: Network,
    after: Network,
    trials: Trials | None = None,
    *,
    ranks: Iterable[int] | None = None,
    score: str | Score = "loss",
    higher_is_better: bool = False,
    rng: RngLike = None,
    loss: str | Loss | None = None,
    matrices: Iterable[str] | None = None,
    truncate: Truncate = "change",
    jointly: Literal[True] = True,
) -> TruncationCurve: ...
@overload
def truncation_curve(
    before: Network,
    after: Network,
    trials: Trials | None = None,
    *,
    ranks: Iterable[int] | None = None,
    score: str | Score = "loss",
    higher_is_better: bool = False,
    rng: RngLike = None,
    loss: str | Loss | None = None,
    matrices: Iterable[str] | None = None,
    truncate: Truncate = "change",
    jointly: Literal[False],
) -> dict[str, TruncationCurve]: ...


def truncation_curve(
    before: Network,
    after: Network,
    trials: Trials | None = None,
    *,
    ranks: Iterable[int] | None = None,
    score: str | Score = "loss",
    higher_is_better: bool = False,
    rng: RngLike = None,
    loss: str | Loss | None = None,
    matrices: Iterable[str] | None = None,
    truncate: Truncate = "change",
    jointly: bool = True,
) -> TruncationCurve | dict[str, TruncationCurve]:
    """Return the score of a network over the rank that its change is truncated to.

    Parameters
    ----------
    before, after
        The network before and after learning, of any kind. Neither is changed.
    trials
        Trials to evaluate on; needed unless `score` is a function. The paper uses a fresh batch of 512.
    ranks
        Ranks to truncate to; by default 0 to 25, as far as the matrices have them. A matrix of a lower rank is whole.
    score
        "loss", "accuracy", or a function of a network that returns a number. A function is called with a copy of
        `after` in evaluation mode, without gradients; it should return the same number for the same weights.
    higher_is_better
        Whether a higher value of a `score` function is better.
    rng
        Source of the network's noise, the same for all ranks.
    loss
        Loss as in `train`, for `score="loss"`; by default "squared". Use that of the training.
    matrices
        Names, patterns, and gates in brackets, as in `rankscope.lowrank.changes`; by default the recurrent weights.
    truncate
        "change" truncates dW and adds it to W0; "weights" truncates the trained W itself.
    jointly
        Truncate all matrices together, to the same rank. Otherwise return one curve for each matrix, with all others
        as trained.

    Raises
    ------
    InputError
        If a rank does not exist, the networks do not fit together, or `score` returns no number.
    """
    truncated = _Truncation(before, after, matrices, truncate, jointly)
    evaluate = _evaluation(truncated, trials, score, rng, loss)
    wanted = truncated.checked(ranks)
    curves = {}
    for names in truncated.groups:
        *scores, full = evaluate(truncated.sets(names, [*wanted, None]))
        curves[names[0]] = TruncationCurve(wanted, np.array(scores), full, _better(score, higher_is_better), names)
    return next(iter(curves.values())) if jointly else curves


class FoundRank(NamedTuple):
    """A functional rank, and the truncation curve at the ranks that were evaluated."""

    rank: int | None
    curve: TruncationCurve


def find_functional_rank(
    before: Network,
    after: Network,
    trials: Trials | None = None,
    *,
    criterion: Criterion = "recovered",
    tolerance: float | None = None,
    ranks: Iterable[int] | None = None,
    score: str | Score = "loss",
    higher_is_better: bool = False,
    rng: RngLike = None,
    loss: str | Loss | None = None,
    matrices: Iterable[str] | None = None,
    truncate: Truncate = "change",
) -> FoundRank:
    """Return the functional rank by bisection, for scores that are expensive to evaluate.

    Some log2 of the number of ranks are evaluated. This supposes that scores improve with the rank.

    Parameters
    ----------
    criterion, tolerance
        As in `functional_rank`.
    ranks
        Ranks to choose from; by default all up to the largest rank that a change has above rounding.
    before, after, trials, score, higher_is_better, rng, loss, matrices, truncate
        As in `truncation_curve`.

    Raises
    ------
    InputError
        As in `truncation_curve`; or if the score of rank 0 or with nothing truncated is not finite.
    """
    truncated = _Truncation(before, after, matrices, truncate, jointly=True)
    evaluate = _evaluation(truncated, trials, score, rng, loss)
    names = truncated.names
    if ranks is None:
        ranks = range(max(change.numerical_rank for change in truncated.changes.values()) + 1)
    candidates = truncated.checked(ranks)
    start, full = evaluate(truncated.sets(names, [0, None]))
    for when, value in (("at rank 0", start), ("with nothing truncated", full)):
        if not np.isfinite(value):
            raise InputError(f"score must be finite {when}, got {value!r}")
    found = {0: start}

    def curve(among: Iterable[int]) -> TruncationCurve:
        evaluated = sorted(among)
        values = np.array([found[rank] for rank in evaluated])
        return TruncationCurve(evaluated, values, full, _better(score, higher_is_better), names)

    def enough(rank: int) -> bool:
        if rank not in found:
            (found[rank],) = evaluate(truncated.sets(names, [rank]))
        return functional_rank(curve({0, rank}), criterion, tolerance) in (0, rank)

    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(candidates[middle]) else (middle + 1, high)
    return FoundRank(candidates[low] if low < len(candidates) else None, curve(found))


class _Truncation:
    """The changes of chosen matrices, and their truncations to given ranks."""

    def __init__(
        self, before: Network, after: Network, matrices: Iterable[str] | None, truncate: Truncate, jointly: bool
    ) -> None:
        choice("truncate", truncate, ("change", "weights"))
        self.after = after
        self.blocks = blocks_of(after, matrices)
        whole = {block.matrix for block in self.blocks if block.gate is None}
        twice = [block.name for block in self.blocks if block.gate is not None and block.matrix in whole]
        if twice and jointly:
            raise InputError(
                f"matrices must not name {twice[0]!r} together with its whole matrix, unless jointly=False"
            )
        self.names = tuple(block.name for block in self.blocks)
        self.groups = [self.names] if jointly else [(name,) for name in self.names]
        self.changes = changes_of(before, after, self.blocks)
        if truncate == "weights":
            weights = {name: torch.from_numpy(change.after) for name, change in self.changes.items()}
            self.changes = {name: Change(torch.zeros_like(W), W) for name, W in weights.items()}

    def checked(self, ranks: Iterable[int] | None) -> list[int]:
        """Return increasing ranks that exist."""
        largest = max(min(change.shape) for change in self.changes.values())
        if ranks is None:
            return [rank for rank in RANKS if rank <= largest]
        wanted = sorted({integer("rank", rank, minimum=0, maximum=largest) for rank in ranks})
        if not wanted:
            raise InputError("ranks must have at least one rank, got none")
        return wanted

    def sets(self, names: Sequence[str], ranks: Iterable[int | None]) -> Iterator[Matrices]:
        """Yield the matrices at increasing ranks, changed in place from one to the next; none for None."""
        matrices = {name: self.changes[name].before.copy() for name in names}
        reached = 0
        for rank in ranks:
            if rank is None:
                yield {}
                continue
            for name, matrix in matrices.items():
                if rank > reached:
                    matrix += self.changes[name].directions(reached, rank)
            reached = rank
            yield matrices


def _evaluation(
    truncated: _Truncation, trials: Trials | None, score: str | Score, rng: RngLike, loss: str | Loss | None
) -> Callable[[Iterable[Matrices]], list[float]]:
    """Return a function from sets of matrices to scores."""
    if not callable(score):
        choice("score", score, ("loss", "accuracy"))
        if trials is None:
            raise InputError(f"trials must be given for score={score!r}, got None; task.sample(512, rng) draws them")
        metric = accuracy if score == "accuracy" else find_loss(loss)
        return metric_of_replacements(truncated.after, truncated.blocks, trials, rng, metric)
    replacement = Replacement(truncated.after, truncated.blocks)

    @torch.no_grad()
    def evaluate(sets: Iterable[Matrices]) -> list[float]:
        with threads_for(hidden_size_of(truncated.after)):
            values: list[float] = []
            names: set[str] = set()
            for matrices in sets:
                values.append(_number(score(replacement.network(matrices))))
                names |= matrices.keys()
            _check_used(replacement, score, values, names)
        return values

    return evaluate


def _check_used(replacement: Replacement, score: Score, values: Sequence[float], names: Iterable[str]) -> None:
    """Check that a score depends on the matrices that are truncated.

    Warns
    -----
    UserWarning
        If all scores are equal, and remain so with NaN in place of a matrix, which does not show in any outputs either.

    Raises
    ------
    InputError
        If the score does not read a matrix that the network computes.
    """
    for name in sorted(replacement.computed - replacement.used):
        raise InputError(
            f"score must use the matrix {name!r} of the network that it is given, got a function that does not read "
            "it; run the network as in rs.evaluate(network, trials), or name what its forward pass uses"
        )
    if len(values) < 2 or len(set(values)) > 1:
        return
    outputs: list[Any] = []

    def keep(module: nn.Module, given: Any, returned: Any) -> None:
        outputs.append(returned)

    for name in sorted(names):
        outputs.clear()
        network = replacement.network({name: float("nan")})  # type: ignore[dict-item]
        handle = network.register_forward_hook(keep)
        try:
            unchanged = float(score(network)) == values[0]
        except Exception:  # whatever a score does with NaN, it read the matrix
            continue
        finally:
            handle.remove()
        # Where all outputs are NaN, a score such as an accuracy can be what it was.
        if unchanged and not any(_has_nan(returned) for returned in outputs):
            issue(
                f"score is {values[0]:g} at every rank, and with NaN in place of {name!r}: it does not seem to depend "
                "on this matrix"
            )


def _has_nan(returned: Any) -> bool:
    entries = returned if isinstance(returned, (tuple, list)) else [returned]
    return any(isinstance(entry, torch.Tensor) and bool(entry.isnan().any()) for entry in entries)


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(f"score must return a number, got {type(value).__name__}") from error


def _better(score: str | Score, higher_is_better: bool) -> bool:
    return higher_is_better if callable(score) else score == "accuracy"
