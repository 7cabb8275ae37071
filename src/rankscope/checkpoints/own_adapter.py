"""An adapter some of whose matrices are in a file of our own, as `low_rank_factors` writes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rankscope.checkpoints.adapters import Adapter
from rankscope.checkpoints.adapters.update import Factors, Update
from rankscope.checkpoints.factored import EXPERT, FORMAT, OWN_FILE
from rankscope.checkpoints.files import SafetensorsFile
from rankscope.checkpoints.source import Entry, Unreadable
from rankscope.errors import InputError
from rankscope.io.tensor_file import read_header

MOST_EXPERTS = 2**14
"""Matrices of a stack. The file has those that changed only, so its size does not limit their number."""


class OwnFactors(Update):
    """The factors of one weight in a file of our own, or of those matrices of a stack that changed."""

    def __init__(self, file: SafetensorsFile, name: str, shape: tuple[int, ...], experts: bool) -> None:
        prefix = f"{name}[expert " if experts else f"{name}."
        super().__init__(file, {stored: stored for stored in file.entries if stored.startswith(prefix)}, 1.0)
        self._name, self.shape = name, shape
        self.experts = shape[0] if experts else None

    def factors(self, W0: Tensor | None = None, expert: int | None = None) -> Factors:
        """Return B and A; of a matrix of a stack that is not in the file, a change of zero."""
        label = self._name if expert is None else f"{self._name}[expert {expert}]"
        if f"{label}.A" not in self.pieces:
            rows, columns = self.shape[1], math.prod(self.shape[2:])
            zeros = torch.zeros(rows, 1, dtype=torch.float64), torch.zeros(1, columns, dtype=torch.float64)
            return Factors(*zeros)
        return Factors(self.piece(f"{label}.B"), self.piece(f"{label}.A"))


class OwnAdapter(Adapter):
    """The factors in a file of our own, and those of the adapter of PEFT in the same folder, if there is one."""

    def __init__(self, folder: Path, adapter: Adapter | None) -> None:
        own = SafetensorsFile(folder / OWN_FILE)
        super().__init__(own, str(folder))
        self._adapter = adapter
        shapes = _shapes(folder / OWN_FILE)
        for label in [name.removesuffix(".A") for name in own.entries if name.endswith(".A")]:
            _check(label, own, shapes)
            expert = EXPERT.fullmatch(label)
            name = expert["name"] if expert else label
            if name not in self._updates:
                try:
                    self._add(name, OwnFactors(own, name, shapes[name], expert is not None))
                except Unreadable as error:
                    raise InputError(f"{own.label} must hold factors of {name!r}: {error}") from error
        self._mine = dict(self._updates)
        self._join()

    def resolve(self, base: Mapping[str, Entry]) -> None:
        """Resolve the names of the adapter of PEFT."""
        if self._adapter is not None:
            self._adapter.resolve(base)
            self._join()

    def release(self) -> None:
        """Close the files."""
        super().release()
        if self._adapter is not None:
            self._adapter.release()

    def _join(self) -> None:
        if self._adapter is not None:
            other = self._adapter
            self._updates = other._updates | self._mine
            self._file, self._copies = other._file, other._copies
            self.replaced, self.skipped = other.replaced, other.skipped


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights, from the metadata of the file."""
    metadata = read_header(path).metadata
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} must have the format {FORMAT!r}, got {metadata.get('format')!r:.100}")
    try:
        shapes = json.loads(metadata["shapes"])
        return {str(name): tuple(int(size) for size in shape) for name, shape in shapes.items()}
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path} must have the shapes of its weights, which are not readable: {error!s:.200}"
        ) from error


def _check(name: str, file: SafetensorsFile, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `InputError` if the two factors of a matrix are not there, or do not give its shape."""
    A, B = (file.entries.get(f"{name}.{side}", Entry((), "missing")) for side in "AB")
    expert = EXPERT.fullmatch(name)
    stored = shapes.get(expert["name"] if expert else name, ())
    shape = stored[1:] if expert else stored
    if expert and not (stored and int(expert["expert"]) < stored[0] <= MOST_EXPERTS):
        raise InputError(f"{file.label} must have at most {MOST_EXPERTS} experts in a stack, got {stored} for {name!r}")
    fits = len(A.shape) == len(B.shape) == 2 and A.shape[0] == B.shape[1] and len(shape) > 1
    if not fits or shape[0] != B.shape[0] or math.prod(shape[1:]) != A.shape[1] or A.dtype != B.dtype:
        raise InputError(f"{file.label} must hold two factors of {name!r}, got {B.shape} and {A.shape} for {stored}")
    if not isinstance(A.dtype, torch.dtype) or not A.dtype.is_floating_point:
        raise InputError(f"{file.label} must hold floating-point factors, got {A.dtype} for {name!r}")
