"""Learning of any task in infinitely wide nonlinear networks without initial recurrent weights (g = 0).

A unit is known by its input weights and N times its output weights, x ~ Normal(0, 1) in inputs + outputs dimensions,
and the recurrent weights are a function of two units, W_ij = J(x_i, x_j) / N. Gradient descent acts on J and on the
output weights, and the sums over units in

    h_x(t+1) = (1-dt) h_x(t) + dt (E_y[J(x, y) phi(h_y(t))] + m_x . u(t)),    z(t) = E_x[omega_x phi(h_x(t+1))]

become expectations for N -> infinity. These need few points (`nodes.py`), and a network with a unit at each of K points
learns as infinitely many units do. Derivation and accuracy: docs/guides/nonlinear_limit.md.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr

from rankscope.errors import InputError
from rankscope.networks.nonlinearities import Elementwise
from rankscope.networks.protocol import channels_of
from rankscope.networks.rate import RateRNN
from rankscope.networks.recurrence import Convention
from rankscope.tasks import make
from rankscope.tasks.trials import Task
from rankscope.theory.learning_curves import follow
from rankscope.theory.nodes import normal_nodes
from rankscope.training import TrainingConfig
from rankscope.training.fit import Progress
from rankscope.training.loss import Loss
from rankscope.training.optimizers import find_optimizer, make_optimizer
from rankscope.validation import RngLike, choice, integer, number

ADAM_RATE = 0.05  # times 1 / N in a network, as in the paper
EPSILON, EPSILON_UNITS = 1e-8, 256
"""Adam's eps, and the number of units of the network that has it; gradients, and eps with them, go as 1 / N."""
LEARNED = ("recurrent", "output")
SINGULAR_VALUES = 8


class NonlinearLimit:
    """The limit N -> infinity of rate networks with g = 0 that learn a task.

    Parameters
    ----------
    task
        A task, its name, or "file.py:Class".
    nodes
        Number K of units that stand for infinitely many.
    trained
        Which of "recurrent" and "output" learn. Input weights do not: in a network they move by O(1/N).
    optimizer
        "adam" or "sgd", or a mapping of this name and options of torch. A network of N units has Adam's learning rate
        and eps divided by N, eps relative to 256 units. With "sgd", its recurrent weights have `learning_rate` and its
        output weights that divided by N, the only rates for which both learn in the limit.
    learning_rate
        The learning rate, times N where it goes as 1/N; 0.05 for Adam.
    batch_size, loss
        As in `train`.
    nonlinearity, readout_nonlinearity, convention, dt
        As in `RateRNN`.
    antithetic
        Whether nodes are pairs x and -x.

    Raises
    ------
    InputError
        If an argument is out of range.
    """

    def __init__(
        self,
        task: str | Mapping[str, Any] | Task,
        nodes: int = 64,
        *,
        trained: Collection[str] = LEARNED,
        optimizer: str | Mapping[str, Any] = "adam",
        learning_rate: float | None = None,
        batch_size: int = 32,
        loss: str | Loss | None = None,
        nonlinearity: str | Elementwise = "tanh",
        readout_nonlinearity: str | Elementwise | None = None,
        convention: Convention = "current",
        dt: float | None = None,
        antithetic: bool = False,
    ) -> None:
        self.task = make(task) if isinstance(task, str | Mapping) else task
        self.nodes, self.antithetic = nodes, antithetic
        if isinstance(trained, str) or not isinstance(trained, Collection) or not trained:
            raise InputError(f"trained must be a collection of 'recurrent' and 'output', got {trained!r}")
        self.trained = tuple(choice("trained", part, LEARNED) for part in trained)
        found = find_optimizer("optimizer", optimizer)
        self._optimizer = {"name": found} if isinstance(found, str) else found
        self._is_adam = choice("optimizer", self._optimizer["name"], ("adam", "sgd")) == "adam"
        if learning_rate is None and not self._is_adam:
            raise InputError("learning_rate must be given for sgd, got None")
        self.learning_rate = ADAM_RATE if learning_rate is None else number("learning_rate", learning_rate, above=0)
        self._training: dict[str, Any] = {"batch_size": batch_size, "loss": loss}
        self._network: dict[str, Any] = {
            "dt": getattr(self.task, "dt", 0.5) if dt is None else dt,
            "nonlinearity": nonlinearity,
            "readout_nonlinearity": readout_nonlinearity,
            "convention": convention,
            "trained": self.trained,
        }
        self.config(1, 1)
        self._node_network(0)

    def __repr__(self) -> str:
        return f"NonlinearLimit({self.task!r}, nodes={self.nodes}, trained={self.trained})"

    def solve(
        self,
        epochs: int = 250,
        rng: RngLike = 0,
        *,
        scrambling: RngLike = 0,
        recorded_epochs: int | Sequence[int] | None = None,
        functional_rank: bool = True,
        progress: Progress | None = None,
    ) -> xr.Dataset:
        """Return the course of learning.

        Parameters
        ----------
        epochs
            Number of epochs.
        rng
            Seed or Generator of the trials: those of `rs.train(network, task, epochs, rng)`.
        scrambling
            Seed or Generator of the nodes. The scatter between scramblings is an error estimate (`errors`).
        recorded_epochs
            Number of epochs, or the epochs, at which singular values and outputs are computed; None is all.
        functional_rank
            Whether the functional rank is measured at the end, on 512 fresh trials.
        progress
            Called after every epoch with (completed epochs, total, loss).

        Returns
        -------
        xr.Dataset
            Over `epoch`, before its step: `loss`; `change_norm`, the Frobenius norm of dW, equal to (E J^2)^(1/2);
            `singular_value` (epoch, singular_index) of dW; `example_output` (epoch, step, output_channel), the outputs
            in the task's example trial, with `example_target`. NaN at epochs that are not recorded. At the end:
            `convergence_epoch` (loss below 5 % of the first) and `functional_rank`, NaN where there is none.

        Raises
        ------
        InputError
            If an argument is out of range.
        """
        return self._follow(self._node_network(scrambling), epochs, rng, recorded_epochs, functional_rank, progress)

    def simulate(
        self,
        hidden_size: int,
        epochs: int = 250,
        rng: RngLike = 0,
        *,
        network_rng: RngLike = 0,
        recorded_epochs: int | Sequence[int] | None = None,
        functional_rank: bool = True,
        progress: Progress | None = None,
    ) -> xr.Dataset:
        """Train a random network of N units in the same way, and return what `solve` does.

        Parameters
        ----------
        hidden_size
            N.
        network_rng
            Seed or Generator of its input and output weights.
        epochs, rng, recorded_epochs, functional_rank, progress
            As in `solve`.
        """
        network = RateRNN.initialize(self.task, hidden_size, 0.0, network_rng, **self._network)
        return self._follow(network, epochs, rng, recorded_epochs, functional_rank, progress)

    def errors(self, epochs: int = 250, rng: int = 0, *, repetitions: int = 4) -> xr.Dataset:
        """Return a solution with two estimates of its error, all with the same trials.

        Parameters
        ----------
        epochs
            Number of epochs.
        rng
            Seed of the trials.
        repetitions
            Number of scramblings with K, and again with 2K nodes.

        Returns
        -------
        xr.Dataset
            The variables of `solve` over `estimate`: "value", the mean over scramblings; "scrambling", the standard
            deviation of one of them; "nodes", how far the mean of 2K nodes is from that of K.

        Raises
        ------
        InputError
            If there are fewer than two repetitions.
        """
        seed, seeds = integer("rng", rng, minimum=0), range(integer("repetitions", repetitions, minimum=2))
        few, many = (
            xr.concat([limit.solve(epochs, seed, scrambling=s) for s in seeds], "repetition", join="inner")
            for limit in (self, self._with_nodes(2 * self.nodes))
        )
        value = few.mean("repetition")
        estimates = [value, few.std("repetition", ddof=1), abs(value - many.mean("repetition"))]
        return xr.concat(
            estimates, xr.Variable("estimate", ["value", "scrambling", "nodes"]), join="inner", data_vars="all"
        )

    def config(self, hidden_size: int, epochs: int, **recording: Any) -> TrainingConfig:
        """Return the training of a network of N units of which this is the limit.

        Parameters
        ----------
        hidden_size, epochs
            N, and the number of epochs.
        recording
            Further fields of `TrainingConfig`.
        """
        N = integer("hidden_size", hidden_size, minimum=1)
        optimizer: Any = self._optimizer
        rate = self.learning_rate
        if self._is_adam:
            eps = float(self._optimizer.get("eps", EPSILON)) * EPSILON_UNITS / N
            optimizer, rate = self._optimizer | {"eps": eps}, rate / N
        elif self.trained == ("output",):
            rate /= N
        elif "output" in self.trained:
            optimizer = partial(_descent_at_two_rates, self._optimizer, rate, N)
        return TrainingConfig(epochs=epochs, optimizer=optimizer, learning_rate=rate, **self._training, **recording)

    def _with_nodes(self, nodes: int) -> NonlinearLimit:
        other = copy.copy(self)
        other.nodes = nodes
        return other

    def _node_network(self, scrambling: RngLike) -> RateRNN:
        """Return the network with one unit at each node."""
        inputs, outputs = channels_of(self.task)
        nodes = normal_nodes(self.nodes, inputs + outputs, scrambling, antithetic=self.antithetic)
        K = len(nodes)
        weights = (nodes[:, :inputs], np.zeros((K, K)), nodes[:, inputs:].T / K)
        network_input, recurrent, output = (torch.tensor(w, dtype=torch.float32) for w in weights)
        initial = network_input[:, 0].clone() if getattr(self.task, "autonomous", False) else None
        return RateRNN(network_input, recurrent, output, initial_state=initial, **self._network)

    def _follow(
        self,
        network: RateRNN,
        epochs: int,
        rng: RngLike,
        recorded_epochs: int | Sequence[int] | None,
        functional_rank: bool,
        progress: Progress | None,
    ) -> xr.Dataset:
        count = integer("epochs", epochs, minimum=1)
        recorded = count if recorded_epochs is None else recorded_epochs
        config = self.config(network.hidden_size, count, recorded_epochs=recorded, singular_values=SINGULAR_VALUES)
        return follow(network, self.task, config, rng, progress, functional_rank)


def _descent_at_two_rates(
    options: Mapping[str, Any], rate: float, N: int, parameters: list[torch.Tensor]
) -> torch.optim.Optimizer:
    """Return SGD with a rate of `rate` for the recurrent weights, and of `rate` / N for the output weights."""
    name = options["name"] if len(options) == 1 else dict(options)
    groups = [{"params": [weights], "lr": rate if weights.shape == (N, N) else rate / N} for weights in parameters]
    return make_optimizer(name, groups, rate, 0.0)
