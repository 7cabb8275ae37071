"""Batches of sentences of similar length, packed: no time step is spent on padding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from rankscope.tasks.sentiment.data import Split
from rankscope.tasks.sentiment.task import similar_lengths as similar_lengths


class Batch(NamedTuple):
    """Sentences from the longest to the shortest, and their labels (batch,) as 0.0 and 1.0."""

    words: PackedSequence
    labels: Tensor


def pack(split: Split, indices: NDArray[np.int64]) -> Batch:
    """Return some of the sentences as a batch."""
    order = indices[np.argsort(-split.lengths[indices], kind="stable")]
    lengths = split.lengths[order]
    starts = (np.cumsum(split.lengths) - split.lengths)[order]
    step = np.arange(lengths[0])[:, None]
    there = step < lengths
    words = split.words[(starts + step)[there]]
    packed = PackedSequence(torch.from_numpy(words), torch.from_numpy(there.sum(1)))
    return Batch(packed, torch.from_numpy(split.labels[order]).float())


def in_order(split: Split, batch_size: int) -> list[Batch]:
    """Return all sentences in batches, the shortest first, the same each time."""
    order = np.argsort(split.lengths, kind="stable")
    return [pack(split, order[begin : begin + batch_size]) for begin in range(0, len(order), batch_size)]
