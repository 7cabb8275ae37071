"""The configuration of a transformers model: the `config.json` beside its weights, or that of a module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files import read_json
from rankscope.checkpoints.source import Source
from rankscope.errors import InputError

CONFIG = "config.json"
LARGEST = 2**24
"""Bytes of the largest file that is read."""

CONV1D_MODELS = frozenset(
    ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp", "clvp_encoder", "clvp_decoder")
)
CONV1D_LAYERS = frozenset(("c_attn", "q_attn", "c_proj", "c_fc"))
"""Layers of these models that are transformers' `Conv1D`, which stores the transposed weight, (in, out)."""

ALIASES = {
    "text": ("language_model", "text_model", "text_encoder", "text_decoder", "lm_head"),
    "vision": ("vision_tower", "vision_model", "visual", "vision_encoder", "image_encoder", "vision_backbone"),
    "audio": ("audio_tower", "audio_encoder", "audio_model"),
}
"""Components of names that belong to the section of a configuration, besides its own name."""

COUNTS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads")
"""Settings with a number of heads."""

Config = Mapping[str, Any]


def model_types(given: Any) -> frozenset[str]:
    """Return every `model_type` in the config beside a checkpoint, with those of its submodels.

    Empty for a checkpoint in memory, one without a readable config, and a model whose code is not of transformers.
    """
    if not isinstance(given, (str, os.PathLike)):
        return frozenset()
    path = Path(given)
    config = _beside(path if path.is_dir() else path.parent)
    return frozenset() if "auto_map" in config else frozenset(_types(config))


def model_config(source: Source) -> Config:
    """Return the configuration of a checkpoint; empty if there is none, or none that can be read."""
    if source.config is not None:
        return source.config
    return {} if source.folder is None else _beside(source.folder)


def section_of(config: Config, name: str) -> Config | None:
    """Return the configuration of the submodel that a tensor belongs to; None if its name does not tell.

    A configuration of several models has one section for each, such as `vision_config`.
    """
    sections = {key.removesuffix("_config"): value for key, value in config.items() if _is_section(key, value)}
    if not sections:
        return config
    components = name.split(".")
    found = [key for key in sections if any(one in components for one in (key, *ALIASES.get(key, ())))]
    if len(found) == 1:
        return section_of(sections[found[0]], name)
    return config if not found and positive(config, *COUNTS) else None


def _is_section(key: str, value: Any) -> bool:
    if not isinstance(value, dict) or not (key.endswith("_config") or key in ("encoder", "decoder")):
        return False
    return positive(value, *COUNTS) is not None or any(_is_section(*item) for item in value.items())


def positive(config: Config, *keys: str) -> int | None:
    """Return the first of several settings that is a positive whole number."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _beside(folder: Path) -> dict[str, Any]:
    """Return the configuration in a folder; empty if there is none, or none that can be read."""
    file = folder / CONFIG
    try:
        return read_json(file) if file.is_file() and file.stat().st_size <= LARGEST else {}
    except (InputError, OSError):
        return {}


def _types(config: dict[str, Any]) -> list[str]:
    own = config.get("model_type")
    found = [own] if isinstance(own, str) and own else []
    for value in config.values():
        if isinstance(value, dict) and isinstance(value.get("model_type"), str):
            found.append(value["model_type"])
    return found
