"""Which tensors of a checkpoint are weight matrices, from names, shapes and types alone."""

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

TABLES = re.compile(r"(?:\w+_)?tokens?|rel_pos_[hw]|relative_(?:attention|position)_bias(?:_table)?", re.I)
"""Names of other tables of vectors: learned tokens, and biases for each distance of two positions."""

ELEMENTWISE = ("A_log", "log_scale", "translate")
"""Names of tables whose entries act one by one: the rates of decay of Mamba, the affine flow of VITS."""

STACKS = re.compile(r"expert|(?:^|[._])moe(?:[._]|$)|(?:^|\.)(?:input|output)_linear\.weight$")
"""Names of stacks of the matrices of experts; the last ones are those of GraniteMoE and JetMoE."""

STACKED_ROWS = re.compile(r".*\bexperts\.mlp\.(?:w1|v1|w2)")
"""Names of DBRX, whose experts are stacked along the rows of one matrix."""

OUTPUT_LAYERS = ("lm_head", "embed_out", "output_projection")
"""Names of layers with one row for each word."""

ACTIVATIONS = re.compile(r"(?:input|output|activation|act|[kvq])_(?:global_)?scale(?:_inv|_ub)?|scale_(?:input|in|out)")
"""Last components of names of scales that activations are quantized with."""

SCALES = re.compile(r".*(?:scale|zero|absmax|scb|quant_map|codebook|centroid|shift|lut).*", re.I)
"""Last components of names that may belong to a quantization."""


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
    if len(shape) > 2 and sum(size > 1 for size in shape) < 2 and "weight" not in last:
        return f"a vector, not a matrix, of the shape {by(shape)}"
    if len(shape) < 2:
        return "of a normalization" if re.search(r"norm|\bln|bn\d*\b", name, re.I) else "a vector, not a matrix"
    if ACTIVATIONS.fullmatch(last):
        return "a scale of activations, not of weights"
    if dtype.itemsize == 1 and dtype not in FLOAT8:
        return f"of type {_plain(dtype)}: scales, or codes of a quantization that is not known"
    if SCALES.fullmatch(last) and _beside_codes(name, names):
        return "a scale of a quantization that is not known"
    if last in ELEMENTWISE:
        return "a table whose entries act one by one, not a matrix"
    if STACKED_ROWS.fullmatch(name):
        return "matrices of several experts in one; pass a state dict with a matrix for each expert"
    if not named and is_table(name, shape):
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
    return shape[0] if len(shape) == 3 and STACKS.search(name) else None


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
    sizes = [{entry.shape[0] for name, entry in names.items() if is_table(name, entry.shape)} for names in (old, new)]
    return rows if rows in sizes[0] and more in sizes[1] else None


def is_table(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is an embedding or another table of vectors.

    A `weight` of more than two dimensions is that of a convolution, such as the `patch_embedding` of CLIP.
    """
    layer = name.removesuffix(".weight")
    last = layer.rsplit(".", 1)[-1]
    if layer != name and len(shape) > 2:
        return False
    return EMBEDDING.fullmatch(last) is not None or TABLES.fullmatch(last) is not None


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (rows, columns); a convolution (out, in, k, k) is unfolded to (out, in k k)."""
    return shape[0], math.prod(shape[1:])


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
