"""GatedRNN: torch's plain RNN, GRU or LSTM with a linear readout.

    h_t^1 = cell(x_t, h_{t-1}^1),  h_t^2 = cell(dropout(h_t^1), h_{t-1}^2), ...,  z_t = W_out dropout(h_t^last) + b_out

from initial states of zero. x_t is the input of step t or, with an embedding, the vector of word t. One step of a task
is one step of the network; there is no time constant. Weights have torch's names, with the gates stacked in the order
of `gates.py`: ``rnn.weight_hh_l0`` is (gates N, N).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from rankscope.errors import InputError
from rankscope.networks.dropout import Dropout
from rankscope.networks.gated_layer import LayerWeights, gated_layer
from rankscope.networks.gated_states import gated_jacobian, gated_step, torch_state
from rankscope.networks.gates import GATES, Gate
from rankscope.networks.network_file import SavedNetwork, saved_as
from rankscope.networks.protocol import channels_of, parametrizations_applied
from rankscope.tasks.trials import Task
from rankscope.validation import RngLike, choice, generator, integer, number

LAYERS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
READOUTS = ("every", "last")


@saved_as("GatedRNN")
class GatedRNN(SavedNetwork):
    """Recurrent layers of torch with a linear readout.

    Parameters
    ----------
    input_size, output_size
        Numbers of channels. With an embedding there is one input channel, the index of the word.
    kind
        "gru", "lstm" or "rnn" (tanh).
    hidden_size
        N, of each layer.
    num_layers
        Number of layers.
    gain
        g: the recurrent weights of each gate are drawn from a normal distribution of standard deviation g / sqrt(N),
        as in a rate network. None draws them like the other weights, uniformly within 1 / sqrt(N), as torch does.
    rng
        Seed or Generator for the initial weights.
    dtype
        torch.float32 or torch.float64. The draws are the same for both.
    dropout
        Probability of dropping a unit in training, between layers and before the readout.
    embedding
        (vocabulary, size): the vectors of words. The input weights of the first layer are then drawn within
        1 / sqrt(size) (Schuessler et al. 2020, supplement on sentiment analysis).
    train_embedding
        Whether the embedding is trained.
    input_dropout
        Probability of dropping an input of the first layer in training.
    readout
        "every" reads the state after every step, "last" the state after the last one.

    Raises
    ------
    InputError
        For any argument out of range.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        kind: str = "gru",
        hidden_size: int = 128,
        num_layers: int = 1,
        gain: float | None = None,
        rng: RngLike = None,
        dtype: torch.dtype = torch.float32,
        *,
        dropout: float = 0.0,
        embedding: ArrayLike | Tensor | None = None,
        train_embedding: bool = False,
        input_dropout: float = 0.0,
        readout: str = "every",
    ) -> None:
        super().__init__()
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype must be torch.float32 or torch.float64, got {dtype!r}")
        self.kind = choice("kind", kind, GATES)
        self.input_size = integer("input_size", input_size, minimum=1)
        outputs = integer("output_size", output_size, minimum=1)
        self.hidden_size = integer("hidden_size", hidden_size, minimum=1)
        count = integer("num_layers", num_layers, minimum=1)
        spread = None if gain is None else number("gain", gain, minimum=0) / math.sqrt(self.hidden_size)
        self.readout_steps = choice("readout", readout, READOUTS)
        self.dropout = Dropout(number("dropout", dropout, minimum=0, below=1))
        self.input_dropout = Dropout(number("input_dropout", input_dropout, minimum=0, below=1))
        vectors = None if embedding is None else _vectors(embedding, self.input_size, dtype)
        self.embedding = None if vectors is None else nn.Parameter(vectors, requires_grad=bool(train_embedding))
        features = self.input_size if vectors is None else vectors.shape[1]
        # torch's constructors draw from its global generator, whose state is restored.
        with torch.random.fork_rng(devices=[]):
            between = self.dropout.p if count > 1 else 0.0
            self.rnn = LAYERS[kind](features, self.hidden_size, count, dropout=between, dtype=dtype)
            self.readout = nn.Linear(self.hidden_size, outputs, dtype=dtype)
        self._draw(generator(rng), spread)

    @classmethod
    def initialize(
        cls,
        task: Task,
        kind: str = "gru",
        hidden_size: int = 128,
        num_layers: int = 1,
        rng: RngLike = None,
        **options: Any,
    ) -> GatedRNN:
        """Draw an untrained network for `task`.

        Parameters
        ----------
        task
            Anything with `sample(batch_size, rng) -> Trials`; it determines the numbers of channels. Its attributes
            `embedding` and `readout`, if it has them, are the defaults of these options.
        kind, hidden_size, num_layers, rng, options
            As in the constructor.

        Raises
        ------
        InputError
            For any argument out of range.
        """
        for option in options:
            choice("option", option, GATED_OPTIONS)
        for name in ("embedding", "readout"):
            if name not in options and getattr(task, name, None) is not None:
                options[name] = getattr(task, name)
        return cls(*channels_of(task), kind, hidden_size, num_layers, rng=rng, **options)

    def forward(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        *,
        initial_state: Tensor | None = None,
        return_states: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Run the network.

        Parameters
        ----------
        inputs
            (batch, time, in); with an embedding, (batch, time, 1) indices of words.
        lengths
            (batch,) numbers of steps, for sequences padded to one length. None means that all have the full length.
        initial_state
            State to start from, (S,) or (batch, S), as in `step`; zero by default.
        return_states
            Also return the states of the last layer, where the readout is "every".

        Returns
        -------
        outputs
            (batch, time, out), of which the steps beyond the lengths are meaningless; or (batch, 1, out) where the
            readout is "last".
        states
            (batch, time, N), if `return_states`.

        Raises
        ------
        InputError
            If `inputs`, `lengths` or `initial_state` have the wrong shape or range.
        """
        given = self._checked(inputs)
        batch, steps = given.shape[:2]
        last = self.readout_steps == "last"
        if last and (initial_state is not None or return_states):
            raise InputError("readout must be 'every' to start from a state or return states, got 'last'")
        start = None if initial_state is None else torch_state(self, initial_state, batch)
        # Only the last state depends on the lengths.
        if lengths is None or not last:
            rows, sizes = given.transpose(0, 1).flatten(0, 1), [batch] * steps
        else:
            order = torch.argsort(_checked_lengths(lengths, inputs), descending=True, stable=True)
            rows, packed_sizes, _, _ = pack_padded_sequence(given[order], lengths[order], batch_first=True)
            sizes = packed_sizes.tolist()
        states = self._states(self._features(rows), sizes, start)
        if not last:
            every = states.view(steps, batch, -1).transpose(0, 1)
            outputs = cast(Tensor, self.readout(self.dropout(every)))
            return (outputs, every) if return_states else outputs
        if lengths is None:
            ends = states[-batch:]
        else:
            starts = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)
            ends = states[starts[lengths - 1] + torch.argsort(order)]
        return cast(Tensor, self.readout(self.dropout(ends)))[:, None]

    def step(self, state: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return the state after one step, without dropout.

        Parameters
        ----------
        state
            (S,) or (batch, S): the states h of all layers, one after the other, and for an LSTM then their cells c.
        inputs
            (in,) or (batch, in); with an embedding, indices of words. None is an input of zero.

        Raises
        ------
        InputError
            If a shape is wrong.
        """
        return gated_step(self, state, inputs)

    def jacobian(self, state: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return the derivatives of `step` with respect to the state, (S, S) or (batch, S, S), by autograd.

        Parameters
        ----------
        state, inputs
            As in `step`.
        """
        return gated_jacobian(self, state, inputs)

    @property
    def gates(self) -> tuple[Gate, ...]:
        """Gates of each layer, in the order in which the weights stack them."""
        return GATES[self.kind]

    def recurrent_names(self) -> tuple[str, ...]:
        """Return the names of the recurrent weights, the first layer's first."""
        return tuple(f"rnn.weight_hh_l{layer}" for layer in range(self.rnn.num_layers))

    def inner_names(self) -> tuple[str, ...]:
        """Return the names of all weights among hidden units: within each layer, then from each layer to the next."""
        between = tuple(f"rnn.weight_ih_l{layer}" for layer in range(1, self.rnn.num_layers))
        return self.recurrent_names() + between

    def architecture(self) -> dict[str, Any]:
        """Return the constructor's options as plain values, without the weights."""
        described: dict[str, Any] = {
            "input_size": self.input_size,
            "output_size": self.readout.out_features,
            "kind": self.kind,
            "hidden_size": self.hidden_size,
            "num_layers": self.rnn.num_layers,
            "dropout": self.dropout.p,
            "input_dropout": self.input_dropout.p,
            "readout": self.readout_steps,
        }
        if self.embedding is not None:
            described["train_embedding"] = self.embedding.requires_grad
        return described

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], architecture: dict[str, Any]) -> GatedRNN:
        """Return the network with these weights."""
        for option in architecture:
            choice("the architecture", option, _ARCHITECTURE)
        dtype = tensors["readout.weight"].dtype
        network = cls(**architecture, rng=0, dtype=dtype, embedding=tensors.get("embedding"))
        network.load_state_dict(tensors)
        return network

    def _checked(self, inputs: Tensor) -> Tensor:
        """Return inputs in the type of the weights, or, with an embedding, the indices (batch, time)."""
        size = self.input_size
        if not isinstance(inputs, Tensor) or inputs.ndim != 3 or inputs.shape[2] != size or 0 in inputs.shape:
            got = f"shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
            raise InputError(f"inputs must be a non-empty tensor (batch, time, {size}), got {got}")
        if self.embedding is None:
            return inputs.to(self.readout.weight)
        words = inputs[..., 0].long()
        least, most = torch.aminmax(words)
        if least < 0 or most >= len(self.embedding) or not torch.equal(words.to(inputs.dtype), inputs[..., 0]):
            raise InputError(
                f"inputs must be whole numbers from 0 to {len(self.embedding) - 1}, the rows of the embedding, got "
                f"values from {inputs.min():g} to {inputs.max():g}"
            )
        return words

    def _features(self, rows: Tensor) -> Tensor:
        """Return what the first layer receives: vectors of words or channels, after dropout."""
        found = rows if self.embedding is None else nn.functional.embedding(rows, self.embedding)
        return cast(Tensor, self.input_dropout(found))

    def _states(self, x: Tensor, sizes: list[int], start: Any) -> Tensor:
        """Return the states of the last layer, packed like the features x (rows, in); see `gated_layer`."""
        if x.device.type != "cpu":
            with parametrizations_applied(self.rnn):
                return cast(Tensor, self.rnn(PackedSequence(x, torch.tensor(sizes)), start)[0].data)
        starts = start if self.kind == "lstm" and start is not None else (start, None)
        for layer in range(self.rnn.num_layers):
            weights = LayerWeights(*(getattr(self.rnn, f"{name}_l{layer}") for name in LayerWeights._fields))
            h, c = (None if state is None else state[layer] for state in starts)
            x = gated_layer(self.kind, x if layer == 0 else self.dropout(x), weights, sizes, h, c)
        return x

    @torch.no_grad()
    def _draw(self, rng: np.random.Generator, spread: float | None) -> None:
        """Draw all weights in the order of their names in the layers, then those of the readout."""
        for name, weights in (*self.rnn.named_parameters(), *self.readout.named_parameters()):
            from_vectors = self.embedding is not None and name == "weight_ih_l0"
            bound = 1 / math.sqrt(self.rnn.input_size if from_vectors else self.hidden_size)
            shape = tuple(weights.shape)
            if spread is not None and name.startswith("weight_hh"):
                drawn = rng.normal(0, spread, shape)
            else:
                drawn = rng.uniform(-bound, bound, shape)
            weights.copy_(torch.from_numpy(drawn))


def _vectors(embedding: ArrayLike | Tensor, input_size: int, dtype: torch.dtype) -> Tensor:
    vectors = torch.as_tensor(embedding).detach()
    if vectors.ndim != 2 or 0 in vectors.shape or not bool(torch.isfinite(vectors).all()):
        raise InputError(f"embedding must hold finite numbers (vocabulary, size), got shape {tuple(vectors.shape)}")
    if input_size != 1:
        raise InputError(f"input_size must be 1 with an embedding (the index of the word), got {input_size}")
    return vectors.to(dtype, copy=True)


def _checked_lengths(lengths: Tensor, inputs: Tensor) -> Tensor:
    batch, steps = inputs.shape[:2]
    if not isinstance(lengths, Tensor) or tuple(lengths.shape) != (batch,) or lengths.is_floating_point():
        got = f"{lengths.dtype} {tuple(lengths.shape)}" if isinstance(lengths, Tensor) else type(lengths).__name__
        raise InputError(f"lengths must be a tensor of {batch} whole numbers, got {got}")
    if int(lengths.min()) < 1 or int(lengths.max()) > steps:
        raise InputError(
            f"lengths must be from 1 to {steps}, the steps of the inputs, got {int(lengths.min())} to "
            f"{int(lengths.max())}"
        )
    return lengths.cpu()


_PARAMETERS = tuple(inspect.signature(GatedRNN.__init__).parameters)
GATED_OPTIONS = tuple(name for name in _PARAMETERS if name not in ("self", "input_size", "output_size"))
"""Options of `GatedRNN.initialize`."""
_ARCHITECTURE = tuple(name for name in _PARAMETERS if name not in ("self", "gain", "rng", "dtype", "embedding"))
