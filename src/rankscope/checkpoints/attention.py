"""Heads of attention as blocks of its weights: rows of queries, keys and values, columns of the output.

Numbers of heads are given, or those of the configuration of a transformers model, never guessed. The order of queries,
keys and values in a fused projection is that of the `forward` of the model's class in transformers:

    blocks    all queries, all keys, all values       most models: GPT-2, Phi-3, MPT, ModernBERT, timm, torch
    heads     query, key and value of each head       GPT-NeoX, BLOOM, Persimmon, the first Falcon
    groups    of each head of keys: its queries, the key, the value    Falcon 40B and later, InternLM2
    codegen   four blocks of queries, values, keys    CodeGen
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from rankscope.checkpoints.kinds import ALL, Block
from rankscope.checkpoints.model_config import CONV1D_MODELS, COUNTS, Config, model_config, positive, section_of
from rankscope.checkpoints.source import Entry, Source
from rankscope.errors import InputError
from rankscope.validation import integer

QUERIES = ("q_proj", "query", "query_proj", "q_lin", "wq", "to_q", "q", "q_b_proj")
KEYS_VALUES = (
    *("k_proj", "v_proj", "key", "value", "key_proj", "value_proj", "k_lin", "v_lin", "wk", "wv", "to_k", "to_v"),
    *("k", "v"),
)
OUTPUTS = ("o_proj", "out_proj", "out_lin", "wo", "to_out.0", "o")
OUTPUTS_OF_FUSED = (*OUTPUTS, "dense", "proj", "c_proj")
LATENT = "kv_b_proj"
"""Projection of multi-head latent attention (DeepSeek-V2): of each head, the key but for its rotary rows, the value."""

SURE = ("q_proj", "k_proj", "v_proj", "o_proj", "q_lin", "k_lin", "v_lin", "to_q", "to_k", "to_v")
"""Names that nothing but attention has, so that an adapter of one of them is known without the others."""

FUSED = ("qkv", "qkv_proj", "wqkv", "c_attn", "query_key_value", "attn_qkv", "to_qkv", "in_proj_weight")
PLAIN = ("qkv", "qkv_proj", "Wqkv", "in_proj_weight")
"""Fused projections that are in blocks where no configuration tells otherwise."""

LAYOUTS = {
    "bloom": "heads",
    "codegen": "codegen",
    "falcon": "falcon",
    "fuyu": "heads",
    "gpt_bigcode": "bigcode",
    "gpt_neox": "heads",
    "gpt_neox_japanese": "heads",
    "internlm2": "groups",
    "persimmon": "heads",
} | dict.fromkeys(("phi3", "phi4_multimodal", "mpt", "dbrx", "modernbert", "nomic_bert", *CONV1D_MODELS), "blocks")

SIZES = ("head_dim", "d_kv", "attention_head_size", "qk_head_dim", "v_head_dim")
WIDTHS = ("hidden_size", "embed_dim", "n_embd", "d_model", "dim")


class Heads(NamedTuple):
    """Heads of the attention that a weight belongs to.

    `number` is that of queries, `shared` that of keys and values; `sizes` are the sizes of a head that the
    configuration allows, empty if there is none.
    """

    number: int
    shared: int | None
    sizes: frozenset[int]
    model: str
    config: Config


class HeadOptions(NamedTuple):
    """Options of `compare`: numbers of heads, or "auto" for those of the configuration."""

    heads: int | Literal["auto"]
    kv_heads: int | None
    config: Config

    def of(self, name: str) -> Heads:
        """Return the heads of the attention that a weight belongs to; raise `ValueError` if they are not known."""
        section = section_of(self.config, name)
        if section is None:
            if self.heads == "auto":
                raise ValueError("the model's config.json has several sections, and its name tells none; give heads")
            return Heads(self.heads, self.kv_heads, frozenset(), "", {})
        which = next((end for end in ("decoder", "encoder") if end in name.split(".")), "encoder")
        known = positive(section, f"{which}_attention_heads", *COUNTS)
        if self.heads == "auto":
            if known is None:
                raise ValueError("the model's config.json has no number of heads for it; give heads")
            return Heads(
                known,
                self.kv_heads or _shared(section) or known,
                _sizes(section, known),
                str(section.get("model_type", "")),
                section,
            )
        if known is not None and known != self.heads:
            raise ValueError(f"the model's config.json has {known} heads for it, not {self.heads}")
        given = self.kv_heads or _shared(section) or known
        sizes = frozenset[int]() if known is None else _sizes(section, known)
        return Heads(self.heads, given, sizes, str(section.get("model_type", "")), section)


def head_options(
    heads: int | Literal["auto"] | None, kv_heads: int | None, sources: Iterable[Source | None]
) -> HeadOptions | None:
    """Return the options of `compare`, with the configuration of the first of several checkpoints that has one.

    Raises
    ------
    InputError
        If a number is below 1, or "auto" is given and no checkpoint has a configuration.
    """
    if kv_heads is not None:
        integer("kv_heads", kv_heads, minimum=1)
        if heads is None:
            raise InputError("kv_heads needs heads, the number of heads of queries or 'auto', got None")
    if heads is None:
        return None
    config = next(filter(None, (model_config(source) for source in sources if source)), {})
    if heads != "auto":
        integer("heads", heads, minimum=1)
    elif not config:
        raise InputError("heads must be a number where no config.json is beside before or after, got 'auto'")
    return HeadOptions(heads, kv_heads, config)


def _shared(config: Config) -> int | None:
    """Return the number of heads of keys and values in a configuration."""
    if config.get("multi_query") is True and config.get("new_decoder_architecture") is not True:
        return 1
    inner = config.get("attn_config")
    found = positive(config, "num_key_value_heads", "num_kv_heads", "n_head_kv")
    return found or (positive(inner, "kv_n_heads") if isinstance(inner, dict) else None)


def _sizes(config: Config, count: int) -> frozenset[int]:
    sizes = {value for key in SIZES if (value := positive(config, key))}
    nope, rope = positive(config, "qk_nope_head_dim"), positive(config, "qk_rope_head_dim")
    if nope and rope:
        return frozenset(sizes | {nope + rope})
    if "head_dim" in config and sizes:
        return frozenset(sizes)
    widths = (positive(config, key) for key in WIDTHS)
    return frozenset(sizes | {width // count for width in widths if width and not width % count})


def heads_of(name: str, names: Mapping[str, Entry], options: HeadOptions) -> list[Block]:
    """Return the blocks of an attention weight that belong to each head; none for other weights.

    Raises
    ------
    ValueError
        If the weight is that of attention, but cannot be divided. The message is the reason.
    """
    shape = names[name].shape
    if len(shape) != 2 or not name.endswith("weight"):
        return []
    layer = _Layer(name, names)
    kind = layer.kind.lower()
    if kind in FUSED:
        return _fused(layer, options)
    fused = layer.beside(FUSED) is not None
    if kind in OUTPUTS_OF_FUSED and fused:
        heads = options.of(name)
        transposed = heads.model in CONV1D_MODELS
        return _output(heads, shape[0] if transposed else shape[1], transposed)
    if (kind in OUTPUTS and (kind in SURE or layer.beside(QUERIES))) or layer.is_bert_output():
        return _output(options.of(name), shape[1])
    if kind == LATENT:
        return _latent(options.of(name), shape[0])
    related = (*KEYS_VALUES, LATENT) if kind in QUERIES else QUERIES
    if kind not in (*QUERIES, *KEYS_VALUES) or not (kind in SURE or layer.beside(related)):
        return []
    heads = options.of(name)
    if kind in QUERIES:
        size = _size(heads, shape[0], heads.number)
        return [Block(f"head {h}", slice(h * size, (h + 1) * size), ALL) for h in range(heads.number)]
    count = _keys(layer, heads, shape[0])
    size = _size(heads, shape[0], count)
    return [Block(f"head {h}", slice(h * size, (h + 1) * size), ALL) for h in range(count)]


def is_head(block: str | None) -> bool:
    """Return whether the label of a block is that of a head, not that of a gate."""
    return block is not None and re.fullmatch(r"head \d+|[qkv]\d+", block) is not None


class _Layer:
    """A weight and the other weights of its module."""

    def __init__(self, name: str, names: Mapping[str, Entry]) -> None:
        self.name, self.shape, self._names = name, names[name].shape, names
        path = name.removesuffix(".weight")
        if path.endswith("to_out.0"):
            self.module, self.kind = path.removesuffix("to_out.0"), "to_out.0"
        else:
            self.module, self.kind = path[: path.rfind(".") + 1], path.rpartition(".")[2]

    def beside(self, kinds: tuple[str, ...]) -> tuple[int, ...] | None:
        """Return the shape of the weight of one of `kinds` in the same module, or None."""
        for kind in kinds:
            for spelled in {kind, kind.capitalize()}:
                for end in (".weight", ""):
                    if (entry := self._names.get(f"{self.module}{spelled}{end}")) is not None and entry.shape:
                        return entry.shape
        return None

    def is_bert_output(self) -> bool:
        """Return whether this is the output of attention in BERT's naming: `attention.output.dense`."""
        stem = self.name.removesuffix("output.dense.weight")
        queries = (f"{stem}{inner}.query.weight" for inner in ("self", "attention"))
        return stem != self.name and any(query in self._names for query in queries)


def _size(heads: Heads, rows: int, count: int) -> int:
    """Return the rows of a head."""
    size, left = divmod(rows, count)
    if left:
        raise ValueError(f"{rows} does not divide into {count} heads")
    if heads.sizes and size not in heads.sizes:
        expected = " or ".join(map(str, sorted(heads.sizes)))
        raise ValueError(f"{rows} are {count} heads of {size}, but the model's config.json has {expected}")
    return size


def _keys(layer: _Layer, heads: Heads, rows: int) -> int:
    """Return the number of heads of keys in a weight with that many rows."""
    query = layer.beside(QUERIES)
    if heads.shared is not None and heads.sizes:
        return heads.shared
    if heads.shared is None and query is None:
        raise ValueError("its number of heads is not known without the queries; give kv_heads")
    if query is None or len(query) != 2:
        return heads.shared or heads.number
    size = _size(heads, query[0], heads.number)
    if rows % size or (heads.shared is not None and rows != heads.shared * size):
        raise ValueError(f"its {rows} rows are not {heads.shared or 'a whole number of'} heads of {size}")
    return rows // size


def _output(heads: Heads, size: int, transposed: bool = False) -> list[Block]:
    size = _size(heads, size, heads.number)
    slices = [slice(h * size, (h + 1) * size) for h in range(heads.number)]
    return [Block(f"head {h}", *((s, ALL) if transposed else (ALL, s))) for h, s in enumerate(slices)]


def _latent(heads: Heads, rows: int) -> list[Block]:
    """Return the blocks of keys and values of multi-head latent attention."""
    key, value = positive(heads.config, "qk_nope_head_dim"), positive(heads.config, "v_head_dim")
    if key is None or value is None or rows != heads.number * (key + value):
        raise ValueError("the sizes of its keys and values are not known; put config.json beside the file")
    starts = range(0, rows, key + value)
    return [
        *(Block(f"k{h}", slice(start, start + key), ALL) for h, start in enumerate(starts)),
        *(Block(f"v{h}", slice(start + key, start + key + value), ALL) for h, start in enumerate(starts)),
    ]


def _fused(layer: _Layer, options: HeadOptions) -> list[Block]:
    """Return the blocks of a projection to queries, keys and values."""
    heads = options.of(layer.name)
    transposed = heads.model in CONV1D_MODELS
    total, width = layer.shape[::-1] if transposed else layer.shape
    layout = _layout(layer, heads)
    if transposed and total == 2 * width:  # keys and values alone, of cross-attention in GPT-2
        size = _size(heads, width, heads.number)
        labels = [f"{which}{h}" for which in "kv" for h in range(heads.number)]
        starts = {label: place * size for place, label in enumerate(labels)}
    else:
        size, shared = _fused_sizes(layer, heads, total, width)
        starts = _starts(layout, heads.number, shared, size)
    slices = {label: slice(start, start + size) for label, start in starts.items()}
    return [Block(label, *((ALL, s) if transposed else (s, ALL))) for label, s in slices.items()]


def _layout(layer: _Layer, heads: Heads) -> str:
    layout = LAYOUTS.get(heads.model)
    if layout is None:
        # CodeGen has a qkv_proj in another order, beside an out_proj.
        if layer.kind not in PLAIN or (layer.kind == "qkv_proj" and layer.beside(("out_proj",))):
            raise ValueError(
                f"the order of queries, keys and values in {layer.kind} is not known; with a model_type that is known, "
                f"in a config.json beside the file, it is (here {heads.model or 'none'})"
            )
        return "blocks"
    if layout == "falcon":
        if heads.config.get("new_decoder_architecture") is True:
            return "groups"
        return "blocks" if heads.config.get("multi_query") is True else "heads"
    if layout == "bigcode":
        return "blocks" if heads.config.get("multi_query") is not False else "heads"
    return layout


def _fused_sizes(layer: _Layer, heads: Heads, total: int, width: int) -> tuple[int, int]:
    """Return the rows of a head, and the number of heads of keys, in a fused projection."""
    count, shared = heads.number, heads.shared
    if shared is not None:
        size = _size(heads, total, count + 2 * shared)
        output = layer.beside(OUTPUTS)
        if output is not None and len(output) == 2 and output[1] != count * size:
            raise ValueError(f"its {total} rows are not {count} and twice {shared} heads of {output[1] // count}")
        return size, shared
    output = layer.beside(OUTPUTS_OF_FUSED)
    if output is None and total != 3 * width:
        raise ValueError(f"its {total} rows are not three times its {width} columns, and no output is beside it")
    size = _size(heads, width if output is None else output[1], count)
    shared, left = divmod(total - count * size, 2 * size)
    if left or shared < 1:
        raise ValueError(f"its {total} rows are not {count} heads of {size} rows with keys and values")
    return size, shared


def _starts(layout: str, count: int, shared: int, size: int) -> dict[str, int]:
    """Return the first row of each head of queries, keys and values, by its label."""
    kinds = [("q", count), ("k", shared), ("v", shared)]
    each = count // shared
    if layout in ("heads", "groups", "codegen") and (count % shared or (layout != "groups" and each != 1)):
        raise ValueError(f"{count} heads of queries and {shared} of keys do not fit the order of the model")
    if layout == "codegen" and count % 4:
        raise ValueError(f"{count} heads are not four equal blocks, as in CodeGen")

    def place(which: str, head: int) -> int:
        if layout == "codegen":
            block, inner = divmod(head, count // 4)
            return (3 * block + "qvk".index(which)) * (count // 4) + inner
        if layout in ("heads", "groups"):
            group, inner = divmod(head, each) if which == "q" else (head, each + "kv".index(which))
            return group * (each + 2) + inner
        return {"q": 0, "k": count, "v": count + shared}[which] + head

    return {f"{which}{head}": place(which, head) * size for which, heads in kinds for head in range(heads)}
