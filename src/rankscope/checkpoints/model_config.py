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

CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
"""Models with transformers' `Conv1D`, a linear layer that stores the transposed weight, (in, out)."""


def model_types(given: Any) -> frozenset[str]:
    """Return every `model_type` in the config beside a checkpoint, with those of its submodels.

    Empty for a checkpoint in memory, one without a readable config, and a model whose code is not of transformers.
    """
    if not isinstance(given, (str, os.PathLike)):
        return frozenset()
    path = Path(given)
    config = _beside(path if path.is_dir() else path.parent)
    return frozenset() if "auto_map" in config else frozenset(_types(config))


def model_config(source: Source) -> Mapping[str, Any]:
    """Return the configuration of a checkpoint; empty if there is none, or none that can be read."""
    if source.config is not None:
        return source.config
    return {} if source.folder is None else _beside(source.folder)


def positive(config: Mapping[str, Any], *keys: str) -> int | None:
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
