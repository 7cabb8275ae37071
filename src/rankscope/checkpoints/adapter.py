r"""LoRA adapters in the format of the PEFT library: a change of rank r, stored as its two factors.

Fine-tuning with LoRA (Hu et al. 2021) keeps $W_0$ and learns $\Delta W = s B A$ with $B$ (out, r), $A$
(r, in) and the scale $s = \alpha / r$, or $\alpha / \sqrt r$ for rank-stabilized LoRA (Kalajdzievski 2023). An
adapter's folder holds `adapter_config.json` and the factors, named `base_model.model.LAYER.lora_A.weight` and
`...lora_B.weight`. An adapter is a checkpoint whose change is known without a base.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints.files import open_file, read_json
from rankscope.checkpoints.source import Entry, Source, Unreadable
from rankscope.errors import InputError

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
FACTOR = re.compile(r"(.+)\.lora_([AB])(?:\.default)?(?:\.weight)?")
NOT_FACTORS = ("lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")


class Factors(NamedTuple):
    """A change as a product: B (out, r), including the scale, times A (r, in)."""

    B: Tensor
    A: Tensor


class Adapter(Source):
    """The folder of a LoRA adapter; `entries` are the weights that it changes, with the shapes of the changes.

    `replaced` maps weights that are stored whole (PEFT's `modules_to_save`) to their names in the file, `skipped` those
    whose change is not the product of factors to the reason.
    """

    def __init__(self, folder: Path) -> None:
        self.label = str(folder)
        self._config = read_json(folder / CONFIG)
        kind = self._config.get("peft_type")
        if kind not in ("LORA", None):
            raise InputError(f"{folder / CONFIG} must be of a LoRA adapter (peft_type 'LORA'), got {kind!r}")
        found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
        if not found:
            raise InputError(f"{folder} has an {CONFIG} but no {WEIGHTS[0]}")
        self._file = open_file(found[0])
        self._transposed = self._config.get("fan_in_fan_out") is True
        self._patterns = self._pattern("alpha_pattern")
        self._factors: dict[str, dict[str, str]] = {}  # weight -> {"A": name in the file, "B": name in the file}
        self.replaced: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self._sort()
        self.entries: dict[str, Entry] = {}
        for name, factors in self._factors.items():
            self._describe(name, factors)
        self.entries |= {name: self._file.entries[stored] for name, stored in self.replaced.items()}

    def factors(self, name: str) -> Factors:
        """Return the two factors of the change of `name`, in double precision."""
        factors = self._factors[name]
        B, A = (self._file.tensor(factors[side]).double().flatten(1) for side in "BA")
        B = B * self._scale(name, A.shape[0])
        self._file.release()
        return Factors(A.t(), B.t()) if self._transposed else Factors(B, A)

    def dtype(self, name: str) -> torch.dtype:
        """Return the type that the factors of `name` are stored in."""
        kind = self._file.entries[self._factors[name]["B"]].dtype
        assert isinstance(kind, torch.dtype)
        return kind

    def tensor(self, name: str) -> Tensor:
        """Return a weight that is stored whole."""
        return self._file.tensor(self.replaced[name])

    def release(self) -> None:
        """Close the file."""
        self._file.release()

    def _sort(self) -> None:
        """Sort the stored tensors into factors, whole weights and others, by name."""
        for stored in self._file.entries:
            plain = stored.removeprefix(PREFIX)
            factor = FACTOR.fullmatch(plain)
            special = next((word for word in NOT_FACTORS if word in plain), None)
            if factor:
                self._factors.setdefault(self._weight(factor[1]), {})[factor[2]] = stored
            elif special:
                layer = plain.split("." + special)[0]
                dora = special == "lora_magnitude_vector"
                why = "DoRA rescales the base's rows, the factors alone are not its change" if dora else "an embedding"
                self.skipped[self._weight(layer)] = why
            else:
                self.replaced[re.sub(r"\.modules_to_save(\.default)?\.", ".", plain)] = stored
        for name in self.skipped:
            self._factors.pop(name, None)

    def _weight(self, layer: str) -> str:
        """Return the name of the weight that the factors of `layer` belong to."""
        layer = layer.replace(".base_layer", "")
        parameters = self._config.get("target_parameters") or []
        named = isinstance(parameters, list) and any(
            isinstance(p, str) and (layer == p or layer.endswith("." + p)) for p in parameters
        )
        return layer if named else layer + ".weight"

    def _describe(self, name: str, factors: dict[str, str]) -> None:
        """Add the entry of a change, or the reason why there is none."""
        if set(factors) != {"A", "B"}:
            self.skipped[name] = f"the adapter has only lora_{next(iter(factors))} of its two factors"
            return
        B, A = (self._file.entries[factors[side]] for side in "BA")
        if not all(isinstance(e.dtype, torch.dtype) and e.dtype.is_floating_point for e in (A, B)):
            self.skipped[name] = f"the factors are of type {A.dtype}, {B.dtype}, not numbers"
        elif not _fit_together(A.shape, B.shape):
            self.skipped[name] = f"the factors do not fit together: B {B.shape}, A {A.shape}"
        else:
            shape = (B.shape[0], *A.shape[1:])
            self.entries[name] = Entry(shape[::-1] if self._transposed else shape, B.dtype)
            self._scale(name, A.shape[0])

    def _scale(self, name: str, rank: int) -> float:
        """Return s, for the rank of the factors, which PEFT's `rank_pattern` also gives."""
        layer = name.removesuffix(".weight")
        named = [alpha for pattern, alpha in self._patterns.items() if pattern.fullmatch(layer)]
        alpha = named[0] if named else self._config.get("lora_alpha", rank)
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
            raise InputError(f"{self.label}/{CONFIG} must have a number as lora_alpha of {layer!r}, got {alpha!r}")
        return float(alpha) / (math.sqrt(rank) if self._config.get("use_rslora") is True else rank)

    def _pattern(self, key: str) -> Mapping[re.Pattern[str], Any]:
        """Return the patterns of layers under `key`: the last components of a name, or a simple regular expression."""
        given = self._config.get(key) or {}
        if not isinstance(given, dict):
            raise InputError(f"{self.label}/{CONFIG} must have an object as {key}, got {given!r}")
        compiled = {}
        for text, value in given.items():
            # Nested repetitions can take time exponential in the length of a name: a denial of service from a file.
            if re.search(r"[(){}]|\\\d", text) or len(re.findall(r"[*+?]", text)) > 2 or len(text) > 500:
                raise InputError(f"{self.label}/{CONFIG} must name layers in {key} plainly, got {text!r}")
            try:
                compiled[re.compile(rf"(?:.*\.)?(?:{text.removesuffix('$')})" if text[:1] != "^" else text)] = value
            except re.error as error:
                raise InputError(f"{self.label}/{CONFIG} must name layers in {key}, got {text!r}: {error}") from error
        return compiled


def _fit_together(A: tuple[int, ...], B: tuple[int, ...]) -> bool:
    """Return whether B (out, rank), or (out, rank, 1, 1) of a convolution, and A (rank, in, ...) have a product."""
    return len(A) > 1 and len(B) > 1 and B[1] == A[0] and math.prod(B[2:]) == 1 and 0 not in (*A, *B)


def spread(factors: Factors, shape: tuple[int, ...]) -> Tensor:
    """Return the product of the factors in the shape of the weight."""
    try:
        return (factors.B @ factors.A).reshape(shape)
    except RuntimeError as error:
        raise Unreadable(f"its factors do not give the shape {shape}: {error}") from error
