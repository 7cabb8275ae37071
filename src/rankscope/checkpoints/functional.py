"""How many directions of what a model learned does its task need?

The change of each chosen layer is cut to its R leading directions, all else is left as learning made it, and the
user's own function says how good the model then is. The paper asks for the smallest R at which the loss falls below
5 % of that at R = 0, which supposes that learning ends near zero. A loss of a language model does not, and an
accuracy rises. Here R has to bring back all but 5 % of what the whole change brings:

    |score(R) - score(0)| >= (1 - tolerance) |score(all) - score(0)|, on the same side,

which is the paper's rule where the loss ends at zero. (paper section 3, "functional rank")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor, nn

from rankscope.checkpoints.adapter import Adapter
from rankscope.checkpoints.compare import open_pair
from rankscope.checkpoints.layers import Chosen, Layer, change_of, chosen, decomposed
from rankscope.checkpoints.matching import match
from rankscope.checkpoints.opening import CheckpointLike
from rankscope.checkpoints.source import Source, Unreadable
from rankscope.errors import InputError
from rankscope.validation import choice, integer, number

Evaluate = Callable[[nn.Module], float]


@dataclass(frozen=True)
class FunctionalRank:
    """How many directions suffice, and what was measured to tell.

    Attributes
    ----------
    rank
        The smallest one that suffices, or None if none of those tried does.
    scores
        What `evaluate` returned, by rank, smallest rank first.
    start, end
        The score without the change and with all of it.
    threshold
        The score that suffices.
    layers
        What was truncated, all at once.
    """

    rank: int | None
    scores: Mapping[int, float]
    start: float
    end: float
    threshold: float
    layers: tuple[str, ...]


@overload
def functional_rank(
    model: nn.Module,
    before: CheckpointLike,
    after: CheckpointLike,
    evaluate: Evaluate,
    layers: Iterable[str] | None = None,
    tolerance: float = 0.05,
    *,
    higher_is_better: bool = False,
    jointly: Literal[True] = True,
    method: str = "bisection",
    ranks: Iterable[int] | None = None,
) -> FunctionalRank: ...
@overload
def functional_rank(
    model: nn.Module,
    before: CheckpointLike,
    after: CheckpointLike,
    evaluate: Evaluate,
    layers: Iterable[str] | None = None,
    tolerance: float = 0.05,
    *,
    higher_is_better: bool = False,
    jointly: Literal[False],
    method: str = "bisection",
    ranks: Iterable[int] | None = None,
) -> dict[str, FunctionalRank]: ...


def functional_rank(
    model: nn.Module,
    before: CheckpointLike,
    after: CheckpointLike,
    evaluate: Evaluate,
    layers: Iterable[str] | None = None,
    tolerance: float = 0.05,
    *,
    higher_is_better: bool = False,
    jointly: bool = True,
    method: str = "bisection",
    ranks: Iterable[int] | None = None,
) -> FunctionalRank | dict[str, FunctionalRank]:
    """Return the smallest rank that the change can be truncated to while the model stays nearly as good.

    Parameters
    ----------
    model
        What the weights are put into. It gets its own weights and modes back in the end, whatever happens.
    before, after
        State dicts, modules (also `model` itself) or paths, as in `open_checkpoint`; `after` may be a LoRA adapter.
    evaluate
        Takes the model and returns a loss, or with `higher_is_better` an accuracy or the like; called without
        gradients. It should be the same for the same weights: fixed data, no dropout.
    layers
        Keys of weights, or patterns such as ``"*.q_proj.weight"``; by default every matrix that changed. A gate of
        recurrent weights is named in brackets, as in ``"rnn.weight_hh_l0[z]"`` (r, z, n of a GRU, i, f, g, o of an
        LSTM), ``"[*]"`` meaning each. All other weights are those after learning.
    tolerance
        Which part of the way from the score without the change to the one with it may be missing.
    jointly
        Truncate all layers at once to the same rank. Otherwise each by itself, beside the others' whole change.
    method
        "bisection" takes some log2 of the number of ranks evaluations and supposes that scores improve with the rank;
        "curve" evaluates every rank and supposes nothing.
    ranks
        Which to try; by default all up to the largest rank that a change has above rounding.

    Returns
    -------
    FunctionalRank
        For each layer by its name, if not jointly. The rank is 0 where the model is no worse without the change.

    Raises
    ------
    InputError
        If the weights do not fit the model, a layer is unknown, or `evaluate` returns something else than a number.
    """
    tolerance = number("tolerance", tolerance, above=0, below=1)
    choice("method", method, ("bisection", "curve"))
    tried = None if ranks is None else sorted({integer("ranks", rank, minimum=0) for rank in ranks})
    if tried == []:
        raise InputError("ranks must have at least one rank, got none")
    sign = 1.0 if higher_is_better else -1.0

    def search(judged: Sequence[Layer], fill: Callable[[Layer, int | None], None]) -> FunctionalRank:
        def score(rank: int | None) -> float:
            for layer in judged:
                fill(layer, rank)
            return _score(evaluate, model)

        start, end = score(0), score(None)
        for when, value in (("without the change", start), ("with the whole change", end)):
            if not math.isfinite(value):
                raise InputError(f"evaluate must return a finite number {when} of {_named(judged)}, got {value!r}")
        threshold = end - tolerance * (end - start)
        scores = {0: start}
        most = max(layer.numerical_rank for layer in judged)
        candidates = list(range(most + 1)) if tried is None else tried

        def suffices(rank: int) -> bool:
            if rank not in scores:
                scores[rank] = score(rank)
            return sign * scores[rank] >= sign * threshold

        if method == "curve":
            enough = [rank for rank in candidates if suffices(rank)]
            rank = enough[0] if enough else None
        else:
            rank = _bisected(candidates, suffices)
        return FunctionalRank(
            rank, dict(sorted(scores.items())), start, end, threshold, tuple(layer.name for layer in judged)
        )

    old, new = open_pair(before, after)
    assert old is not None
    names = chosen(old, new, layers, with_gates=True)
    if jointly:
        _check_apart(names)
    changed = list(decomposed(old, new, names))
    if not changed:
        raise InputError("layers must have at least one matrix that changed, got none")
    with _trained(model, old, new) as tensors:
        initial, trained = _weights_of(changed, old, tensors)

        def fill(layer: Layer, rank: int | None) -> None:
            W0 = initial[layer.name]
            whole = trained[layer.name]
            W = whole if rank is None else W0.to(layer.s) + layer.truncated(rank)
            with torch.no_grad():
                tensors[layer.tensor][layer.rows].copy_(W)

        if jointly:
            return search(changed, fill)
        found = {}
        for layer in changed:
            found[layer.name] = search([layer], fill)
            fill(layer, None)
        return found


def _check_apart(names: Sequence[Chosen]) -> None:
    whole = {one.before for one in names if one.gate is None}
    twice = [one.name for one in names if one.gate is not None and one.before in whole]
    if twice:
        raise InputError(
            f"layers must not name {twice[0]!r} beside the whole matrix; say jointly=False for each by itself"
        )


def _bisected(candidates: Sequence[int], suffices: Callable[[int], bool]) -> int | None:
    """Return the first of `candidates` that suffices, if from one on all do."""
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if suffices(candidates[middle]):
            high = middle
        else:
            low = middle + 1
    return candidates[low] if low < len(candidates) else None


@contextmanager
def _trained(model: nn.Module, old: Source, new: Source) -> Iterator[dict[str, Tensor]]:
    """Put the weights after learning into `model` for the time of a `with` block; yield its tensors by old's names."""
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    partner = {theirs: mine for mine, theirs in match(own, old.entries) if mine is not None and theirs is not None}
    if not partner:
        raise InputError("model must have the weights that before has, got none of their names in it")
    values = {}
    pairs = match(old.entries, new.entries)
    for before, after in pairs:
        if before not in partner:
            continue
        value = _learned(old, new, before, after)
        if value is None:
            continue
        if value.shape != own[partner[before]].shape:
            raise InputError(
                f"model must have the shapes of after, got {tuple(own[partner[before]].shape)} for {before!r}, "
                f"which is {tuple(value.shape)} there"
            )
        values[before] = value
    kept = {name: tensor.detach().clone() for name, tensor in own.items()}
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            for name, value in values.items():
                own[partner[name]].copy_(value)
        yield {name: own[mine] for name, mine in partner.items()}
    finally:
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(kept[name])
        for module, mode in modes:
            module.training = mode


def _learned(old: Source, new: Source, before: str, after: str | None) -> Tensor | None:
    """Return a copy of a tensor as it is after learning; None where neither has it readable."""
    try:
        if not isinstance(new, Adapter):
            return None if after is None else new.rows(after).clone()
        if after is None:
            return old.rows(before).clone()
        if after in new.replaced:
            return new.rows(after).clone()
        W0 = old.rows(before)
        return (W0.double() + change_of(old, new, before, after).matrix.reshape(W0.shape)).to(W0.dtype)
    except Unreadable as error:
        raise InputError(f"{before!r} {error}") from error


def _weights_of(
    changed: Sequence[Layer], old: Source, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return copies of the weights of these layers before learning, and after it."""
    absent = [layer.name for layer in changed if layer.tensor not in tensors]
    if absent:
        raise InputError(f"layers must be weights of model, got {absent[0]!r}, which is not in it")
    initial = {layer.name: old.rows(layer.tensor)[layer.rows].clone() for layer in changed}
    return initial, {layer.name: tensors[layer.tensor][layer.rows].detach().clone() for layer in changed}


def _score(evaluate: Evaluate, model: nn.Module) -> float:
    with torch.no_grad():
        value = evaluate(model)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"evaluate must return a number, got {type(value).__name__}") from error


def _named(layers: Sequence[Layer]) -> str:
    return repr(layers[0].name) if len(layers) == 1 else f"{len(layers)} layers"
