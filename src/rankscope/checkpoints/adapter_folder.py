"""The folder of a LoRA adapter as the PEFT library reads it: every matrix at its own rank, with a scale of 1.

PEFT looks up ranks by patterns of names, and modules by the ends of their names. Names that end like another one are
anchored, so that nothing else is adapted. Several parameters of one module are nested: the first one is the innermost.
Checked with PEFT 0.21.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rankscope.checkpoints.adapters import CONFIG, PREFIX, WEIGHTS
from rankscope.checkpoints.factored import OWN_FILE, FactoredMatrix, write_factors
from rankscope.checkpoints.modules import Kind, Storage
from rankscope.checkpoints.names import WRAPPERS
from rankscope.errors import InputError
from rankscope.io.atomic import make_folder, replacing
from rankscope.io.tensor_file import write_tensors

BY_PARAMETER = (Kind.PARAMETER, Kind.EXPERTS, Kind.EXPERTS_TRANSPOSED)
OUTPUT = "lm_head"
"""Output layer of the models of transformers that PEFT ties to the embedding."""

FILES = (CONFIG, *WEIGHTS, OWN_FILE)


def check_free(folder: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise `InputError` if a folder holds an adapter that may not be replaced."""
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise InputError(f"folder must be a folder for the adapter, got the file {str(path)!r}")
    there = [name for name in FILES if (path / name).exists()]
    if there and not overwrite:
        raise InputError(
            f"folder must be one without an adapter, got {str(path)!r} with {there[0]}; choose another one, or "
            "overwrite=True (--overwrite)"
        )


def write_folder(
    folder: Path,
    matrices: Sequence[FactoredMatrix],
    storage: Mapping[str, Storage],
    tensors: Collection[str],
) -> Path:
    """Write an adapter with its config, and the matrices that PEFT cannot hold into a file of our own; return it.

    Parameters
    ----------
    storage
        How the weights are stored, by name.
    tensors
        Names of all tensors of the checkpoint, some of which may end like those of the adapter.
    """
    path = make_folder(folder)
    # With a name that is too short PEFT would find the module by its end, but not load the factors of it.
    storage = {_plain(one.module_name): storage[one.name] for one in matrices}
    matrices = [one._replace(name=_plain(one.module_name)) for one in matrices]
    own = [one for one in matrices if storage[one.name].kind is Kind.NOT_IN_PEFT]
    groups: dict[str, list[FactoredMatrix]] = {}
    for one in matrices:
        if storage[one.name].kind is not Kind.NOT_IN_PEFT:
            groups.setdefault(one.name, []).append(one)
    # An adapter of two writings would be mixed: what is not written again goes first.
    for name in FILES:
        (path / name).unlink(missing_ok=True)
    if own:
        write_factors(path / OWN_FILE, own)
    if groups:
        factors: dict[str, Tensor] = {}
        for name, group in groups.items():
            factors |= _tensors(name, group, storage, groups)
        write_tensors(path / WEIGHTS[0], factors, {"format": "pt"})
        with replacing(path / CONFIG) as temporary:
            temporary.write_text(json.dumps(_config(groups, storage, tensors), indent=2) + "\n", encoding="utf-8")
    return path


def _tensors(
    name: str, group: Sequence[FactoredMatrix], storage: Mapping[str, Storage], all_names: Collection[str]
) -> dict[str, Tensor]:
    """Return the factors of one weight under the names and in the layout of PEFT."""
    kind = storage[name].kind
    layer = PREFIX + name.rpartition(".")[0]
    A, B, shape = group[0].A, group[0].B, group[0].shape
    if kind is Kind.EMBEDDING:
        return {f"{layer}.lora_embedding_A": B.t().contiguous(), f"{layer}.lora_embedding_B": A.t().contiguous()}
    if kind is Kind.TIED_EMBEDDING:  # PEFT expects the output layer beside it, and adds the change to the weight once
        output = {f"{PREFIX}{OUTPUT}.lora_A.weight": A.contiguous(), f"{PREFIX}{OUTPUT}.lora_B.weight": B.contiguous()}
        embedding = {f"{layer}.lora_embedding_A": B.t().contiguous(), f"{layer}.lora_embedding_B": A.t().contiguous()}
        return embedding | output
    if kind is Kind.TRANSPOSED:
        A, B = B.t(), A.t()
    elif kind is Kind.CONVOLUTION:  # A has the kernel of the layer, B one of 1 x 1
        A, B = A.reshape(len(A), *shape[1:]), B.reshape(*B.shape, *(1 for _ in shape[2:]))
    elif kind in (Kind.EXPERTS, Kind.EXPERTS_TRANSPOSED):
        A, B = _stacked(group, kind is Kind.EXPERTS_TRANSPOSED)
    if kind in BY_PARAMETER:
        beside = sorted(
            (storage[other].place, other)
            for other in all_names
            if other.rpartition(".")[0] == name.rpartition(".")[0] and storage[other].kind in BY_PARAMETER
        )
        layer += ".base_layer" * (len(beside) - 1 - [other for _, other in beside].index(name))
    return {f"{layer}.lora_A.weight": A.contiguous(), f"{layer}.lora_B.weight": B.contiguous()}


def _stacked(group: Sequence[FactoredMatrix], transposed: bool) -> tuple[Tensor, Tensor]:
    """Return the factors of a stack: A (experts r, in), in the order of experts, and B (out, r experts)."""
    count, rank = group[0].shape[0], max(one.rank for one in group)
    rows, columns = group[0].shape[1:]
    A, B = torch.zeros(count, rank, columns), torch.zeros(count, rows, rank)
    for one in group:
        assert one.expert is not None
        A[one.expert] = pad(one.A, (0, 0, 0, rank - one.rank))
        B[one.expert] = pad(one.B, (0, rank - one.rank))
    if transposed:
        A, B = B.transpose(1, 2), A.transpose(1, 2)
    return A.reshape(count * rank, -1), B.permute(1, 2, 0).reshape(B.shape[1], -1)


def _config(
    groups: Mapping[str, Sequence[FactoredMatrix]], storage: Mapping[str, Storage], tensors: Collection[str]
) -> dict[str, Any]:
    """Return `adapter_config.json`."""
    parameters = [name for name in groups if storage[name].kind in BY_PARAMETER]
    modules = [name.rpartition(".")[0] for name in groups if storage[name].kind not in BY_PARAMETER]
    targets = {name if name in parameters else name.rpartition(".")[0]: name for name in groups}
    ranks = {target: max(one.rank for one in groups[name]) for target, name in targets.items()}
    most = Counter(ranks.values()).most_common(1)[0][0]
    # PEFT takes the first pattern that fits the end of a name.
    pattern = {_anchored(target, targets): rank for target, rank in ranks.items() if rank != most}
    return {
        "peft_type": "LORA",
        "r": most,
        "lora_alpha": most,  # a scale of 1
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": _exactly(modules, tensors),
        "target_parameters": sorted(parameters, key=lambda name: (name.rpartition(".")[0], storage[name].place))
        or None,
        "fan_in_fan_out": any(storage[name].kind is Kind.TRANSPOSED for name in groups),
        "ensure_weight_tying": any(storage[name].kind is Kind.TIED_EMBEDDING for name in groups),
        "use_rslora": False,
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
        "base_model_name_or_path": None,
        "task_type": None,
    }


def _exactly(modules: list[str], tensors: Collection[str]) -> list[str] | str:
    """Return names that PEFT finds no other module by: a list, or a regular expression where others end alike."""
    paths = {_plain(name)[: dot.start()] for name in tensors for dot in re.finditer(r"\.", _plain(name))}
    alike = any(path.endswith(f".{module}") for path in paths.difference(modules) for module in modules)
    return "|".join(map(re.escape, modules)) if alike else modules


def _plain(name: str) -> str:
    """Return the name of a tensor in a model without wrappers."""
    return WRAPPERS.sub("", name).removeprefix("module.")


def _anchored(name: str, others: Collection[str]) -> str:
    """Return a pattern of a name that fits none of the others."""
    text = name if re.fullmatch(r"[\w.-]+", name) else re.escape(name)
    return f"^{text}" if any(other.endswith(f".{name}") for other in others) else text
