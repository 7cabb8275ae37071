"""Formats of quantized weights: the names of the tensors that belong to one weight."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints import quantized_weights
from rankscope.checkpoints.model_config import Config
from rankscope.checkpoints.quantized_weights import Known, Reader, is_float8
from rankscope.checkpoints.source import Entry, Source, Unreadable


class Format(NamedTuple):
    """Names of the tensors of a quantized weight.

    `codes`, the end of the name of the codes, is replaced with `weight`; `others` maps roles to the ends that their
    names have instead. One of those in `needed` must be there. `read` is None for a format that is not decoded.
    """

    name: str
    codes: str
    weight: str
    others: dict[str, str]
    needed: tuple[str, ...]
    read: Reader | None = None


class Group(NamedTuple):
    """The tensors of one weight, by role; the codes are "codes"."""

    weight: str
    format: Format
    tensors: dict[str, str]


def _ends(end: str, *roles: str) -> dict[str, str]:
    return {role: end + role for role in roles}


BITSANDBYTES = Format(
    "4-bit bitsandbytes",
    "",
    "",
    {
        "absmax": ".absmax",
        "table": ".quant_map",
        "nested absmax": ".nested_absmax",
        "nested table": ".nested_quant_map",
        "nf4": ".quant_state.bitsandbytes__nf4",
        "fp4": ".quant_state.bitsandbytes__fp4",
    },
    ("absmax",),
    quantized_weights.nf4,
)
HQQ = (
    *("scale", "zero", "nbits", "group_size", "shape", "axis", "packing", "channel_wise", "optimize", "meta"),
    *("view_as_float", "unpack_view_dtype", "compute_dtype", "quant_scale", "quant_zero", "round_zero"),
    *("offload_meta", "stores_quant_config", "encoded_state_dict"),
)
FORMATS = (
    BITSANDBYTES,
    Format(
        "8-bit bitsandbytes",
        ".weight",
        ".weight",
        {"scale": ".SCB", "layout": ".weight_format"},
        ("scale",),
        quantized_weights.int8,
    ),
    Format(
        "GPTQ or AWQ",
        ".qweight",
        ".weight",
        {"zeros": ".qzeros", "scale": ".scales", "groups": ".g_idx"},
        ("scale",),
        quantized_weights.gptq_or_awq,
    ),
    Format(
        "compressed-tensors",
        ".weight_packed",
        ".weight",
        {
            "scale": ".weight_scale",
            "zeros": ".weight_zero_point",
            "shape": ".weight_shape",
            "global": ".weight_global_scale",
            "order": ".weight_g_idx",
        },
        ("scale",),
        quantized_weights.packed,
    ),
    Format("MXFP4", "_blocks", "", {"scale": "_scales"}, ("scale",), quantized_weights.mxfp4_transposed),
    Format("MXFP4", ".blocks", "", {"scale": ".scales"}, ("scale",), quantized_weights.mxfp4),
    Format("4-bit quanto", "._data._data", "", {"scale": "._scale", "shift": "._shift"}, ("scale",)),
    Format("quanto", "._data", "", {"scale": "._scale"}, ("scale",), quantized_weights.scaled),
    Format(
        "torchao",
        "._weight_qdata",
        ".weight",
        _ends("._weight_", "scale", "zero_point", "scale_and_zero"),
        ("scale", "scale_and_zero"),
    ),
    Format("HQQ", ".W_q", ".weight", _ends(".", *HQQ), ("scale", "zero", "meta")),
    Format("AQLM", ".codes", ".weight", _ends(".", "codebooks", "scales"), ("codebooks",)),
    Format(
        "VPTQ",
        ".indices",
        ".weight",
        _ends(".", "centroids.weight", "res_centroids.weight", "perm", "weight_scale", "weight_bias"),
        ("centroids.weight",),
    ),
    Format("EETQ", ".weight", ".weight", {"scale": ".weight_scales"}, ("scale",)),
    Format(
        "float8 or int8 with scales",
        "",
        "",
        {"scale": "_scale", "inverse": "_scale_inv", "zeros": "_zero_point", "second": "_scale_2"},
        ("scale", "inverse"),
        quantized_weights.scaled,
    ),
    Format(
        "float8 or int8 with scales",
        ".weight",
        ".weight",
        {"comfy": ".scale_weight", "deepseek": ".scale"},
        ("comfy", "deepseek"),
        quantized_weights.scaled,
    ),
)
"""The first that fits is taken."""


def groups_of(source: Source) -> list[Group]:
    """Return the tensors of each weight that is stored as codes and scales."""
    groups: list[Group] = []
    entries = source.entries
    for name, entry in entries.items():
        for format in FORMATS:
            # Codes of NF4 are stored in any type, even as if they were numbers.
            if not f".{name}".endswith(format.codes) or not (format is BITSANDBYTES or _may_be_codes(entry)):
                continue
            stem = f".{name}".removesuffix(format.codes)  # a layer without a name has `weight`, not `.weight`
            ends = {role: f"{stem}{end}"[1:] for role, end in format.others.items()}
            others = {role: other for role, other in ends.items() if other in entries}
            weight = f"{stem}{format.weight}"[1:]
            if any(role in others for role in format.needed) and (weight == name or weight not in entries):
                groups.append(Group(weight, format, {"codes": name} | others))
                break
    return groups


def _may_be_codes(entry: Entry) -> bool:
    """Return whether a tensor may hold codes: whole numbers, float8, or numbers of a type that is not known."""
    if isinstance(entry.dtype, str) or is_float8(entry.dtype):
        return True
    return not entry.dtype.is_floating_point and not entry.dtype.is_complex and entry.dtype != torch.bool


def known(group: Group, source: Source, config: Config) -> Known | str:
    """Return how a weight is decoded, or the reason why it is not."""
    entries = {role: source.entries[name] for role, name in group.tensors.items()}
    unread = next((str(entry.dtype) for entry in entries.values() if isinstance(entry.dtype, str)), None)
    if unread is not None:
        return f"quantized, and a tensor of its group is {unread}"

    def read(role: str) -> Tensor:
        return source.tensor(group.tensors[role])

    try:
        found = None if group.format.read is None else group.format.read(entries, read, config)
    except (Unreadable, ValueError, TypeError, OverflowError, RuntimeError) as error:
        found = f"its description is damaged: {error}"
    if found is None or isinstance(found, str):
        why = f": {found}" if found else ""
        return (
            f"quantized ({group.format.name}{why}), and not decoded; load the model with its library, dequantize it, "
            "and pass its state dict"
        )
    return found
