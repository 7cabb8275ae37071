"""Weights that torch stores in pieces: assembled if the formula is known, and otherwise left out with the reason.

    weight_norm      W = g V / |V|
                     from parametrizations.weight.original0 and .original1, or weight_g and weight_v
    spectral_norm    W = V / (u^T V v)
                     from parametrizations.weight.original, .0._u and .0._v, or weight_orig, weight_u and weight_v

The pieces themselves are not weights: scaling V of weight_norm changes nothing. A file holds no functions, so a weight
with a further parametrization that has no tensors of its own cannot be told from one without.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from rankscope.checkpoints.quantized import dequantized
from rankscope.checkpoints.source import Entry, Source, Unreadable, in_order

PARAMETRIZED = re.compile(r"(?P<layer>(?:.*\.)?)parametrizations\.(?P<weight>[^.]+)\.(?P<piece>.+)")
OLD = re.compile(r"(?P<layer>(?:.*\.)?)(?P<weight>[^.]+)_(?P<piece>g|v|orig|u)")
REASON = "stored as a parametrization that is not known; compare the modules, whose weights are effective"

Assemble = Callable[[dict[str, Tensor]], Tensor]


def effective(source: Source) -> Source:
    """Return a checkpoint with weights in place of codes and scales, and of pieces."""
    return assembled(dequantized(source))


def assembled(source: Source) -> Source:
    """Return a checkpoint with the effective weights in place of their pieces."""
    groups = _groups(source)
    return Assembled(source, groups) if groups else source


class Assembled(Source):
    """A checkpoint some of whose weights are stored in pieces; `groups` maps each to the names of its pieces."""

    def __init__(self, source: Source, groups: dict[str, dict[str, str]]) -> None:
        self.label, self.folder, self.config = source.label, source.folder, source.config
        self._source = source
        self._pieces: dict[str, tuple[dict[str, str], Assemble]] = {}
        entries = dict(source.entries)
        for weight, pieces in groups.items():
            if weight in entries:  # a file of `save_networks` holds the effective weight too
                entries = {name: entry for name, entry in entries.items() if name not in pieces.values()}
                continue
            name, found = _known(source, pieces)
            if found is None:
                entry = Entry(source.entries[name].shape, REASON)
            else:
                entry = source.entries[name]
                self._pieces[weight] = (pieces, found)
            for piece in pieces.values():
                entries.pop(piece)
            entries[weight] = entry
        self.entries = {name: entries[name] for name in in_order(entries)}

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, assembled in double precision if it is stored in pieces, in the type of its pieces."""
        if name not in self._pieces:
            return self._source.tensor(name)
        pieces, assemble = self._pieces[name]
        try:
            weight = assemble({piece: self._source.tensor(stored).double() for piece, stored in pieces.items()})
        except RuntimeError as error:
            raise Unreadable(f"its pieces do not fit together: {error}") from error
        kind = self.entries[name].dtype
        assert isinstance(kind, torch.dtype)
        return weight.to(kind)

    def stored(self, name: str) -> str | None:
        """Return how a tensor that is not in pieces is stored."""
        return None if name in self._pieces else self._source.stored(name)

    def spacing(self, name: str) -> Tensor | None:
        """Return the spacing of a tensor that is not stored in pieces."""
        return None if name in self._pieces else self._source.spacing(name)

    def release(self) -> None:
        """Close the files of the source."""
        self._source.release()


def _groups(source: Source) -> dict[str, dict[str, str]]:
    """Return, for each weight in pieces, the names of its pieces."""
    groups: dict[str, dict[str, str]] = {}
    old: dict[str, dict[str, str]] = {}
    for name in source.entries:
        if found := PARAMETRIZED.fullmatch(name):
            groups.setdefault(f"{found['layer']}{found['weight']}", {})[found["piece"]] = name
        elif found := OLD.fullmatch(name):
            old.setdefault(f"{found['layer']}{found['weight']}", {})[found["piece"]] = name
    for weight, pieces in old.items():
        # Other weights may have names that end alike; those of the two functions have a partner and no whole weight.
        if weight not in source.entries and (pieces.keys() == {"g", "v"} or {"orig", "u"} <= pieces.keys()):
            groups[weight] = pieces
    return groups


def _known(source: Source, pieces: dict[str, str]) -> tuple[str, Assemble | None]:
    """Return the name of the piece with the shape of the weight, and the function that assembles the weight."""
    largest = max(pieces.values(), key=lambda name: math.prod(source.entries[name].shape))
    readable = all(
        isinstance(kind := source.entries[name].dtype, torch.dtype) and kind.is_floating_point
        for name in pieces.values()
    )
    for g, v in (("original0", "original1"), ("g", "v")):
        if readable and pieces.keys() == {g, v} and _is_norm(*(source.entries[pieces[name]].shape for name in (g, v))):
            return pieces[v], partial(_weight_norm, names=(g, v))
    for V, u, v in (("original", "0._u", "0._v"), ("orig", "u", "v")):
        if readable and pieces.keys() == {V, u, v}:
            shape = source.entries[pieces[V]].shape
            dim = _spectral_dim(shape, source.entries[pieces[u]].shape, source.entries[pieces[v]].shape)
            if dim is not None:
                return pieces[V], partial(_spectral_norm, names=(V, u, v), dim=dim)
    return largest, None


def _is_norm(g: tuple[int, ...], v: tuple[int, ...]) -> bool:
    """Return whether g has the shape of a norm of v: over all dimensions, or over all but one."""
    if math.prod(g) == 1:
        return True
    return len(g) == len(v) and sum(n > 1 for n in g) == 1 and all(a in (1, b) for a, b in zip(g, v, strict=True))


def _weight_norm(tensors: dict[str, Tensor], names: tuple[str, str]) -> Tensor:
    g, V = (tensors[name] for name in names)
    if g.ndim != V.ndim:
        return torch.div(g * V, torch.linalg.vector_norm(V))
    summed = [dim for dim, size in enumerate(g.shape) if size == 1 or g.numel() == 1]
    return torch.div(g * V, torch.linalg.vector_norm(V, dim=summed, keepdim=True))


def _spectral_dim(shape: tuple[int, ...], u: tuple[int, ...], v: tuple[int, ...]) -> int | None:
    """Return the dimension that torch takes for the rows, from the size of u; None if there are two, or none."""
    fitting = [
        dim
        for dim in range(min(len(shape), 2))
        if u == (shape[dim],) and v == (math.prod(shape) // max(1, shape[dim]),)
    ]
    if len(shape) == 2 and 0 in fitting:
        return 0  # Of a linear layer; only transposed convolutions, which have more dimensions, take the other.
    return fitting[0] if len(fitting) == 1 else None


def _spectral_norm(tensors: dict[str, Tensor], names: tuple[str, str, str], dim: int) -> Tensor:
    V, u, v = (tensors[name] for name in names)
    rows = V.movedim(dim, 0).flatten(1)
    return V / torch.dot(u, rows @ v)
