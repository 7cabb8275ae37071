"""Output layers whose weight is that of the embedding, which a checkpoint may hold under both names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from rankscope.checkpoints.kinds import EMBEDDING
from rankscope.checkpoints.pairs import Pair
from rankscope.checkpoints.source import Unreadable


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
