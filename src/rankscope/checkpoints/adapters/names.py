"""Names of the tensors of adapters: which layer each belongs to, and which piece of its change it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

PREFIX = "base_model.model."
"""Of all names in a file of PEFT."""

PEFT = re.compile(
    r"(?P<layer>.+)\.(?P<piece>lora_(?:A|B|E|embedding_A|embedding_B|magnitude_vector|diag)|hada_[wt][12](?:_[ab])?"
    r"|lokr_[wt][12](?:_[ab])?)(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?:\.(?P<last>weight|bias))?"
)
IGNORED = re.compile(r"\.lora_(?:velora|monteclora)_")
"""Buffers of variants of LoRA that matter in training only."""

UNKNOWN = re.compile(
    r"(?P<layer>.+?)\.(?P<piece>(?:lora|hada|lokr|ia3|vera|boft|oft|glora|hira|delora|miss)_\w+|ranknum)(?:\..*)?"
)
WHOLE = re.compile(r"\.(?:modules_to_save(?:\.[^.]+)?|base_layer|original_module)(?=\.)")

FILES = re.compile(
    r"(?P<layer>.+?)\.(?:(?P<peft>lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
    r"|(?P<kohya>lora_(?:down|up|mid))\.weight"
    r"|(?P<linear>lora(?:_linear_layer)?\.(?:down|up))\.weight"
    r"|(?P<processor>processor\.to_(?:q|k|v|out)_lora|to_(?:q|k|v|out)_lora)\.(?P<side>down|up)\.weight"
    r"|(?P<lycoris>hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?)"
    r"|(?P<other>alpha|dora_scale|diff|diff_b|oft_blocks|oft_diag|on_input|w_norm|b_norm|[ab][12]\.weight))"
)
"""Names in files without a configuration: kohya's sd-scripts, LyCORIS, diffusers."""


class Piece(NamedTuple):
    """A tensor of a change: the layer, which piece of it, and the adapter that it is of, None if not named."""

    layer: str
    piece: str
    adapter: str | None = None


def peft_piece(stored: str) -> Piece | None:
    """Return what a tensor in a file of PEFT, or in the state of a model with adapters, is of; None of another."""
    found = PEFT.fullmatch(stored.removeprefix(PREFIX))
    if found is None:
        return None
    piece = found["piece"] + (".bias" if found["last"] == "bias" else "")
    return Piece(found["layer"], piece, found["adapter"])


def file_piece(stored: str) -> Piece | None:
    """Return what a tensor in a file without a configuration is of; None of another."""
    found = FILES.fullmatch(stored)
    if found is None:
        return None
    layer = found["layer"]
    if found["peft"]:
        return Piece(layer, found["peft"])
    if found["kohya"]:
        return Piece(layer, {"lora_down": "lora_A", "lora_up": "lora_B", "lora_mid": "lora_mid"}[found["kohya"]])
    if found["linear"]:
        return Piece(layer, "lora_A" if found["linear"].endswith("down") else "lora_B")
    if found["processor"]:
        which = found["processor"].removeprefix("processor.to_").removeprefix("to_").removesuffix("_lora")
        in_unet = "to_out.0" if which == "out" else f"to_{which}"
        target = f"{which}_proj" if layer.endswith("self_attn") else in_unet
        return Piece(f"{layer}.{target}", "lora_A" if found["side"] == "down" else "lora_B")
    return Piece(layer, found["lycoris"] or found["other"])


def whole_name(stored: str) -> str:
    """Return the name in the base of a weight that the file of an adapter has as a whole."""
    return WHOLE.sub("", stored.removeprefix(PREFIX))


def adapters_in(pieces: Iterable[Piece]) -> list[str]:
    """Return the names of the adapters, in the order of the file."""
    return list(dict.fromkeys(piece.adapter for piece in pieces if piece.adapter is not None))
