"""RateRNN: a recurrent network of rate units as a torch module.

    h[t+1] = (1-dt) h[t] + dt (W phi(h[t]) + W_in u[t] + b) + eta[t],    z[t] = W_out phi(h[t+1])

The module holds the weights and options; the equation and its variants are in `recurrence.py`, the fast passes in
`forward_backward.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from rankscope.errors import InputError
from rankscope.networks import recurrence
from rankscope.networks.fused import integrate
from rankscope.networks.initialization import constrained, draw_weights, perturbed
from rankscope.networks.network_file import SavedNetwork, saved_as
from rankscope.networks.nonlinearities import Elementwise, Nonlinearity, find_nonlinearity, name_of
from rankscope.networks.parameters import PARAMETERS, TRAINABLE, checked_weights
from rankscope.networks.parametrizations import constrain
from rankscope.networks.protocol import channels_of
from rankscope.networks.recurrence import Convention, Dynamics, Engine, Weights
from rankscope.networks.states import by_step, checked_inputs, checked_state, noise_increments
from rankscope.networks.workspace import WorkspacePool
from rankscope.tasks.trials import Task
from rankscope.validation import RngLike, choice, generator, number


@saved_as("RateRNN")
class RateRNN(SavedNetwork):
    """A rate network of N units (Schuessler et al. 2020).

    Parameters
    ----------
    input_weights, recurrent_weights, output_weights
        (N, in), (N, N) and (out, N), postsynaptic index first; arrays or tensors, float32 or float64.
    bias, initial_state
        (N,) or None for zero.
    tau
        Time constants of the units in units of the membrane's, (N,) or one number; dt / tau_i, at most 1, replaces dt.
        None is 1 for all. Networks with tau run by plain autograd.
    dt
        Time step in membrane time constants, 0 < dt <= 1.
    nonlinearity
        phi: "tanh", "relu", "softplus", "identity", or any elementwise callable on tensors (which runs by plain
        autograd).
    readout_nonlinearity
        phi_out, likewise; None means the same as `nonlinearity`.
    convention
        "current": h[t+1] = (1-dt) h + dt (W phi(h) + W_in u + b), z = W_out phi_out(h).
        "rate": h[t+1] = (1-dt) h + dt phi(W h + W_in u + b), z = phi_out(W_out h).
    noise_std
        sigma of the noise sqrt(dt) sigma xi added in every step.
    trained
        Which of "input", "recurrent", "output", "bias", "initial_state", "tau" learn; the others stay as they are.
    engine
        "auto" uses the fused engine where it applies; "fused" and "plain" force one.

    Raises
    ------
    InputError
        If shapes or types do not fit together, or an option is unknown or out of range.
    """

    input_weights: nn.Parameter
    recurrent_weights: nn.Parameter
    output_weights: nn.Parameter
    bias: nn.Parameter | None
    initial_state: nn.Parameter | None
    tau: nn.Parameter | None

    def __init__(
        self,
        input_weights: Tensor | ArrayLike,
        recurrent_weights: Tensor | ArrayLike,
        output_weights: Tensor | ArrayLike,
        bias: Tensor | ArrayLike | None = None,
        initial_state: Tensor | ArrayLike | None = None,
        tau: Tensor | ArrayLike | float | None = None,
        *,
        dt: float = 0.5,
        nonlinearity: str | Elementwise = "tanh",
        readout_nonlinearity: str | Elementwise | None = None,
        convention: Convention = "current",
        noise_std: float = 0.0,
        trained: Collection[str] = ("input", "recurrent", "output"),
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        if isinstance(trained, str) or not isinstance(trained, Collection):
            raise InputError(f"trained must be a collection of names such as ('recurrent',), got {trained!r}")
        self.trained = tuple(part for part in TRAINABLE if part in {choice("trained", t, TRAINABLE) for t in trained})
        phi = find_nonlinearity(nonlinearity)
        self.dynamics = Dynamics(
            dt=number("dt", dt, above=0, maximum=1),
            nonlinearity=phi,
            readout_nonlinearity=(
                phi if readout_nonlinearity is None else find_nonlinearity(readout_nonlinearity, "readout_nonlinearity")
            ),
            convention=choice("convention", convention, ("current", "rate")),  # type: ignore[arg-type]
        )
        self.noise_std = number("noise_std", noise_std, minimum=0)
        self.engine = choice("engine", engine, ("auto", "fused", "plain"))
        if self.engine == "fused" and not self.dynamics.differentiated_by_hand:
            raise InputError("engine must be 'auto' or 'plain' for a nonlinearity given as a callable, got 'fused'")
        parts = checked_weights(
            (input_weights, recurrent_weights, output_weights, bias, initial_state, tau), self.trained
        )
        for part, tensor in parts.items():
            parameter = None if tensor is None else nn.Parameter(tensor, requires_grad=part in self.trained)
            self.register_parameter(PARAMETERS[part], parameter)
        if self.engine == "fused" and self.tau is not None:
            raise InputError("engine must be 'auto' or 'plain' for a network with tau, got 'fused'")
        self.workspaces = WorkspacePool()

    @classmethod
    def initialize(
        cls,
        task: Task,
        hidden_size: int = 256,
        gain: float = 0.9,
        rng: RngLike = None,
        *,
        orthogonal: bool = False,
        input_is_output: bool = False,
        recurrent_rng: RngLike = None,
        exact_norms: bool = True,
        dtype: torch.dtype = torch.float32,
        dale: float | None = None,
        density: float | None = None,
        rank: int | None = None,
        rank_spread: Sequence[float] = (0.0, 1.0),
        rank_rng: RngLike = None,
        perturbation: float = 0.0,
        perturbation_rng: RngLike = 0,
        output_norm: float | None = None,
        initial_rank: int | None = None,
        gamma: float | None = None,
        **options: Any,
    ) -> RateRNN:
        """Draw an untrained network with the channels and the time step of `task`.

        Parameters
        ----------
        task
            Anything with `sample(batch_size, rng) -> Trials`. Its `dt` is the default step; an `autonomous` task starts
            from h[0] = the input vector.
        hidden_size, gain, rng, orthogonal, input_is_output, recurrent_rng, exact_norms, output_norm, initial_rank
            As in `draw_weights`; no `initial_rank` with `dale` or `density`, which change it.
        dtype
            torch.float32 or torch.float64. The draws are the same for both.
        dale, density, rank, rank_spread, rank_rng
            Constraints of the recurrent weights (`parametrizations.py`): the fraction of excitatory units, balanced;
            that of connections that exist; the rank of W - W0 before signs and connections are imposed, and the
            `spread` of its beginning, with a source of its own for several beginnings of one network.
        gamma
            What outputs are divided by, from lazy (small) to rich; scales the default learning rate (`TrainingConfig`).
        perturbation, perturbation_rng
            Relative size and source of a change of the drawn weights (see `initialization.perturbed`).
        options
            Any keyword of the constructor.

        Raises
        ------
        InputError
            For anything out of range.
        """
        rng = generator(rng)
        drawn = draw_weights(
            *channels_of(task),
            hidden_size,
            gain,
            rng,
            orthogonal=orthogonal,
            input_is_output=input_is_output,
            recurrent_rng=recurrent_rng,
            exact_norms=exact_norms,
            output_norm=output_norm,
            initial_rank=initial_rank,
        )
        drawn = perturbed(drawn, perturbation, perturbation_rng)
        for option in options:
            choice("option", option, RATE_OPTIONS)
        options.setdefault("dt", getattr(task, "dt", 0.5))
        if getattr(task, "autonomous", False):
            options.setdefault("initial_state", torch.as_tensor(drawn.input[:, 0], dtype=dtype))
        recurrent, mask = constrained(drawn.recurrent, dale, density, rng, initial_rank)
        network = cls(*(torch.as_tensor(w, dtype=dtype) for w in (drawn.input, recurrent, drawn.output)), **options)
        constrain(network, dale, mask, rank, gamma, rng if rank_rng is None else rank_rng, rank_spread)
        return network

    @property
    def hidden_size(self) -> int:
        """Number of units N."""
        return self.input_weights.shape[0]

    @property
    def weights(self) -> Weights:
        """The trainable parts, as one tuple."""
        return Weights(*(getattr(self, name) for name in PARAMETERS.values()))

    def forward(
        self,
        inputs: Tensor,
        *,
        return_states: bool = False,
        noise: Tensor | None = None,
        rng: RngLike = None,
        initial_state: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Run the network.

        Parameters
        ----------
        inputs
            (batch, time, in); converted to the type of the weights.
        return_states
            Also return the states.
        noise
            Standard normal xi, (batch, time, N), scaled by sqrt(dt) noise_std. None draws it from `rng`.
        rng
            Source of the noise; not touched where `noise_std` is 0.
        initial_state
            State to start from, (N,) or (batch, N), in place of the network's own.

        Returns
        -------
        outputs
            (batch, time, out). Entry t reads the state after step t.
        states
            (batch, time, N), if `return_states`.

        Raises
        ------
        InputError
            If `inputs`, `noise` or `initial_state` has the wrong shape.
        """
        inputs, weights = self.checked(inputs), self.weights
        increments = self.draw_noise(inputs, rng, noise)
        if initial_state is not None:
            weights = weights._replace(initial_state=checked_state(initial_state, self, len(inputs)))
        run = integrate(self, inputs, weights, increments, return_states)
        return run.outputs if run.states is None else (run.outputs, run.states)

    def step(self, state: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return the state after one step without noise.

        Parameters
        ----------
        state
            (N,) or (batch, N).
        inputs
            (in,) or (batch, in); None is no input.

        Raises
        ------
        InputError
            If a shape is wrong.
        """
        return by_step(recurrence.next_state, self, state, inputs)

    def jacobian(self, state: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return the derivatives of `step` with respect to the state, (N, N) or (batch, N, N).

        Parameters
        ----------
        state, inputs
            As in `step`.
        """
        return by_step(recurrence.jacobian, self, state, inputs)

    def architecture(self) -> dict[str, Any]:
        """Return the constructor's options as plain values, enough to build the same function around the weights."""
        return {
            "dt": self.dynamics.dt,
            "nonlinearity": name_of(self.dynamics.nonlinearity),
            "readout_nonlinearity": name_of(self.dynamics.readout_nonlinearity),
            "convention": self.dynamics.convention,
            "noise_std": self.noise_std,
            "trained": list(self.trained),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], architecture: dict[str, Any]) -> RateRNN:
        """Return the network with these weights."""
        missing = [name for name in list(PARAMETERS.values())[:3] if name not in tensors]
        unknown = [name for name in tensors if name not in PARAMETERS.values()]
        if missing or unknown:
            raise TypeError(f"these are missing: {missing}, and these unknown: {unknown}")
        for option in architecture:
            choice("the architecture", option, _ARCHITECTURE)
        options: dict[str, Any] = {**tensors, **architecture}
        return cls(**options)

    def check_savable(self) -> None:
        """Raise `InputError` if a nonlinearity is a callable, which no file can hold."""
        for argument in ("nonlinearity", "readout_nonlinearity"):
            phi = getattr(self.dynamics, argument)
            if not isinstance(phi, Nonlinearity):
                raise InputError(
                    f"{argument} must be a named one to be saved, got {phi!r}; save its state_dict instead"
                )

    def extra_repr(self) -> str:
        """Describe the network in one line."""
        d, w = self.dynamics, self.weights
        sizes = f"{w.input.shape[1]} -> {self.hidden_size} -> {len(w.output)}"
        return f"{sizes}, dt={d.dt:g}, {name_of(d.nonlinearity)}, {d.convention}, trained={self.trained}"

    def checked(self, inputs: Tensor) -> Tensor:
        """Return `inputs` in the type of the weights; raise `InputError` unless they are (batch, time, in)."""
        return checked_inputs(inputs, self.input_weights)

    def draw_noise(self, inputs: Tensor, rng: RngLike = None, noise: Tensor | None = None) -> Tensor | None:
        """Return the noise increments eta = sqrt(dt) noise_std xi, (batch, time, N); None for a noiseless network.

        Parameters
        ----------
        inputs
            The inputs of the same trials.
        rng
            Source of xi; not touched where there is no noise or `noise` is given.
        noise
            xi itself.

        Raises
        ------
        InputError
            If `noise` has the wrong shape.
        """
        return noise_increments(self, inputs, rng, noise)


_PARAMETERS = tuple(inspect.signature(RateRNN.__init__).parameters)[1:]
_ARCHITECTURE = tuple(name for name in _PARAMETERS if name not in PARAMETERS.values())
RATE_OPTIONS = tuple(
    name
    for name in (*inspect.signature(RateRNN.initialize).parameters, *_PARAMETERS)
    if name not in ("task", "options") and not name.endswith("_weights")
)
"""Options of `RateRNN.initialize`."""
