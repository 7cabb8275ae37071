"""A classifier of sentences: word vectors, recurrent layers (tanh, GRU, LSTM), a linear readout of the last state.

    h_t^1 = cell(x_t, h_{t-1}^1),  h_t^2 = cell(dropout(h_t^1), h_{t-1}^2), ...,  z = w . dropout(h_T^last) + b

x_t is the vector of word t, where asked for with dropout of its own, and z > 0 means positive. The layers are torch's,
with torch's names for their weights, the gates stacked: ``weight_hh_l0`` is (gates N, N).

Initialization: uniform within 1/sqrt(N), but the input weights of the first layer within 1/sqrt(size of the vectors).
Source: paper section 4, `sentiment`.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from rankscope.errors import InputError
from rankscope.networks.gated import LAYERS as CELLS
from rankscope.networks.gates import GATES as LAYER_GATES
from rankscope.validation import RngLike, choice, generator, integer, number

GATES = {kind: tuple(gate.name for gate in gates) for kind, gates in LAYER_GATES.items()}


class TextClassifier(nn.Module):
    """Word vectors, recurrent layers and a readout.

    Parameters
    ----------
    vectors
        (vocabulary, size) of the words.
    hidden_size
        N, of each layer.
    cell
        "rnn", "gru" or "lstm".
    layers
        How many.
    dropout
        The probability with which each unit is dropped, between layers and before the readout, in training.
    vector_dropout
        The same for the numbers of the word vectors, before the first layer.
    train_vectors
        Whether the word vectors learn, too.
    rng
        Seed or Generator for the initial weights.

    Raises
    ------
    InputError
        For anything out of range.
    """

    def __init__(
        self,
        vectors: NDArray[np.float32],
        hidden_size: int = 256,
        cell: str = "lstm",
        layers: int = 2,
        dropout: float = 0.5,
        vector_dropout: float = 0.0,
        train_vectors: bool = False,
        rng: RngLike = None,
    ) -> None:
        super().__init__()
        if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
            raise InputError(f"vectors must be finite numbers (vocabulary, size), got shape {vectors.shape}")
        self.cell = choice("cell", cell, CELLS)
        self.hidden_size = integer("hidden_size", hidden_size, minimum=1)
        count = integer("layers", layers, minimum=1)
        self.vectors = nn.Parameter(torch.tensor(vectors, dtype=torch.float32), requires_grad=bool(train_vectors))
        self.dropout = nn.Dropout(number("dropout", dropout, minimum=0, below=1))
        self.vector_dropout = nn.Dropout(number("vector_dropout", vector_dropout, minimum=0, below=1))
        # torch initializes by itself, from its global generator, which is left as it was.
        with torch.random.fork_rng(devices=[]):
            self.layers = CELLS[cell](vectors.shape[1], self.hidden_size, count, dropout=dropout if count > 1 else 0.0)
            self.readout = nn.Linear(self.hidden_size, 1)
        self._draw(generator(rng))

    @torch.no_grad()
    def _draw(self, rng: np.random.Generator) -> None:
        for name, weights in (*self.layers.named_parameters(), *self.readout.named_parameters()):
            fan_in = self.vectors.shape[1] if name == "weight_ih_l0" else self.hidden_size
            bound = 1 / math.sqrt(fan_in)
            weights.copy_(torch.from_numpy(rng.uniform(-bound, bound, tuple(weights.shape))))

    @property
    def gates(self) -> tuple[str, ...]:
        """The names of the gates, in the order in which the weights stack them."""
        return GATES[self.cell]

    def inner_weights(self) -> dict[str, nn.Parameter]:
        """Return the weights among the hidden units, by torch's names: of each layer to itself, and to the next.

        Each is (gates N, N). The input weights of the first layer and the biases are not among them.
        """
        named = dict(self.layers.named_parameters())
        return {name: named[name] for name in sorted(named) if name.startswith("weight_") and name != "weight_ih_l0"}

    def forward(self, words: PackedSequence) -> Tensor:
        """Return z (batch,) of sentences, given as packed rows of the vectors."""
        last = self._last_lstm_state(words) if self.cell == "lstm" else self._last_state(words)
        outputs = cast(Tensor, self.readout(self.dropout(last))).squeeze(1)
        return outputs if words.unsorted_indices is None else outputs[words.unsorted_indices]

    def _last_state(self, words: PackedSequence) -> Tensor:
        """Return the last state (batch, N) of the last layer, longest sentence first."""
        _, states = self.layers(PackedSequence(self._seen(words.data), words.batch_sizes))
        return cast(Tensor, states[-1])

    def _last_lstm_state(self, words: PackedSequence) -> Tensor:
        """Return the same, of an LSTM: torch's fast kernel for that takes sentences of one length only."""
        rows, lengths = pad_packed_sequence(PackedSequence(words.data, words.batch_sizes))
        found, counts = torch.unique_consecutive(lengths, return_counts=True)
        groups = zip(found.tolist(), torch.split(rows, counts.tolist(), dim=1), strict=True)
        return torch.cat([self.layers(self._seen(group[:length]))[1][0][-1] for length, group in groups])

    def _seen(self, words: Tensor) -> Tensor:
        return cast(Tensor, self.vector_dropout(nn.functional.embedding(words, self.vectors)))
