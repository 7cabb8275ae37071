"""The state of a model with LoRA layers inside, as a training saves it: base weights and factors side by side.

The scale alpha / r is an attribute of the layers and is not saved. So the change of an adapted weight is not known,
that of every other weight is. PEFT keeps the base's weight as `LAYER.base_layer.weight`, loralib as `LAYER.weight`
beside `LAYER.lora_A`.
"""

from __future__ import annotations

from torch import Tensor

from rankscope.checkpoints.adapters import names as named
from rankscope.checkpoints.source import Entry, Source

REASON = (
    "adapted by factors whose scale alpha / r is not in a state dict; save the adapter (save_pretrained) and give its "
    "folder, or merge it first (merge_and_unload)"
)
SEVERAL = "trained as a whole by several adapters (modules_to_save)"


def without_factors(source: Source) -> Source:
    """Return a checkpoint under the names of its base, if it is of a model with LoRA layers; else the same."""
    layers = {
        piece.layer.replace(".base_layer", "")
        for name in source.entries
        if (piece := named.peft_piece(name)) and not piece.piece.endswith(".bias")
    }
    return Unwrapped(source, layers) if layers else source


class Unwrapped(Source):
    """The base weights of a model with LoRA layers; those that are adapted cannot be read, with the reason."""

    def __init__(self, source: Source, layers: set[str]) -> None:
        self.label, self.folder, self.config = source.label, source.folder, source.config
        self._source = source
        self._stored: dict[str, str] = {}
        self.entries: dict[str, Entry] = {}
        for stored in source.entries:
            plain = stored.removeprefix(named.PREFIX)
            if named.peft_piece(stored) or named.IGNORED.search(plain) or named.UNKNOWN.fullmatch(plain):
                continue
            name = named.whole_name(stored)
            entry = source.entries[stored]
            if name.rpartition(".")[0] in layers and len(entry.shape) > 1:
                entry = Entry(entry.shape, REASON)
            if name in self.entries:
                # The trained module is listed beside the original one.
                if ".original_module." in stored:
                    continue
                if ".original_module." not in self._stored[name]:
                    entry = Entry(entry.shape, SEVERAL)
            self.entries[name], self._stored[name] = entry, stored

    def tensor(self, name: str) -> Tensor:
        """Return a weight of the base."""
        return self._source.tensor(self._stored[name])

    def release(self) -> None:
        """Close the file."""
        self._source.release()
