"""Options of `adapter_config.json` that decide what the tensors of an adapter mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.adapters.patterns import Patterns
from rankscope.checkpoints.files import read_json
from rankscope.checkpoints.source import Unreadable
from rankscope.errors import InputError

CONFIG = "adapter_config.json"

READ = ("LORA", "ADALORA", "LOHA", "LOKR")

PROMPTS = "it learns inputs or prompts, no weight of the model changes"
SHARED = "its changes come from matrices shared by all layers, or from a random seed"
MULTIPLIED = "it multiplies the weights or activations of the base"
MIXED = "it mixes several adapters by the input, there is no one change"
REFUSED: dict[str, str] = (
    dict.fromkeys(
        (
            *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "ADAPTION_PROMPT"),
            "CARTRIDGE",
        ),
        PROMPTS,
    )
    | dict.fromkeys(("VERA", "PVERA", "VBLORA", "UNILORA", "RANDLORA", "FROD", "TINYLORA"), SHARED)
    | dict.fromkeys(("IA3", "OFT", "BOFT", "HRA", "HIRA", "ROAD", "PSOFT"), MULTIPLIED)
    | dict.fromkeys(("XLORA", "POLY"), MIXED)
    | {"LN_TUNING": "it trains normalization layers only", "TRAINABLE_TOKENS": "it replaces rows of embeddings"}
)

VARIANTS = {
    "use_bdlora": "its factors are block-diagonal",
    "use_qalora": "its factors act on averages of inputs",
    "kasa_config": "it removes the smallest directions of the base",
    "arrow_config": "it routes each token to other adapters",
}
"""Variants of LoRA whose change is not scale * B A; DoRA is treated apart."""

PLAIN_OPTIONS = (
    *("use_rslora", "use_dora", "use_qalora", "use_bdlora", "loftq_config", "eva_config", "corda_config"),
    *("lora_ga_config", "runtime_config", "megatron_config", "velora_config", "monteclora_config", "kasa_config"),
    *("arrow_config", "use_effective_conv2d"),
)
"""Options named like those of a variant that do not change the formula, or are treated apart."""


class PeftConfig:
    """The configuration of a PEFT adapter.

    Raises
    ------
    InputError
        If it is of an adapter that is not read, or an option has no meaning.
    """

    def __init__(self, given: Mapping[str, Any], where: str) -> None:
        self.where = where
        self._given = given
        self.kind = given.get("peft_type") or "LORA"
        if self.kind not in READ:
            why = REFUSED.get(self.kind, "another formula") if isinstance(self.kind, str) else "no name"
            raise InputError(
                f"{where} must be of one of {', '.join(READ)}, got peft_type {self.kind!r:.50}: {why}; to compare it, "
                "merge it into its base with PEFT (merge_and_unload, where it has that) and give both models"
            )
        self.transposed = given.get("fan_in_fan_out") is True
        self._alphas = Patterns(given.get("alpha_pattern") or {}, where, "alpha_pattern")
        # AdaLoRA keeps masks of its directions there, which it has applied to the factors.
        ranks = given.get("rank_pattern") or {}
        self._ranks = Patterns({} if self.kind == "ADALORA" else ranks, where, "rank_pattern")
        self.alpha("")

    @property
    def variant(self) -> str | None:
        """Reason why no change can be computed from the factors, or None."""
        for option, why in VARIANTS.items():
            if self._given.get(option):
                return f"a variant of LoRA, {option}: {why}; compare the model that PEFT merges instead"
        for option, value in self._given.items():
            named_as_one = option.startswith("use_") or option.endswith("_config")
            if named_as_one and value and option not in PLAIN_OPTIONS:
                return f"a variant of LoRA that is not known here: {option!r:.50} in {CONFIG}"
        return None

    @property
    def initialization(self) -> str | None:
        """Value of `init_lora_weights` if the initial factors hold a piece of the base, else None."""
        given = self._given.get("init_lora_weights", True)
        if not isinstance(given, str) or given.lower() in ("gaussian", "eva", "orthogonal", "mica", "true", "false"):
            return None
        return given

    @property
    def replicated(self) -> bool:
        """Whether layers of the base were repeated, so that the adapter counts other layers."""
        return bool(self._given.get("layer_replication"))

    @property
    def parameters(self) -> list[str]:
        """Names in `target_parameters`."""
        given = self._given.get("target_parameters") or []
        if not isinstance(given, list) or not all(isinstance(name, str) and name.isprintable() for name in given):
            raise InputError(f"{self.where} must have a list of names as target_parameters, got {given!r:.100}")
        return given

    def alpha(self, layer: str) -> float:
        """Return alpha of a layer."""
        key = "lora_alpha" if self.kind in ("LORA", "ADALORA") else "alpha"
        alpha = self._alphas.value(layer, self._given.get(key))
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
            raise InputError(f"{self.where} must have a number as {key} of {layer!r:.200}, got {alpha!r:.50}")
        return float(alpha)

    def rank(self, layer: str) -> int | None:
        """Return the rank of a layer, None where there is none."""
        rank = self._ranks.value(layer, self._given.get("r"))
        if rank is None:
            return None
        if isinstance(rank, bool) or not isinstance(rank, int) or not 0 < rank < 2**31:
            raise InputError(f"{self.where} must have a whole number as r of {layer!r:.200}, got {rank!r:.50}")
        return rank

    def scale(self, layer: str, rank: int) -> float:
        """Return the scale of a layer whose factors have that rank.

        alpha / r, or alpha / sqrt(r) of rank-stabilized LoRA (Kalajdzievski 2023); of AdaLoRA, alpha / (init_r + 1e-5)
        with the rank that it began with (`SVDLinear.get_delta_weight` in PEFT 0.21).

        Raises
        ------
        Unreadable
            If the configuration has another rank: PEFT could not load the adapter, and its scale is not known.
        """
        alpha = self.alpha(layer)
        if self.kind == "ADALORA":
            first = self._given.get("init_r", 12)
            if isinstance(first, bool) or not isinstance(first, int) or not 0 < first < 2**31:
                raise InputError(f"{self.where} must have a whole number as init_r, got {first!r:.50}")
            return (alpha if alpha > 0 else float(first)) / (first + 1e-5)
        stated = self.rank(layer)
        if stated not in (None, rank):
            raise Unreadable(
                f"its factors have the rank {rank}, but {CONFIG} has {stated}, so that alpha / r is not known"
            )
        return alpha / (math.sqrt(rank) if self._given.get("use_rslora") is True else rank)


def read_config(folder: Path) -> PeftConfig:
    """Return the configuration in a folder."""
    return PeftConfig(read_json(folder / CONFIG), str(folder / CONFIG))
