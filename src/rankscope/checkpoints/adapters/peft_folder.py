"""The folder of an adapter that PEFT saved: `adapter_config.json` and the factors.

Tensors are named `base_model.model.LAYER.lora_A.weight` and so on; the weights that they change are `LAYER.weight`.
There are two exceptions: PEFT adapts `in_proj_weight` of torch's MultiheadAttention, and names the factors after the
module; and those of `target_parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rankscope.checkpoints.adapters import names as named
from rankscope.checkpoints.adapters.adapter import Adapter
from rankscope.checkpoints.adapters.config import CONFIG, read_config
from rankscope.checkpoints.adapters.dora import MAGNITUDE, Dora
from rankscope.checkpoints.adapters.initial import WithoutInitial, initial_folder
from rankscope.checkpoints.adapters.lora import Experts, LowRank
from rankscope.checkpoints.adapters.lycoris import LoHa, LoKr
from rankscope.checkpoints.adapters.parameters import assigned, find_module, is_target, modules_of, only_target
from rankscope.checkpoints.adapters.update import Update
from rankscope.checkpoints.files import open_file
from rankscope.checkpoints.source import Entry, Source, Unreadable
from rankscope.errors import InputError

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
NESTED = ".base_layer"

GIVE_BASE = "factors of parameters of a module (target_parameters), assigned by their shapes; give the base as BEFORE"
UNKNOWN_PARAMETERS = "which of the parameters each factor changes is not known"
REPEATED = "of a model with repeated layers (layer_replication), whose layers are not those of BEFORE"
TOKENS = "some rows were replaced (trainable_token_indices); compare the embeddings of the merged models"
TWICE = "the output of torch's MultiheadAttention, to which PEFT 0.21 adds the change twice; compare the merged model"
FACTORS = ("lora_A", "lora_B", "lora_E", "lora_embedding_A", "lora_embedding_B")


class PeftAdapter(Adapter):
    """A folder of PEFT, with one adapter.

    Raises
    ------
    InputError
        If a file is missing or damaged, or the configuration is of an adapter that is not read.
    """

    def __init__(self, folder: Path) -> None:
        self._config = read_config(folder)
        found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
        if not found:
            raise InputError(f"{folder} has an {CONFIG} but no {WEIGHTS[0]}")
        super().__init__(open_file(found[0]), str(folder))
        self._layers: dict[str, dict[str, str]] = {}
        self._sort()
        self._initial = self._open_initial(folder)
        self._modules: dict[str, dict[int, str]] = {}  # of target_parameters: depth of nesting -> layer
        self._placed: dict[str, list[str]] = {}  # names of their changes
        for layer, pieces in self._layers.items():
            self._place(layer, pieces)
        self._place_modules(None)
        self._check_copies()

    def resolve(self, base: Mapping[str, Entry]) -> None:
        """Assign the factors of `target_parameters` by the shapes in the base."""
        if self._config.replicated:
            self._skip([*self._updates, *self.replaced, *self.skipped], REPEATED)
            self.replaced = {}
            return
        self._place_modules(base)

    def _sort(self) -> None:
        """Sort the tensors into the pieces of changes, whole weights and others."""
        pieces = {stored: named.peft_piece(stored) for stored in self._file.entries}
        adapters = named.adapters_in(piece for piece in pieces.values() if piece is not None)
        if len(adapters) > 1:
            raise InputError(
                f"{self.label} must hold one adapter, got {', '.join(map(repr, adapters[:5]))} in one file"
            )
        for stored, piece in pieces.items():
            plain = stored.removeprefix(named.PREFIX)
            if piece is not None:
                if piece.piece.endswith(".bias"):
                    self.skipped[f"{_stripped(piece.layer)}.bias"] = "a bias (lora_bias)"
                else:
                    self._layers.setdefault(piece.layer, {})[piece.piece] = stored
            elif ".token_adapter." in plain:
                self.skipped[plain.split(".token_adapter.")[0] + ".weight"] = TOKENS
            elif named.IGNORED.search(plain):
                continue
            elif unknown := named.UNKNOWN.fullmatch(plain):
                what = f"{unknown['piece']} is not a piece of a change that is known here"
                self.skipped[f"{_stripped(unknown['layer'])}.weight"] = what
            else:
                name = named.whole_name(stored)
                if name in self.replaced and ".original_module." in plain:
                    continue  # listed beside the one that was trained
                (self._copies if NESTED + "." in plain else self.replaced)[name] = stored

    def _check_copies(self) -> None:
        """Keep only the copies of the base's weights that a change is added to; others are weights like any."""
        for name in [name for name in self._copies if name not in self._updates and name not in self.skipped]:
            self.replaced[name] = self._copies.pop(name)

    def _place(self, layer: str, pieces: dict[str, str]) -> None:
        """Add the change of one layer, or remember it as that of a parameter."""
        plain = _stripped(layer)
        targets = self._config.parameters
        if plain in targets or any("." in one and plain.endswith("." + one) for one in targets):
            self._try(plain, plain, pieces)  # named after the parameter itself, as rankscope does
        elif f"{layer}{NESTED}.out_proj" in self._layers:
            self._try(f"{plain}.in_proj_weight", plain, pieces)
        elif layer.endswith(f"{NESTED}.out_proj"):
            self._skip([f"{plain}.weight"], TWICE)
        elif targets and (layer.endswith(NESTED) or only_target(plain, targets) or _owners(plain, targets) > 1):
            depth = 0
            while layer.endswith(NESTED):
                depth, layer = depth + 1, layer.removesuffix(NESTED)
            self._modules.setdefault(plain, {})[depth] = layer + depth * NESTED
        else:
            self._try(f"{plain}.weight", plain, pieces)

    def _try(self, name: str, key: str, pieces: dict[str, str], count: int | None = None) -> None:
        if name in self.skipped:
            return
        try:
            self._add(name, self._update(key, pieces, count))
        except Unreadable as error:
            self._skip([name], str(error))

    def _update(self, key: str, pieces: dict[str, str], count: int | None) -> Update:
        """Return the change of one weight; `key` is the name that patterns of ranks and alphas are matched with."""
        config = self._config
        if config.variant:
            raise Unreadable(config.variant)
        if config.kind in ("LOHA", "LOKR"):
            rank = config.rank(key)
            if rank is None:
                raise Unreadable(f"{CONFIG} has no r, so that the scale alpha / r is not known")
            kind = LoHa if config.kind == "LOHA" else LoKr
            return kind(self._file, pieces, config.scale(key, rank))
        factors = {piece: stored for piece, stored in pieces.items() if piece in FACTORS}
        first = next((factors[side] for side in ("lora_A", "lora_embedding_A") if side in factors), None)
        shape = self._file.entries[first].shape if first else ()
        if config.kind == "ADALORA" and shape[:1] == (0,):
            raise Unreadable("AdaLoRA gave it the rank 0: it is not changed")
        if count is not None:
            if config.initialization:
                raise Unreadable(f"{GIVE_BASE}, with init_lora_weights {config.initialization!r:.50}")
            return Experts(self._file, factors, config.scale(key, (shape[0] if shape else 0) // count or 1), count)
        low = LowRank(self._file, factors, config.scale(key, shape[0] if shape and shape[0] else 1), config.transposed)
        inner = self._without_initial(low)
        if MAGNITUDE in pieces:
            return Dora(inner, low.embedding, pieces)
        return inner

    def _without_initial(self, low: LowRank) -> LowRank | WithoutInitial:
        kind = self._config.initialization
        # PEFT initializes convolutions and embeddings as usual with lora_ga, and with no other of these.
        if kind is None or (kind == "lora_ga" and (len(low.shape) > 2 or low.embedding)):
            return low
        start = None
        if self._initial is not None:
            start = LowRank(self._initial, low.pieces, low.scale, self._config.transposed)
        return WithoutInitial(low, kind.lower(), start)

    def _open_initial(self, folder: Path) -> Source | None:
        """Return the initial adapter of PiSSA and others, if it is there and has the same tensors."""
        if self._config.initialization is None:
            return None
        found = initial_folder(folder, CONFIG, WEIGHTS[0])
        if found is None:
            return None
        file = open_file(found / WEIGHTS[0])
        stored = [name for pieces in self._layers.values() for name in pieces.values()]
        same = all(
            name in file.entries and file.entries[name].shape == self._file.entries[name].shape for name in stored
        )
        return file if same else None

    def _place_modules(self, base: Mapping[str, Entry] | None) -> None:
        """Add the changes of parameters of modules, by their names alone or by the shapes in a base."""
        for module, levels in self._modules.items():
            self.skipped.pop(f"{module} (parameters)", None)
            for name in self._placed.pop(module, []):
                self._updates.pop(name, None)
                self.skipped.pop(name, None)
            layers = [levels[depth] for depth in sorted(levels, reverse=True)]  # the innermost first
            try:
                counts = self._by_name(module, layers) if base is None else self._by_shape(module, layers, base)
            except Unreadable as error:
                self._skip([f"{module} (parameters)"], str(error))
                continue
            for layer, (parameter, count) in zip(layers, counts.items(), strict=True):
                name = f"{module}.{parameter}"
                self._placed.setdefault(module, []).append(name)
                self._try(name, name, self._layers[layer], count)

    def _by_name(self, module: str, layers: list[str]) -> dict[str, int]:
        """Return the only parameter that can be meant, and the number of its experts."""
        parameter = only_target(module, self._config.parameters) if layers == [module] else None
        rank = None if parameter is None else self._config.rank(f"{module}.{parameter}")
        rows = self._shape(layers[0], "lora_A")[:1]
        if parameter is None or not rank or not rows or not rows[0] or rows[0] % rank:
            raise Unreadable(GIVE_BASE)
        return {parameter: rows[0] // rank}

    def _by_shape(self, module: str, layers: list[str], base: Mapping[str, Entry]) -> dict[str, int]:
        """Return the parameter of each layer and the number of its experts, in the order of the layers."""
        modules = modules_of(base)
        owner = find_module(module, modules)
        if owner is None:
            raise Unreadable(f"{UNKNOWN_PARAMETERS}: BEFORE has no such module")
        shapes = {
            parameter: (base[f"{owner}.{parameter}"].shape, self._config.rank(f"{module}.{parameter}"))
            for parameter in modules[owner]
            if is_target(f"{module}.{parameter}", self._config.parameters)
            and len(base[f"{owner}.{parameter}"].shape) in (2, 3)
        }
        order = assigned([(self._shape(one, "lora_A"), self._shape(one, "lora_B")) for one in layers], shapes)
        if order is None:
            raise Unreadable(f"{UNKNOWN_PARAMETERS}: the shapes of its parameters do not decide")
        return {name: shapes[name][0][0] if len(shapes[name][0]) == 3 else 1 for name in order}

    def _shape(self, layer: str, piece: str) -> tuple[int, ...]:
        """Return the shape of a tensor of a layer, () if it has none."""
        stored = self._layers[layer].get(piece)
        return () if stored is None else self._file.entries[stored].shape


def _stripped(layer: str) -> str:
    """Return the name of a layer without the wrappers of PEFT."""
    return layer.replace(NESTED, "")


def _owners(module: str, targets: list[str]) -> int:
    """Return the number of targets that are parameters of a module of that name."""
    return sum(
        bool(owner) and (module == owner or module.endswith(f".{owner}"))
        for owner, _, _ in (target.rpartition(".") for target in targets)
    )
