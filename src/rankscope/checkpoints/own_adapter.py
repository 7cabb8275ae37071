"""An adapter some of whose matrices are in a file of our own, as `low_rank_factors` writes it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from rankscope.checkpoints.adapter import Adapter, Factors
from rankscope.checkpoints.factored import EXPERT, FORMAT, OWN_FILE
from rankscope.checkpoints.files import SafetensorsFile
from rankscope.checkpoints.source import Entry
from rankscope.errors import InputError
from rankscope.io.tensor_file import read_header


class OwnAdapter(Adapter):
    """The factors in a file of our own, and those of the adapter of PEFT in the same folder, if there is one."""

    def __init__(self, folder: Path, adapter: Adapter | None) -> None:
        self.label = str(folder)
        self._adapter = adapter
        self._own = SafetensorsFile(folder / OWN_FILE)
        self.replaced = {} if adapter is None else adapter.replaced
        self.skipped = {} if adapter is None else adapter.skipped
        shapes = _shapes(folder / OWN_FILE)
        self._mine = {
            name.removesuffix(".A"): _entry(name.removesuffix(".A"), self._own, shapes)
            for name in self._own.entries
            if name.endswith(".A")
        }
        self.entries = ({} if adapter is None else adapter.entries) | self._mine

    def factors(self, name: str) -> Factors:
        """Return the two factors of the change of `name`, in double precision."""
        if name not in self._mine:
            assert self._adapter is not None
            return self._adapter.factors(name)
        B, A = (self._own.tensor(f"{name}.{side}").double() for side in "BA")
        self._own.release()
        return Factors(B, A)

    def dtype(self, name: str) -> torch.dtype:
        """Return the type that the factors of `name` are stored in."""
        if name not in self._mine:
            assert self._adapter is not None
            return self._adapter.dtype(name)
        kind = self._mine[name].dtype
        assert isinstance(kind, torch.dtype)
        return kind

    def tensor(self, name: str) -> Tensor:
        """Return a weight that is stored whole."""
        assert self._adapter is not None
        return self._adapter.tensor(name)

    def release(self) -> None:
        """Close the files."""
        self._own.release()
        if self._adapter is not None:
            self._adapter.release()


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights, from the metadata of the file."""
    metadata = read_header(path).metadata
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} must have the format {FORMAT!r}, got {metadata.get('format')!r:.100}")
    try:
        shapes = json.loads(metadata["shapes"])
        return {str(name): tuple(int(size) for size in shape) for name, shape in shapes.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} must have the shapes of its weights, which are not readable: {error!s:.200}"
        ) from error


def _entry(name: str, file: SafetensorsFile, shapes: dict[str, tuple[int, ...]]) -> Entry:
    """Return the entry of a matrix whose factors fit together, or raise `InputError`."""
    A, B = (file.entries.get(f"{name}.{side}", Entry((), "missing")) for side in "AB")
    expert = EXPERT.fullmatch(name)
    stored = shapes.get(expert["name"] if expert else name, ())
    shape = stored[1:] if expert else stored
    fits = len(A.shape) == len(B.shape) == 2 and A.shape[0] == B.shape[1] and len(shape) > 1
    if not fits or shape[0] != B.shape[0] or math.prod(shape[1:]) != A.shape[1] or A.dtype != B.dtype:
        raise InputError(f"{file.label} must hold two factors of {name!r}, got {B.shape} and {A.shape} for {stored}")
    if not isinstance(A.dtype, torch.dtype) or not A.dtype.is_floating_point:
        raise InputError(f"{file.label} must hold floating-point factors, got {A.dtype} for {name!r}")
    return Entry(shape, A.dtype)
