"""Output layers whose weight is that of the embedding, which a checkpoint may hold under both names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from rankscope.checkpoints.kinds import EMBEDDING
from rankscope.checkpoints.model_config import model_config
from rankscope.checkpoints.pairs import Pair
from rankscope.checkpoints.source import Unreadable

TOKENS = re.compile(r"(?:embed_tokens|wte|word_embeddings?|shared|tok_embeddings|embed_in|tokens_embed)")
"""Names of embeddings of tokens in the models of transformers."""


def tied_weights(pair: Pair, names: Iterable[str], partners: Mapping[str, str | None]) -> dict[str, str]:
    """Return those of `names` that equal an embedding both before and after learning, and the embedding.

    Parameters
    ----------
    partners
        Names after learning, by those before.
    """
    if pair.before is None:
        return {}
    entries = pair.before.entries
    embeddings = [name for name in entries if is_embedding(name) and len(entries[name].shape) == 2]
    return {
        name: embedding
        for name in names
        for embedding in embeddings
        if name != embedding and entries[name].shape == entries[embedding].shape and not is_embedding(name)
        if _equal(pair, name, embedding, partners)
    }


def tied_embeddings(pair: Pair, names: Iterable[str], ties: Mapping[str, str]) -> frozenset[str]:
    """Return those of `names` that are embeddings and the output layer, by `tied_weights` or the model's config.

    By the config, an embedding of tokens is tied whose output layer is not in the checkpoint.
    """
    known = [source for source in (pair.before, pair.after) if source is not None]
    configured = any(model_config(source).get("tie_word_embeddings") is True for source in known)
    by_config = (name for name in names if configured and is_embedding(name) and TOKENS.fullmatch(name.split(".")[-2]))
    return frozenset(name for name in (*ties.values(), *by_config) if name in names)


def is_embedding(name: str) -> bool:
    """Return whether a weight has the name of an embedding."""
    return name.endswith(".weight") and bool(EMBEDDING.fullmatch(name.removesuffix(".weight").rpartition(".")[2]))


def _equal(pair: Pair, name: str, embedding: str, partners: Mapping[str, str | None]) -> bool:
    first, second = partners.get(name), partners.get(embedding)
    if pair.before is None or first is None or second is None:
        return False
    if first not in pair.after.entries or second not in pair.after.entries:
        return False
    try:
        return all(
            torch.equal(source.tensor(a), source.tensor(b))
            for source, a, b in ((pair.before, name, embedding), (pair.after, first, second))
        )
    except (Unreadable, KeyError):
        return False
