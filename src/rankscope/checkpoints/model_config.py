"""The `config.json` of transformers beside the weights of a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files import read_json
from rankscope.errors import InputError

CONFIG = "config.json"


def model_types(given: Any) -> frozenset[str]:
    """Return every `model_type` in the config beside a checkpoint, with those of its submodels.

    Empty for a checkpoint in memory, one without a readable config, and a model whose code is not of transformers.
    """
    if not isinstance(given, (str, os.PathLike)):
        return frozenset()
    path = Path(given)
    file = (path if path.is_dir() else path.parent) / CONFIG
    if not file.is_file():
        return frozenset()
    try:
        config = read_json(file)
    except InputError:
        return frozenset()
    if "auto_map" in config:
        return frozenset()
    return frozenset(_types(config))


def _types(config: dict[str, Any]) -> list[str]:
    own = config.get("model_type")
    found = [own] if isinstance(own, str) and own else []
    for value in config.values():
        if isinstance(value, dict) and isinstance(value.get("model_type"), str):
            found.append(value["model_type"])
    return found
