"""Quantized weights: multiplied by their scales if the format is known for certain, and otherwise left out.

    codes             scales, and others                    format
    X                 X_scale, X_scale_inv                  float8 (compressed-tensors, FBGEMM, DeepSeek, ModelOpt),
                                                            int8 (compressed-tensors)
    L.weight          L.scale_weight; L.scale               float8 of ComfyUI; of DeepSeek
    W._data           W._scale                              float8, int8 of quanto
    L.weight          L.SCB                                 int8 of bitsandbytes
    W                 W.absmax, .quant_map, .quant_state    NF4, FP4 of bitsandbytes
    L.qweight         L.qzeros, L.scales, L.g_idx           GPTQ, AWQ
    L.weight_packed   L.weight_scale, ...                   int4, int8, NVFP4, MXFP4 of compressed-tensors
    L.weight          L.weight_scale, L.weight_scale_2      NVFP4 of ModelOpt
    X_blocks          X_scales                              MXFP4 of gpt-oss

The formulas are in `dequantize`, the checks in `quantized_weights`. Neither codes nor scales are weights, so a group of
such tensors becomes one entry: the weight, or the reason why it is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankscope.checkpoints.dequantize import Decoded
from rankscope.checkpoints.kinds import ACTIVATIONS
from rankscope.checkpoints.model_config import model_config
from rankscope.checkpoints.quantized_formats import Group, groups_of, known
from rankscope.checkpoints.quantized_weights import Known, is_float8, type_name
from rankscope.checkpoints.source import Entry, Source, Unreadable

NO_SCALE = "float8 codes whose scale is not in the checkpoint"


def dequantized(source: Source) -> Source:
    """Return a checkpoint with weights in place of codes and scales; the same one if nothing in it is quantized."""
    config = model_config(source)
    groups = groups_of(source)
    scaled = bool(groups) or "quantization_config" in config or any("scaled_fp8" in name for name in source.entries)
    used = {name for group in groups for name in group.tensors.values()}
    beside = _scales(source)
    plain = {
        name: _without_scale(name, beside, scaled)
        for name, entry in source.entries.items()
        if name not in used and is_float8(entry.dtype) and len(entry.shape) > 1
    }
    return Dequantized(source, groups, plain) if groups or plain else source


def _scales(source: Source) -> dict[str, str]:
    """Return names of tensors that may be scales of weights, by the layer or the tensor that they belong to."""
    found: dict[str, str] = {}
    for name in source.entries:
        layer, _, last = name.rpartition(".")
        if "scale" in last and not ACTIVATIONS.fullmatch(last):
            found[layer] = name
    return found


def _without_scale(name: str, scales: dict[str, str], scaled: bool) -> str | None:
    """Return why float8 numbers without a scale are no weights; None if nothing in the checkpoint has a scale."""
    if scaled:
        return NO_SCALE
    other = scales.get(name) or scales.get(name.rpartition(".")[0])
    return None if other in (None, name) else f"float8 codes, and it is not known whether {other} is their scale"


class Dequantized(Source):
    """A checkpoint some of whose weights are codes and scales; `entries` has the weights instead.

    Parameters
    ----------
    source
        The checkpoint as stored.
    groups
        The tensors of each quantized weight.
    plain
        Tensors of float8 without a scale, and the reason why one is left out, or None.
    """

    def __init__(self, source: Source, groups: list[Group], plain: dict[str, str | None]) -> None:
        self.label, self.folder, self.config = source.label, source.folder, source.config
        self._source = source
        self._known: dict[str, Known] = {}
        self._last: tuple[str, Decoded] | None = None
        config = model_config(source)
        self._stored = {name: f"{type_name(source.entries[name].dtype)}, without a scale" for name in plain}
        weights: dict[str, tuple[str, Entry]] = {}  # by the name of the codes
        for group in groups:
            codes = group.tensors["codes"]
            found = known(group, source, config)
            if isinstance(found, str):
                weights[codes] = group.weight, Entry(source.entries[codes].shape, found)
            else:
                self._known[group.weight] = found
                self._stored[group.weight] = f"{found.stored}, dequantized"
                weights[codes] = group.weight, Entry(found.shape, torch.float32)
        used = {name for group in groups for name in group.tensors.values()} - weights.keys()
        entries = [weights.get(name, (name, entry)) for name, entry in source.entries.items() if name not in used]
        self.entries = {name: Entry(entry.shape, plain.get(name) or entry.dtype) for name, entry in entries}
        source.release()

    def tensor(self, name: str) -> Tensor:
        """Return a tensor; a dequantized one in single precision."""
        return self._decoded(name).weight() if name in self._known else self._source.tensor(name)

    def stored(self, name: str) -> str | None:
        """Return the type of the codes of a tensor, and whether it was dequantized; None for others."""
        return self._stored.get(name) or self._source.stored(name)

    def spacing(self, name: str) -> Tensor | None:
        """Return how far apart the numbers are that a quantized weight can have, at each entry; None for others."""
        return self._decoded(name).spacing() if name in self._known else self._source.spacing(name)

    def release(self) -> None:
        """Close the files of the source."""
        self._last = None
        self._source.release()

    def _decoded(self, name: str) -> Decoded:
        """Return a decoded weight; the last one is kept, as stacks of experts are read matrix by matrix."""
        if self._last is None or self._last[0] != name:
            self._last = None
            try:
                decoded = self._known[name].decode()
            except (RuntimeError, IndexError, ValueError) as error:
                raise Unreadable(f"its codes and scales do not fit together: {error}") from error
            self._last = (name, decoded)
        return self._last[1]
