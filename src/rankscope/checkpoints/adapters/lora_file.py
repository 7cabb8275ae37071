"""Files of factors without `adapter_config.json`: those of kohya's sd-scripts, LyCORIS and diffusers.

kohya writes the name of a layer with underscores in place of dots (`lora_unet_down_blocks_0_...`), and alpha beside the
factors. diffusers writes the names of the layers behind that of the model (`unet.`, `transformer.`), and the
configuration into the metadata of the file. The scale is alpha / r; where a file has no alpha, the loaders of these
libraries take alpha = r.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from rankscope.checkpoints.adapters import names as named
from rankscope.checkpoints.adapters.adapter import Adapter
from rankscope.checkpoints.adapters.config import CONFIG, PeftConfig
from rankscope.checkpoints.adapters.lora import LowRank
from rankscope.checkpoints.adapters.lycoris import Difference, LoHa, LoKr, lycoris_rank
from rankscope.checkpoints.adapters.update import Update
from rankscope.checkpoints.files import SafetensorsFile
from rankscope.checkpoints.source import Entry, Source, Unreadable
from rankscope.errors import InputError

METADATA = "lora_adapter_metadata"
"""Key of diffusers in the metadata of a safetensors file."""

KOHYA = re.compile(r"(?:lora|lycoris)_(?:(?:prior_)?(?:unet|te\d?|transformer|text_encoder\d?)_)?(?P<layer>.+)")
COMPONENT = re.compile(
    r"(?P<model>unet|transformer(?:_2)?|text_encoder(?:_[234])?|diffusion_model|controlnet|prior|vae)\.(?P<layer>.+)"
)
PIECES = re.compile(r"lora_[AB]|lora_mid|lora_embedding_[AB]|hada_.*|lokr_.*")
UNREAD = re.compile(r"diff|oft_blocks|oft_diag|on_input|[ab][12]\.weight")
"""Pieces of other kinds of LyCORIS, which are known as such behind a name of kohya only."""
FACTORS = ("lora_A", "lora_B", "lora_mid")
OTHER = {
    "dora_scale": "DoRA of LyCORIS, which does not store the direction of the norm",
    "lora_magnitude_vector": "DoRA without adapter_config.json",
    "on_input": "IA3 of LyCORIS, which multiplies weights and is not read",
    "oft_blocks": "OFT of LyCORIS, which rotates weights and is not read",
    "a1.weight": "GLoRA, which multiplies weights and is not read",
}
NO_SCALE = f"the scale alpha / r of its factors is in no file; give the folder with {CONFIG}"


def is_lora_file(source: Source) -> bool:
    """Return whether all weights of a file are factors of changes, none is the weight that they change."""
    found = {piece.layer for name in source.entries if (piece := _known(name))}
    if any(KOHYA.fullmatch(layer) for layer in found):
        return True
    return bool(found) and not any(
        f"{layer}{end}" in source.entries for layer in found for end in (".weight", ".base_layer.weight")
    )


def _known(name: str) -> named.Piece | None:
    piece = named.file_piece(name)
    if piece is None or PIECES.fullmatch(piece.piece):
        return piece
    return piece if KOHYA.fullmatch(piece.layer) and UNREAD.fullmatch(piece.piece) else None


class LoraFile(Adapter):
    """A file of factors.

    Raises
    ------
    InputError
        If it is the file of a PEFT adapter, whose configuration is missing.
    """

    def __init__(self, file: Source) -> None:
        super().__init__(file, file.label)
        if any(name.startswith(named.PREFIX) for name in file.entries):
            raise InputError(
                f"{file.label} holds the factors of a PEFT adapter without their scale; give the folder that also has "
                f"{CONFIG}"
            )
        self._configs = _metadata(file)
        layers: dict[str, dict[str, str]] = {}
        for stored in file.entries:
            piece = named.file_piece(stored)
            if piece is None:
                self.skipped[stored] = "not a piece of a change that is known here"
            elif piece.piece == "diff_b":
                self.skipped[f"{piece.layer}.bias"] = "a bias"
            else:
                layers.setdefault(piece.layer, {})[piece.piece] = stored
        for layer, pieces in layers.items():
            name = layer if KOHYA.fullmatch(layer) else f"{layer}.weight"
            try:
                self._add(name, self._update(layer, pieces))
            except Unreadable as error:
                self._skip([name], str(error))

    def resolve(self, base: Mapping[str, Entry]) -> None:
        """Find the weights of a base for names whose dots were replaced."""
        written = [name for name in self._updates if KOHYA.fullmatch(name)]
        if not written:
            return
        known = _underscored(base)
        targets: dict[str, list[str]] = {}
        for name in written:
            found = KOHYA.fullmatch(name)
            weights = known.get(found["layer"], []) if found else []
            if len(weights) == 1:
                targets.setdefault(weights[0], []).append(name)
            elif weights:
                self._skip([name], f"its name fits several weights of BEFORE: {', '.join(weights[:3])}")
        for weight, names in targets.items():
            if len(names) > 1:
                self._skip(names, f"{' and '.join(names[:3])} both fit {weight} of BEFORE; give one model at a time")
            else:
                self._updates[weight] = self._updates.pop(names[0])

    def _rank(self, pieces: Mapping[str, str]) -> int | None:
        if "lora_A" in pieces and self._file.entries[pieces["lora_A"]].shape:
            return self._file.entries[pieces["lora_A"]].shape[0]
        return lycoris_rank(self._file, pieces)

    def _update(self, layer: str, pieces: dict[str, str]) -> Update:
        for piece, stored in pieces.items():
            if piece not in ("alpha", "diff") and not PIECES.fullmatch(piece):
                raise Unreadable(
                    OTHER.get(piece, f"{stored.rpartition(layer + '.')[2]} is a kind of change that is not read")
                )
        if "diff" in pieces:
            return Difference(self._file, {"diff": pieces["diff"]})
        scale = self._scale(layer, pieces)
        changes = {piece: stored for piece, stored in pieces.items() if piece != "alpha"}
        if any(piece.startswith("hada") for piece in changes):
            return LoHa(self._file, changes, scale)
        if any(piece.startswith("lokr") for piece in changes):
            return LoKr(self._file, changes, scale)
        return LowRank(self._file, changes, scale)

    def _scale(self, layer: str, pieces: Mapping[str, str]) -> float:
        rank = self._rank(pieces)
        if "alpha" in pieces:
            if {"lokr_w1", "lokr_w2"} <= pieces.keys() or rank is None:
                return 1.0  # LyCORIS: a product of two whole matrices has no scale.
            return self._alpha(pieces["alpha"]) / max(rank, 1)
        component = COMPONENT.fullmatch(layer)
        if component and component["model"] in self._configs and rank:
            return self._configs[component["model"]].scale(component["layer"], rank)
        if "" in self._configs and rank:
            return self._configs[""].scale(layer, rank)
        if KOHYA.fullmatch(layer) or component:
            return 1.0
        raise Unreadable(NO_SCALE)

    def _alpha(self, stored: str) -> float:
        entry = self._file.entries[stored]
        if entry.shape not in ((), (1,)) or not isinstance(entry.dtype, torch.dtype):
            raise Unreadable(f"its alpha has the shape {entry.shape}")
        alpha = float(self._file.tensor(stored))
        self._file.release()
        if not 0 < abs(alpha) < float("inf"):
            raise Unreadable(f"its alpha is {alpha}")
        return alpha


def _underscored(base: Mapping[str, Entry]) -> dict[str, list[str]]:
    """Return the weights of a base by their names with underscores, whole or without leading components."""
    whole: dict[str, list[str]] = {}
    tails: dict[str, list[str]] = {}
    for name in base:
        if name.endswith(".weight"):
            components = name.removesuffix(".weight").split(".")
            whole.setdefault("_".join(components), []).append(name)
            for start in range(1, min(len(components), 8)):
                tails.setdefault("_".join(components[start:]), []).append(name)
    return tails | whole


def _metadata(file: Source) -> dict[str, PeftConfig]:
    """Return the configuration of each model that diffusers wrote into the metadata of a file."""
    if not isinstance(file, SafetensorsFile):
        return {}
    try:
        with safe_open(file.path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(METADATA)
        given = json.loads(text) if text else {}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file.label} must have JSON as {METADATA}, got something else: {error!s:.200}") from error
    if not isinstance(given, dict):
        raise InputError(f"{file.label} must have an object as {METADATA}, got {type(given).__name__}")
    models: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        model, _, option = key.rpartition(".")
        models.setdefault(model, {})[option] = value
    return {
        model: PeftConfig(options, f"{file.label} in its metadata of {model!r:.50}")
        for model, options in models.items()
    }
