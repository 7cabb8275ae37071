"""A change truncated to low rank, as the two factors of a LoRA adapter (Hu et al. 2021)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from rankscope.checkpoints.adapter import CONFIG, PREFIX, WEIGHTS
from rankscope.checkpoints.opening import CheckpointLike
from rankscope.checkpoints.pairs import Pair, open_pair, select
from rankscope.checkpoints.source import Unreadable
from rankscope.errors import InputError
from rankscope.io.atomic import make_folder, replacing
from rankscope.io.tensor_file import write_tensors
from rankscope.linalg import leading_triplets
from rankscope.lowrank.change import Change, FactoredChange
from rankscope.lowrank.noise_edges import COMPLETE_UP_TO
from rankscope.validation import integer


class LowRankFactors(Mapping[str, tuple[Tensor, Tensor]]):
    """Name of a weight -> A (rank, columns) and B (rows, rank), float32, with B @ A = dW truncated to that rank.

    The factors of a matrix with fewer directions are padded with zeros.
    """

    def __init__(self, changes: Iterable[tuple[str, tuple[int, ...], Change]], rank: int) -> None:
        self.rank = rank
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}
        for name, shape, change in changes:
            U, s, Vt = _leading(change, rank)
            # Split evenly, neither factor is so small that a half-precision copy would lose it.
            root = s[:rank].sqrt()
            A, B = root[:, None] * Vt[:rank], U[:, :rank] * root
            missing = rank - len(root)
            self._shapes[name] = shape
            self._factors[name] = (
                torch.nn.functional.pad(A, (0, 0, 0, missing)).float(),
                torch.nn.functional.pad(B, (0, missing)).float(),
            )

    def __getitem__(self, name: str) -> tuple[Tensor, Tensor]:
        return self._factors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._factors)

    def __len__(self) -> int:
        return len(self._factors)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the folder of a LoRA adapter, for the PEFT library and `rankscope inspect`, and return it.

        Raises
        ------
        InputError
            If the folder cannot be made or written to.
        """
        path = make_folder(folder)
        tensors: dict[str, Tensor] = {}
        for name, (A, B) in self.items():
            layer = PREFIX + name.removesuffix(".weight")
            tail = self._shapes[name][2:]
            # For a convolution, A has the same kernel and B a kernel of 1 x 1.
            tensors[f"{layer}.lora_A.weight"] = A.reshape(self.rank, -1, *tail).contiguous()
            tensors[f"{layer}.lora_B.weight"] = B.reshape(*B.shape, *(1 for _ in tail)).contiguous()
        modules = sorted(name.removesuffix(".weight") for name in self if name.endswith(".weight"))
        config = {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.rank,  # a scale of 1
            "target_modules": modules,
            # Weights that are not named `weight`, such as those of an LSTM.
            "target_parameters": sorted(name for name in self if not name.endswith(".weight")),
            "fan_in_fan_out": False,
            "use_rslora": False,
            "bias": "none",
            "lora_dropout": 0.0,
            "inference_mode": True,
            "base_model_name_or_path": None,
            "task_type": None,
        }
        write_tensors(path / WEIGHTS[0], tensors, {"format": "pt"})
        with replacing(path / CONFIG) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return path


def low_rank_factors(
    before: CheckpointLike,
    after: CheckpointLike,
    rank: int,
    layers: Iterable[str] | None = None,
    *,
    prefix: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> LowRankFactors:
    """Return the change of each matrix truncated to a rank, as two factors.

    Parameters
    ----------
    before, after
        State dicts, modules or paths, as in `open_checkpoint`.
    rank
        Number of directions to keep.
    layers
        Keys of weights, or patterns such as ``"*.q_proj.weight"``; by default every matrix that changed. Stacks of
        the matrices of experts, and matrices of a vocabulary that grew, are left out.
    prefix, rename
        Changes of names before they are matched, as in `compare`.

    Raises
    ------
    InputError
        If `rank` is below 1, a layer is unknown, or one of the two is no checkpoint.
    """
    kept = integer("rank", rank, minimum=1)
    return LowRankFactors(_changes(open_pair(before, after, prefix, rename), layers), kept)


def _changes(pair: Pair, layers: Iterable[str] | None) -> Iterator[tuple[str, tuple[int, ...], Change]]:
    """Yield name, shape and change of the matrices that changed."""
    for names in select(pair, layers).matrices:
        if names.expert is not None or names.rows is not None:
            continue
        try:
            change = pair.change(names)
        except Unreadable as error:
            raise InputError(f"layers must not have {names.before!r}: {error}") from error
        if change.norm:
            yield names.before, pair.after.entries[names.after].shape, change


def _leading(change: Change, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, s and Vt of a change, of large matrices the leading ones only."""
    if min(change.shape) > max(COMPLETE_UP_TO, 4 * rank) and not isinstance(change, FactoredChange):
        return leading_triplets(torch.from_numpy(change.matrix), rank)[:3]
    U, s, Vt = (torch.from_numpy(factor) for factor in change.svd)
    return U, s, Vt
