"""GatedRNN: torch's GRU, LSTM or plain RNN and a linear readout, to be trained on the same tasks as a rate network.

    h_t^1 = cell(u_t, h_{t-1}^1),  h_t^2 = cell(h_t^1, h_{t-1}^2), ...,  z_t = W_out h_t^last + b_out

from states of zero. One step of a task is one step of the network; there is no time constant. The layers are torch's,
with torch's names for their weights, the gates stacked: ``rnn.weight_hh_l0`` is (gates N, N).
"""

from __future__ import annotations

import copy
import math
import os
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rankscope.errors import InputError
from rankscope.io import tensor_file
from rankscope.networks.rate import channels_of
from rankscope.networks.text import CELLS
from rankscope.tasks.trials import Task
from rankscope.validation import RngLike, choice, generator, integer, number

FORMAT = "rankscope.GatedRNN.v1"


class GatedRNN(nn.Module):
    """A recurrent network of torch's, with a linear readout.

    Parameters
    ----------
    input_size, output_size
        Numbers of channels.
    kind
        "gru", "lstm" or "rnn" (tanh).
    hidden_size
        N, of each layer.
    layers
        How many.
    gain
        g: the recurrent weights of each gate are drawn from a normal distribution of standard deviation g / sqrt(N),
        as in a rate network. None draws them as all others, uniform within 1 / sqrt(N), which is what torch does.
    rng
        Seed or Generator for the initial weights.
    dtype
        torch.float32 or torch.float64. The draws are the same for both.

    Raises
    ------
    InputError
        For anything out of range.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        kind: str = "gru",
        hidden_size: int = 128,
        layers: int = 1,
        gain: float | None = None,
        rng: RngLike = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype must be torch.float32 or torch.float64, got {dtype!r}")
        self.kind = choice("kind", kind, CELLS)
        sizes = {"input_size": input_size, "output_size": output_size, "hidden_size": hidden_size, "layers": layers}
        checked = {name: integer(name, value, minimum=1) for name, value in sizes.items()}
        self.hidden_size = checked["hidden_size"]
        spread = None if gain is None else number("gain", gain, minimum=0) / math.sqrt(self.hidden_size)
        # torch initializes by itself, from its global generator, which is left as it was.
        with torch.random.fork_rng(devices=[]):
            self.rnn = CELLS[kind](
                checked["input_size"], self.hidden_size, checked["layers"], batch_first=True, dtype=dtype
            )
            self.readout = nn.Linear(self.hidden_size, checked["output_size"], dtype=dtype)
        self._draw(generator(rng), spread)

    @classmethod
    def initialize(
        cls,
        task: Task,
        kind: str = "gru",
        hidden_size: int = 128,
        layers: int = 1,
        rng: RngLike = None,
        *,
        gain: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> GatedRNN:
        """Draw an untrained network with the channels of `task`.

        Parameters
        ----------
        task
            Anything with `sample(batch_size, rng) -> Trials`.
        kind, hidden_size, layers, rng, gain, dtype
            As in the constructor.

        Raises
        ------
        InputError
            For anything out of range.
        """
        return cls(*channels_of(task), kind, hidden_size, layers, gain, rng, dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs (batch, time, out) for inputs (batch, time, in).

        Raises
        ------
        InputError
            If `inputs` has the wrong shape.
        """
        size = self.rnn.input_size
        if not isinstance(inputs, Tensor) or inputs.ndim != 3 or inputs.shape[2] != size or 0 in inputs.shape:
            got = f"shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
            raise InputError(f"inputs must be a non-empty tensor (batch, time, {size}), got {got}")
        states, _ = self.rnn(inputs.to(self.readout.weight))
        return cast(Tensor, self.readout(states))

    def recurrent_names(self) -> tuple[str, ...]:
        """Return the names of the weights of each layer to itself, the first layer's first."""
        return tuple(f"rnn.weight_hh_l{layer}" for layer in range(self.rnn.num_layers))

    def snapshot(self) -> GatedRNN:
        """Return an independent copy of the network as it is now, without gradients."""
        twin = copy.deepcopy(self)
        twin.zero_grad(set_to_none=True)
        return twin

    def architecture(self) -> dict[str, Any]:
        """Return the options of the constructor that make up the function around the weights, as plain values."""
        return {
            "input_size": self.rnn.input_size,
            "output_size": self.readout.out_features,
            "kind": self.kind,
            "hidden_size": self.hidden_size,
            "layers": self.rnn.num_layers,
        }

    def save(self, path: str | os.PathLike[str], initial: GatedRNN | None = None) -> None:
        """Write weights and architecture to one safetensors file, atomically.

        Parameters
        ----------
        initial
            The network before learning, to go into the same file.

        Raises
        ------
        InputError
            If the folder cannot be written to.
        """
        tensor_file.save(path, tensor_file.with_initial(self, initial), self.architecture(), FORMAT)

    @classmethod
    def load(cls, path: str | os.PathLike[str], initial: bool = False) -> GatedRNN:
        """Read a network that `save` wrote; it is the same function.

        Parameters
        ----------
        initial
            Read the network before learning that was saved along.

        Raises
        ------
        InputError
            If the file is missing, is not a safetensors file, or holds something else.
        """
        everything, architecture = tensor_file.load(path, FORMAT)
        tensors = tensor_file.half_of(everything, initial)
        try:
            network = cls(**architecture, rng=0, dtype=tensors["readout.weight"].dtype)
            network.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} must hold the tensors of a GatedRNN, but {error}") from error
        return network

    @torch.no_grad()
    def _draw(self, rng: np.random.Generator, spread: float | None) -> None:
        """Draw all weights in the order of their names in the layers, then those of the readout."""
        bound = 1 / math.sqrt(self.hidden_size)
        for name, weights in (*self.rnn.named_parameters(), *self.readout.named_parameters()):
            shape = tuple(weights.shape)
            if spread is not None and name.startswith("weight_hh"):
                drawn = rng.normal(0, spread, shape)
            else:
                drawn = rng.uniform(-bound, bound, shape)
            weights.copy_(torch.from_numpy(drawn))
