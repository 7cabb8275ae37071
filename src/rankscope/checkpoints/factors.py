"""A change cut to low rank, as the two factors of a LoRA adapter: what learning wrote, in a hundredth of the space."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rankscope.checkpoints.adapter import CONFIG, PREFIX, WEIGHTS
from rankscope.checkpoints.compare import open_pair
from rankscope.checkpoints.layers import Layer, chosen, decomposed
from rankscope.checkpoints.opening import CheckpointLike
from rankscope.io.atomic import make_folder, replacing
from rankscope.validation import integer


class LowRankFactors(Mapping[str, tuple[Tensor, Tensor]]):
    """For each weight its A (rank, columns) and B (rows, rank), float32: B @ A is dW cut to that rank, unfolded.

    Attributes
    ----------
    rank
        The rank R. Where a matrix is smaller, the rest is zero.
    """

    def __init__(self, layers: Iterable[Layer], rank: int) -> None:
        self.rank = rank
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}
        for layer in layers:
            # Shared out evenly, neither factor is so small that a half-precision copy would lose it.
            root = layer.s[:rank].sqrt()
            A, B = root[:, None] * layer.Vt[:rank], layer.U[:, :rank] * root
            missing = rank - len(root)
            self._shapes[layer.name] = layer.shape
            self._factors[layer.name] = (
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
        """Write a LoRA adapter's folder, as the PEFT library and `rankscope inspect` read it; return it.

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
            # Of a convolution, A is one of the same kernel and B one of a single pixel.
            tensors[f"{layer}.lora_A.weight"] = A.reshape(self.rank, -1, *tail).contiguous()
            tensors[f"{layer}.lora_B.weight"] = B.reshape(*B.shape, *(1 for _ in tail)).contiguous()
        modules = sorted(name.removesuffix(".weight") for name in self if name.endswith(".weight"))
        config = {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.rank,  # a scale of 1
            "target_modules": modules,
            # Weights that are not the `weight` of a module of their own, such as an LSTM's.
            "target_parameters": sorted(name for name in self if not name.endswith(".weight")),
            "fan_in_fan_out": False,
            "use_rslora": False,
            "bias": "none",
            "lora_dropout": 0.0,
            "inference_mode": True,
            "base_model_name_or_path": None,
            "task_type": None,
        }
        with replacing(path / WEIGHTS[0]) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        with replacing(path / CONFIG) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return path


def low_rank_factors(
    before: CheckpointLike, after: CheckpointLike, rank: int, layers: Iterable[str] | None = None
) -> LowRankFactors:
    """Return the change of each matrix cut to a rank, as factors.

    Parameters
    ----------
    before, after
        State dicts, modules or paths, as in `open_checkpoint`.
    rank
        How many directions to keep.
    layers
        Keys of weights, or patterns such as ``"*.q_proj.weight"``; by default every matrix that changed.

    Raises
    ------
    InputError
        If `rank` is below 1, a layer is unknown, or one of the two is no checkpoint.
    """
    kept = integer("rank", rank, minimum=1)
    old, new = open_pair(before, after)
    return LowRankFactors(decomposed(old, new, chosen(old, new, layers), leading=kept), kept)
