"""Files of `torch.save`: tensors as views into the memory map of the file. Nothing in the pickle is run.

The pickle is read by `pickles.py`, not by torch's `weights_only` reader, which refuses a file for any class beside the
tensors (the arguments of a training, say), and pickles of other protocols than 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankscope.checkpoints.formats.groups import Groups, entry_of_object
from rankscope.checkpoints.formats.torch_archive import read_saved
from rankscope.checkpoints.formats.torch_tensors import Stored, placed, view
from rankscope.checkpoints.formats.torchscript import script_state
from rankscope.checkpoints.source import Mapped
from rankscope.errors import InputError


class TorchFile(Mapped):
    """The weights in one file of `torch.save`, or of `torch.jit.save`.

    Parameters
    ----------
    key
        Name of the state dict, as in `Groups.weights`.
    """

    def __init__(self, path: Path, key: str | None = None) -> None:
        super().__init__(str(path))
        self.path = path
        saved = read_saved(path)
        self._spans, self._swapped = saved.spans, saved.swapped
        loaded = script_state(saved.root, saved.code, self.label) if saved.code is not None else saved.root
        try:
            found = Groups(loaded, self.label).weights(key)
        except InputError:
            raise
        except Exception as error:  # what a hostile pickle nests is not told by one kind of error
            raise InputError(f"{path} is not a readable file of torch.save: {error!s:.200}") from error
        self._stored: dict[str, Stored] = {}
        self.entries = {}
        for name, value in found.items():
            if isinstance(value, Stored):
                self._stored[name] = value
                self.entries[name] = placed(value, self._spans)
            else:
                self.entries[name] = entry_of_object(value)

    def _open(self) -> Tensor:
        size = self.path.stat().st_size
        return torch.from_file(str(self.path), shared=False, size=size, dtype=torch.uint8)

    def _view(self, opened: Any, name: str) -> Tensor:
        reason = self.entries[name].dtype
        if isinstance(reason, str):
            raise ValueError(reason)
        return view(opened, self._stored[name], self._spans, self._swapped)
