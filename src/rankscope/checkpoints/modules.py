"""Kinds of modules that PEFT adapts, and the kind that each weight belongs to.

A LoRA adapter stores the factors of a weight in the layout of its module. PEFT sees the module when it loads the
adapter; a file of weights does not hold it, and transformers' `Conv1D` (GPT-2) stores the transpose of what `Linear`
stores. The kind follows from the first of these that is there: the module, if one is given; patterns of transposed
weights; the `model_type` in the `config.json` beside the file; the bias of a layer that is not square, whose length is
the number of outputs; names that libraries give to nothing but linear layers. A weight that is still undecided is
adapted as a parameter (PEFT's `target_parameters`): its factors have the layout of the stored tensor, and are right for
any module.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple

import torch
from torch import nn

from rankscope.checkpoints.kinds import EMBEDDING, experts
from rankscope.checkpoints.model_config import CONV1D_LAYERS, CONV1D_MODELS
from rankscope.checkpoints.source import Entry
from rankscope.errors import InputError


class Kind(Enum):
    """Layout of the factors of a weight in an adapter."""

    LINEAR = auto()
    TRANSPOSED = auto()  # transformers' Conv1D, (in, out)
    CONVOLUTION = auto()
    EMBEDDING = auto()
    TIED_EMBEDDING = auto()  # which is the output layer too
    PARAMETER = auto()  # any matrix, by `target_parameters`
    EXPERTS = auto()  # a stack (experts, out, in), by `target_parameters`
    EXPERTS_TRANSPOSED = auto()  # a stack (experts, in, out)
    NOT_IN_PEFT = auto()


class Storage(NamedTuple):
    """Kind of a weight, its place among the parameters of its module, and the reason if PEFT cannot hold it."""

    kind: Kind
    place: int = 0
    reason: str | None = None


LINEAR_LAYERS = re.compile(
    r"([qkvo]|out|qkv|gate|up|down|gate_up)_proj|(q|k|v|out|lin)_lin|lin[12]|query|key|value|dense|dense_h_to_4h|"
    r"dense_4h_to_h|query_key_value|fc[12]|lm_head|linear[12]|to_[qkv]|w[qkvo]|w[123]"
)
"""Names that libraries give to nothing but `Linear`."""

RECURRENT = re.compile(r"weight_(?P<which>ih|hh|hr)(?:_l(?P<layer>\d{1,6})(?P<reverse>_reverse)?)?")
"""Parameters of torch's RNN, LSTM and GRU, and of their cells."""

ATTENTION = "torch's MultiheadAttention uses its weights directly, so that adapters of PEFT do not reach them"
TIED = "the output layer too, which PEFT ties only to an embedding of the name embed_tokens"
ROOT = "PEFT cannot adapt a parameter of the outermost module; put the model into another module"


class Known(NamedTuple):
    """What is known of the modules of a model beside its tensors."""

    module: nn.Module | None = None
    tied: frozenset[str] = frozenset()  # embeddings that are the output layer too
    model_types: frozenset[str] = frozenset()  # in its config
    transposed: tuple[str, ...] = ()  # patterns of weights that are stored (in, out)


def storages(names: Sequence[str], entries: Mapping[str, Entry], known: Known) -> dict[str, Storage]:
    """Return how each of `names` is stored, by name; `compatible` makes one adapter of them.

    Parameters
    ----------
    entries
        All tensors of the checkpoint; shapes of biases tell the layout of layers that are not square.

    Raises
    ------
    InputError
        If a pattern of transposed weights fits none of `names`.
    """
    for pattern in known.transposed:
        if not fnmatch.filter(names, pattern):
            raise InputError(f"transposed must name weights that are extracted, got {pattern!r}, which fits none")
    if known.module is not None:
        modules = dict(known.module.named_modules())
        found = {name: _of_module(name, entries[name].shape, modules) for name in names}
    else:
        decided = _by_bias(entries)
        found = {name: _of_file(name, entries, names, known, decided) for name in names}
    for name in fnmatch_any(names, known.transposed):
        if len(entries[name].shape) == 2:
            found[name] = Storage(Kind.TRANSPOSED)
    for name in known.tied & found.keys():
        like_peft = name.endswith("embed_tokens.weight")
        found[name] = Storage(Kind.TIED_EMBEDDING) if like_peft else _not_in_peft(TIED)
    others = [name for name in entries if name not in found]
    for name, storage in found.items():
        if storage.kind is Kind.PARAMETER and any(other.endswith(f".{name}") for other in others):
            found[name] = _not_in_peft("PEFT would adapt another parameter too, whose name ends like this one")
    return found


def fnmatch_any(names: Collection[str], patterns: Collection[str]) -> list[str]:
    """Return the names that fit one of the patterns."""
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def compatible(found: Mapping[str, Storage]) -> dict[str, Storage]:
    """Return the storages, with transposed weights as parameters unless only embeddings and convolutions are beside.

    One option of an adapter, `fan_in_fan_out`, says that its linear layers are transposed; PEFT refuses it beside
    `target_parameters`.
    """
    kinds = {storage.kind for storage in found.values()}
    mixed = kinds & {Kind.LINEAR, Kind.PARAMETER, Kind.EXPERTS, Kind.EXPERTS_TRANSPOSED}
    return {
        name: Storage(Kind.PARAMETER) if mixed and storage.kind is Kind.TRANSPOSED else storage
        for name, storage in found.items()
    }


def _of_module(name: str, shape: tuple[int, ...], modules: Mapping[str, nn.Module]) -> Storage:
    """Return the storage of a weight whose model is known."""
    layer, _, parameter = name.rpartition(".")
    module = modules.get(layer)
    if module is None or not layer:
        return _not_in_peft(ROOT if not layer else "the module has no layer of this name")
    parent = modules.get(layer.rpartition(".")[0])
    if isinstance(module, nn.MultiheadAttention) or isinstance(parent, nn.MultiheadAttention):
        return _not_in_peft(ATTENTION)
    if parameter == "weight":
        if isinstance(module, nn.Linear):
            return Storage(Kind.LINEAR)
        if isinstance(module, nn.Embedding):
            return Storage(Kind.EMBEDDING)
        if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
            return Storage(Kind.TRANSPOSED)
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return _of_convolution(module)
    own = [key for key, _ in module.named_parameters(recurse=False)]
    place = own.index(parameter) if parameter in own else 0
    if len(shape) == 2:
        return Storage(Kind.PARAMETER, place)
    if experts(name, shape) is not None and shape[0] > 1:
        transposed = getattr(module, "is_transposed", False) is True
        return Storage(Kind.EXPERTS_TRANSPOSED if transposed else Kind.EXPERTS, place)
    return _not_in_peft(f"PEFT does not adapt a {type(module).__name__}")


def _of_convolution(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Storage:
    if module.groups > 1:
        return _not_in_peft(f"a convolution with {module.groups} groups, which PEFT cannot merge")
    if set(module.dilation) != {1}:
        return _not_in_peft("a dilated convolution, whose factors PEFT applies without the dilation")
    if module.padding_mode != "zeros":
        return _not_in_peft(f"a convolution padded by {module.padding_mode!r}, whose factors PEFT pads with zeros")
    return Storage(Kind.CONVOLUTION)


def _of_file(
    name: str, entries: Mapping[str, Entry], names: Sequence[str], known: Known, decided: Mapping[str, Kind]
) -> Storage:
    """Return the storage of a weight of which the file alone is known."""
    shape = entries[name].shape
    layer, _, parameter = name.rpartition(".")
    if not layer:
        return _not_in_peft(ROOT)
    if recurrent := RECURRENT.fullmatch(parameter):
        direction = 2 * int(recurrent["layer"] or 0) + bool(recurrent["reverse"])
        return Storage(Kind.PARAMETER, 3 * direction + ("ih", "hh", "hr").index(recurrent["which"]))
    parent = layer.rpartition(".")[0]
    if parameter.endswith("in_proj_weight") or f"{parent}.in_proj_weight" in entries:
        return _not_in_peft(ATTENTION)
    if experts(name, shape) is not None:
        return _of_experts(layer, parameter, entries)
    beside = [other for other in names if other.startswith(f"{layer}.") and "." not in other[len(layer) + 1 :]]
    if parameter != "weight":
        if len(shape) == 2 and len(beside) == 1:
            return Storage(Kind.PARAMETER)
        return _not_in_peft("the order of the parameters of its module is not known; pass the module in Python")
    bias = entries.get(f"{layer}.bias")
    if len(shape) > 2:
        if bias is not None and bias.shape != shape[:1]:
            return _not_in_peft("a transposed convolution, which PEFT does not adapt")
        if len(shape) > 5 or (shape[1] == 1 and shape[0] > 1):
            return _not_in_peft(
                "a convolution of one input channel, grouped or not: the file does not tell; pass the module in Python"
            )
        return Storage(Kind.CONVOLUTION)
    return Storage(_of_matrix(layer, known, decided))


def _of_matrix(layer: str, known: Known, decided: Mapping[str, Kind]) -> Kind:
    """Return the kind of a matrix called `weight`."""
    last = layer.rpartition(".")[2]
    if EMBEDDING.fullmatch(last):
        return Kind.EMBEDDING
    if known.transposed:  # names all of the transposed ones
        return Kind.LINEAR
    if known.model_types:
        return Kind.TRANSPOSED if known.model_types & CONV1D_MODELS and last in CONV1D_LAYERS else Kind.LINEAR
    if layer in decided:
        return decided[layer]
    alike = {kind for other, kind in decided.items() if other.rpartition(".")[2] == last}
    if len(alike) == 1 and not last.isdigit():
        return alike.pop()
    return Kind.LINEAR if LINEAR_LAYERS.fullmatch(last) else Kind.PARAMETER


def _by_bias(entries: Mapping[str, Entry]) -> dict[str, Kind]:
    """Return the kind of layers that are not square and have a bias, by the name of the layer."""
    found = {}
    for name, entry in entries.items():
        layer = name.removesuffix(".weight")
        bias = entries.get(f"{layer}.bias")
        if layer != name and bias is not None and len(entry.shape) == 2 and entry.shape[0] != entry.shape[1]:
            if bias.shape == entry.shape[:1]:
                found[layer] = Kind.LINEAR
            elif bias.shape == entry.shape[1:]:
                found[layer] = Kind.TRANSPOSED
    return found


def _of_experts(layer: str, parameter: str, entries: Mapping[str, Entry]) -> Storage:
    """Return the storage of a stack in one of the modules of transformers, whose two parameters tell the layout."""
    first, second = (entries.get(f"{layer}.{key}", Entry((), torch.float32)).shape for key in EXPERTS)
    if parameter in EXPERTS and len(first) == len(second) == 3 and first[0] > 1:
        place = EXPERTS.index(parameter)
        if first[2] == second[1] and first[1] == 2 * second[2]:
            return Storage(Kind.EXPERTS, place)
        if first[1] == second[2] and first[2] == 2 * second[1]:
            return Storage(Kind.EXPERTS_TRANSPOSED, place)
    return _not_in_peft("the layout of this stack of experts is not known; pass the module in Python")


EXPERTS = ("gate_up_proj", "down_proj")
"""Parameters of the experts of transformers, in their order in the module."""


def _not_in_peft(reason: str) -> Storage:
    return Storage(Kind.NOT_IN_PEFT, reason=reason)
