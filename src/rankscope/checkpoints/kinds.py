"""Which tensors of a checkpoint are weight matrices, and their blocks: gates of an RNN, heads of attention.

A checkpoint has names and shapes only. `weight_ih` and `weight_hh` are torch's names for the stacked gates of RNN, LSTM
and GRU; `q_proj` and similar names are those of attention, with the heads stacked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch

from rankscope.checkpoints.dequantize import by
from rankscope.checkpoints.quantized_weights import FLOAT8
from rankscope.checkpoints.source import Entry

EMBEDDING = re.compile(r"(?:\w+_)?(?:embed(?:ding|dings|s)?(?:_(?!out)\w+)?|emb|wte|wpe|shared)", re.I)
"""Names of embeddings. A layer inside a module of such a name (`time_embedding.linear_1`) is a matrix."""

OUTPUT_LAYERS = ("lm_head", "embed_out", "output_projection")
"""Names of layers with one row for each word."""

ACTIVATIONS = re.compile(r"(?:input|output|activation|act|[kvq])_(?:global_)?scale(?:_inv|_ub)?|scale_(?:input|in|out)")
"""Last components of names of scales that activations are quantized with."""

SCALES = re.compile(r".*(?:scale|zero|absmax|scb|quant_map|codebook|centroid|shift|lut).*", re.I)
"""Last components of names that may belong to a quantization."""

QUERIES = ("q_proj", "query", "q_lin", "wq", "to_q", "q")
KEYS_VALUES = ("k_proj", "v_proj", "key", "value", "k_lin", "v_lin", "wk", "wv", "to_k", "to_v", "k", "v")
OUTPUTS = ("o_proj", "out_proj", "out_lin", "wo", "o")
FUSED = ("qkv", "qkv_proj", "wqkv")
UNKNOWN = ("c_attn", "query_key_value", "attn_qkv")
"""Fused projections whose rows are in a different order in each family of models."""


class Block(NamedTuple):
    """A block of a matrix: its name, its rows and its columns."""

    label: str
    rows: slice
    columns: slice


ALL = slice(None)


def why_not(name: str, entry: Entry, names: Mapping[str, Entry], named: bool = False) -> str | None:
    """Return the reason why a tensor is not measured as a matrix, or None if it is.

    Parameters
    ----------
    names
        All tensors of the checkpoint.
    named
        The user named this tensor, so that an embedding is a matrix too.
    """
    shape, dtype = entry
    if isinstance(dtype, str):
        return dtype
    if 0 in shape:
        return f"it is empty, {by(shape)}"
    if dtype.is_complex:
        return "of complex numbers"
    if not dtype.is_floating_point:
        return f"of type {_plain(dtype)}: counts, or codes of a quantization whose scale is not known"
    last = name.rsplit(".", 1)[-1]
    if last.endswith("bias") or (len(shape) < 2 and "bias" in last):
        return "a bias"
    if len(shape) < 2:
        return "of a normalization" if re.search(r"norm|\bln|bn\d*\b", name, re.I) else "a vector, not a matrix"
    if ACTIVATIONS.fullmatch(last):
        return "a scale of activations, not of weights"
    if dtype.itemsize == 1 and dtype not in FLOAT8:
        return f"of type {_plain(dtype)}: scales, or codes of a quantization that is not known"
    if SCALES.fullmatch(last) and _beside_codes(name, names):
        return "a scale of a quantization that is not known"
    if not named and EMBEDDING.fullmatch(name.removesuffix(".weight").rsplit(".", 1)[-1]):
        return "an embedding, a table of vectors; it is measured if it is named among the layers"
    return None


def _beside_codes(name: str, names: Mapping[str, Entry]) -> bool:
    """Return whether a tensor of the same layer may be codes: of whole numbers, or of float8 or unknown numbers."""
    layer = name.rpartition(".")[0]
    return any(
        isinstance(dtype, str) or not (dtype.is_floating_point or dtype == torch.bool) or dtype.itemsize == 1
        for other, (shape, dtype) in names.items()
        if len(shape) > 1 and other != name and other.rpartition(".")[0] == layer
    )


def experts(name: str, shape: tuple[int, ...]) -> int | None:
    """Return the number of matrices of a stack of experts, (experts, in, out); None for other tensors."""
    return shape[0] if len(shape) == 3 and "expert" in name else None


def vocabulary_rows(before: str, old: Mapping[str, Entry], after: str, new: Mapping[str, Entry]) -> int | None:
    """Return the rows before learning of a matrix with one row for each word, if words were added; None otherwise.

    Such a matrix is an embedding, or an output layer: one of a usual name, or with as many rows as an embedding.
    """
    (rows, *rest), (more, *others) = old[before].shape, new[after].shape
    if len(rest) != 1 or rest != others or not 0 < rows < more:
        return None
    last = before.removesuffix(".weight").rsplit(".", 1)[-1]
    if EMBEDDING.fullmatch(last) or last in OUTPUT_LAYERS:
        return rows
    sizes = [{entry.shape[0] for name, entry in names.items() if _is_table(name, entry)} for names in (old, new)]
    return rows if rows in sizes[0] and more in sizes[1] else None


def _is_table(name: str, entry: Entry) -> bool:
    return len(entry.shape) == 2 and EMBEDDING.fullmatch(name.removesuffix(".weight").rsplit(".", 1)[-1]) is not None


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (rows, columns); a convolution (out, in, k, k) is unfolded to (out, in k k)."""
    return shape[0], math.prod(shape[1:])


def heads(name: str, names: Mapping[str, Entry], count: int) -> list[Block]:
    """Return the blocks of attention weights that belong to each of `count` query heads; none for other weights.

    Keys and values may have fewer heads than queries, of the same size. For a fused projection the size of a head is
    that of the output projection beside it; without one, the projection must have the shape (3 n, n).

    Raises
    ------
    ValueError
        If the weights are those of attention, but cannot be divided into so many heads. The message is the reason.
    """
    shape = names[name].shape
    components = name.removesuffix("_weight").removesuffix(".weight").split(".")
    kind = components[-1].lower()
    if len(shape) != 2 or not name.endswith("weight"):
        return []
    if kind in UNKNOWN:
        raise ValueError(f"the order of queries, keys and values in {components[-1]} is not known")
    if kind in FUSED or name.endswith("in_proj_weight"):
        size, shared = _fused_heads(shape, _beside(components, names, OUTPUTS), count)
        labels = [f"{which}{head}" for which in "qkv" for head in range(count if which == "q" else shared)]
        return [Block(label, slice(i * size, (i + 1) * size), ALL) for i, label in enumerate(labels)]
    if kind in OUTPUTS:
        size = _head_size(shape[1], count)
        return [Block(f"head {h}", ALL, slice(h * size, (h + 1) * size)) for h in range(count)]
    if kind not in (*QUERIES, *KEYS_VALUES):
        return []
    query = _beside(components, names, QUERIES)
    size = _head_size(shape[0] if query is None else query[0], count)
    if shape[0] % size:
        raise ValueError(f"its {shape[0]} rows are no multiple of a head's {size}")
    return [Block(f"head {h}", slice(h * size, (h + 1) * size), ALL) for h in range(shape[0] // size)]


def _beside(components: list[str], names: Mapping[str, Entry], kinds: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the shape of the weight of one of `kinds` in the same module, or None."""
    wanted = {".".join([*components[:-1], kind, "weight"]).lower() for kind in kinds}
    return next((entry.shape for name, entry in names.items() if name.lower() in wanted), None)


def _fused_heads(shape: tuple[int, ...], output: tuple[int, ...] | None, count: int) -> tuple[int, int]:
    """Return the rows of a head, and the number of heads of keys, in a fused projection of `count` query heads."""
    if output is None and shape[0] != 3 * shape[1]:
        raise ValueError(f"its {shape[0]} rows are not three times its {shape[1]} columns, and no output is beside it")
    size = _head_size(shape[1] if output is None else output[1], count)
    shared, left = divmod(shape[0] - count * size, 2 * size)
    if left or shared < 1:
        raise ValueError(f"its {shape[0]} rows are not {count} heads of {size} rows with keys and values")
    return size, shared


def _head_size(size: int, count: int) -> int:
    if size % count:
        raise ValueError(f"{size} does not divide into {count} heads")
    return size // count


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
