r"""Kernel alignment: how far the tangent kernel of a network has moved, lazy (1) or rich.

With the Jacobian J of all outputs that count in the loss (of all trials, steps and channels) with respect to the
trained weights, and :math:`K = J J^T`, :math:`\mathrm{KA} = \langle K_0, K \rangle / (|K_0| |K|)`, between 0 and 1 as
both kernels are positive semidefinite (Liu et al. 2024; Chizat et al. 2019). The weights are the effective ones.
Entries that are zero both before and after learning are connections that do not exist, and do not count; a limit to
the rank of the change is not considered.

J is never formed. The outputs of each trial are multiplied with q random vectors of signs v. A backward pass gives the
adjoints of all trials, and the gradient of one trial is the product of its adjoints and its activity. Two different
vectors give the unbiased estimate :math:`(v^T K_0 v')(v^T K v')` of the products of blocks of the kernels,
:math:`\mathrm{tr}\, K_{0,ij} K_{ij}^T`, which is averaged over all pairs of trials and vectors. Where trials have no
more than q outputs that count, unit vectors replace the signs, and the kernel is exact. An estimate may leave the
range from 0 to 1 by its error. In a chaotic network the untrained kernel is that of exploding sensitivities, and KA is
near 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.networks.fused import integrate
from rankscope.networks.parameters import PARAMETERS, TRAINABLE
from rankscope.networks.rate import RateRNN
from rankscope.networks.recurrence import Weights, initial_states, step_of
from rankscope.regime.activity import TRIALS
from rankscope.tasks.trials import Task, Trials, trials_of
from rankscope.validation import RngLike, choice, generator, integer

Array = NDArray[np.float64]

PRODUCTS = 1024
"""Products of outputs with vectors that are made by default, of all trials together."""
GROUPS = 10
"""Groups of trials that the standard error leaves out one by one."""
ROWS = 32
"""Rows of a weight matrix whose gradients are held at a time."""


class KernelAlignment(NamedTuple):
    """Alignment of the kernels, and its standard error over trials.

    Attributes
    ----------
    value
        KA; NaN where a kernel is zero.
    error
        Standard error of a jackknife over ten groups of trials, which holds the errors of sampled trials and of random
        vectors; NaN for a single trial.
    exact
        Whether the kernels of these trials are exact.
    """

    value: float
    error: float
    exact: bool


def kernel_alignment(
    before: RateRNN,
    after: RateRNN,
    task: Task | Trials,
    parts: Iterable[str] | None = None,
    probes: int | None = None,
    rng: RngLike = 0,
) -> KernelAlignment:
    """Return the alignment of the tangent kernels of a rate network before and after learning.

    Parameters
    ----------
    before, after
        The networks. Neither is changed.
    task
        Trials, or a task of which 128 are drawn.
    parts
        Weights with respect to which the outputs are differentiated: "input", "recurrent", "output", "bias",
        "initial_state", "tau". By default those that the network trains.
    probes
        Vectors q of each trial, at least 2. By default as many as make 1024 with all trials.
    rng
        Source of the trials, of the vectors and of noise, which is the same in both networks.

    Raises
    ------
    InputError
        If a network is no RateRNN, a part is unknown or missing, or no output counts.
    """
    for name, network in (("before", before), ("after", after)):
        if not isinstance(network, RateRNN):
            raise InputError(f"{name} must be a RateRNN, got {type(network).__name__}")
    source = generator(rng)
    trials = trials_of(task, TRIALS, source)
    found = kernels((before, after), trials, parts, probes, source)
    return found.alignment(found.parts)


class Kernels(NamedTuple):
    """Kernels of two networks between products of outputs: (2, q trials, q trials) for each part."""

    grams: dict[str, Array]
    trials: int
    exact: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """The weights, by name."""
        return tuple(self.grams)

    def alignment(self, parts: Iterable[str]) -> KernelAlignment:
        """Return the alignment of the sums of the kernels of some parts."""
        one, other = sum(self.grams[part] for part in parts) + np.zeros(1)
        weights = self._weights(len(one))
        # Products summed over the vectors, (trials, trials).
        q, b = len(one) // self.trials, self.trials
        products = [
            (weights * x * y).reshape(q, b, q, b).sum((0, 2)) for x, y in ((one, other), (one, one), (other, other))
        ]
        value = _ratio([float(x.sum()) for x in products])
        return KernelAlignment(value, _jackknife(products), self.exact)

    def _weights(self, rows: int) -> Array:
        """Return the weight of each pair of products in the estimate of <K0, K>."""
        if self.exact:
            return np.ones((rows, rows))
        q = rows // self.trials
        same = np.kron(np.ones((q, q)), np.eye(self.trials))  # of one trial
        found: Array = (1 - same) / q**2 + (same - np.eye(rows)) / (q * (q - 1))
        return found


def kernels(
    networks: tuple[RateRNN, RateRNN],
    trials: Trials,
    parts: Iterable[str] | None,
    probes: int | None,
    rng: np.random.Generator,
) -> Kernels:
    """Return the kernels of two networks, see `kernel_alignment`."""
    names = _parts(networks[1], parts)
    inputs, counted = networks[1].checked(trials.inputs), (trials.mask != 0).to(networks[1].input_weights.device)
    channels = len(networks[1].output_weights)
    if tuple(counted.shape) != (*inputs.shape[:2], channels):
        raise InputError(f"trials must have a mask {(*inputs.shape[:2], channels)}, got {tuple(counted.shape)}")
    if not bool(counted.any()):
        raise InputError("mask must count something, got 0 everywhere")
    count = max(2, PRODUCTS // len(inputs)) if probes is None else integer("probes", probes, minimum=2)
    vectors, exact = _vectors(counted, count, rng)
    seed = int(rng.integers(2**63 - 1))
    found: dict[str, list[Array]] = {name: [] for name in names}
    exist = {name: _existing(*(getattr(network, PARAMETERS[name]).detach() for network in networks)) for name in names}
    with threads_for(networks[1].hidden_size):
        for network in networks:
            for name, gram in _grams(network, inputs, vectors.to(inputs), exist, seed).items():
                found[name].append(gram)
    return Kernels({name: np.stack(both) for name, both in found.items()}, len(inputs), exact)


def _parts(network: RateRNN, parts: Iterable[str] | None) -> tuple[str, ...]:
    if isinstance(parts, str):
        raise InputError(f"parts must be a list of names, got the text {parts!r}; write [{parts!r}]")
    names = network.trained if parts is None else dict.fromkeys(choice("parts", part, TRAINABLE) for part in parts)
    missing = [name for name in names if getattr(network, PARAMETERS[name]) is None]
    if missing or not names:
        raise InputError(f"parts must name weights that the network has, got {', '.join(missing) or 'none'}")
    return tuple(names)


def _vectors(counted: Tensor, count: int, rng: np.random.Generator) -> tuple[Tensor, bool]:
    """Return vectors (q, trials, time, out) that are zero where nothing counts, and whether they are unit vectors."""
    most = int(counted.flatten(1).sum(1).max())
    if most > count:
        signs = 2.0 * rng.integers(2, size=(count, *counted.shape)) - 1
        return torch.from_numpy(signs) * counted.cpu(), False
    order = (counted.flatten(1).long().cumsum(1) * counted.flatten(1)).view(counted.shape).cpu()
    return torch.stack([(order == k + 1).double() for k in range(most)]), True


class _Factors(NamedTuple):
    """The gradient of a weight in each trial: left^T right with (trials, time, ...), or without right itself."""

    left: Tensor
    right: Tensor | None = None


def _existing(before: Tensor, after: Tensor) -> Tensor | None:
    """Return 1 for the entries of a matrix that are not zero in both networks; None if all are, or none is."""
    exist = (before != 0) | (after != 0)
    return None if before.ndim < 2 or bool(exist.all()) or not bool(exist.any()) else exist.to(after)


def _grams(
    network: RateRNN, inputs: Tensor, vectors: Tensor, exist: dict[str, Tensor | None], seed: int
) -> dict[str, Array]:
    """Return the inner products of the gradients of all products, (q trials, q trials), for each part."""
    made = [_factors(network, inputs, v, tuple(exist), seed) for v in vectors]
    rows, found = len(vectors) * len(inputs), {}
    for name, connections in exist.items():
        gram = torch.zeros(rows, rows, dtype=torch.float64)
        for block in _gradients([one[name] for one in made], connections):
            gram += block @ block.t()
        found[name] = gram.numpy()
    return found


def _factors(network: RateRNN, inputs: Tensor, v: Tensor, names: tuple[str, ...], seed: int) -> dict[str, _Factors]:
    """Return the gradients of v . outputs of each trial, by one forward and one backward pass."""
    weights = Weights(*(None if w is None else w.detach() for w in network.weights))  # type: ignore[arg-type]
    d, (batch, steps) = network.dynamics, inputs.shape[:2]
    drawn = network.draw_noise(inputs, np.random.default_rng(seed))
    # The gradient with respect to increments of the state is the adjoint.
    eta = inputs.new_zeros(batch, steps, network.hidden_size) if drawn is None else drawn
    wanted = [eta.detach().requires_grad_()]
    # One initial state and time constant a trial, so that their gradients are those of the trials.
    own: dict[str, Tensor] = {}
    for name in ("initial_state", "tau"):
        value = getattr(weights, name)
        if name in names and value is not None:
            own[name] = value.expand(batch, -1).clone().requires_grad_()
    with torch.enable_grad():
        run = integrate(network, inputs, weights._replace(**own), wanted[0], return_states=True)
        adjoints, *others = torch.autograd.grad((run.outputs * v).sum(), [*wanted, *own.values()])
    assert run.states is not None
    states = run.states.detach()
    h = torch.cat([initial_states(weights, batch)[:, None], states[:, :-1]], 1)
    left = adjoints * step_of(weights, d)
    if d.convention == "current":
        right, read, outer = d.nonlinearity(h), d.readout_nonlinearity(states), v
    else:
        argument = h @ weights.recurrent.t() + inputs @ weights.input.t()
        argument = argument if weights.bias is None else argument + weights.bias
        left, right, read = left * _slope(d.nonlinearity, argument), h, states
        outer = v * _slope(d.readout_nonlinearity, states @ weights.output.t())
    found = {
        "input": _Factors(left, inputs),
        "recurrent": _Factors(left, right),
        "output": _Factors(outer, read),
        "bias": _Factors(left.sum(1)),
        **{name: _Factors(gradient) for name, gradient in zip(own, others, strict=True)},
    }
    return {name: found[name] for name in names}


def _slope(phi: object, argument: Tensor) -> Tensor:
    assert callable(phi)
    with torch.enable_grad():
        x = argument.detach().requires_grad_()
        (slope,) = torch.autograd.grad(phi(x).sum(), x)
    found: Tensor = slope
    return found


def _gradients(factors: list[_Factors], exist: Tensor | None) -> Iterator[Tensor]:
    """Yield blocks of columns of the gradients, (q trials, weights)."""
    if factors[0].right is None:
        yield torch.cat([one.left for one in factors])
        return
    for begin in range(0, factors[0].left.shape[-1], ROWS):
        end = begin + ROWS
        blocks = [one.left[..., begin:end].transpose(1, 2) @ one.right for one in factors if one.right is not None]
        block = torch.cat(blocks)
        yield (block if exist is None else block * exist[begin:end]).flatten(1)


def _ratio(products: list[float]) -> float:
    across, before, after = products
    return across / math.sqrt(before * after) if before > 0 and after > 0 else math.nan


def _jackknife(products: list[Array]) -> float:
    """Return the standard error of the ratio over groups of trials, from products (trials, trials)."""
    b = len(products[0])
    if b < 2:
        return math.nan
    left_out = []
    for group in np.array_split(np.arange(b), min(GROUPS, b)):
        kept = np.setdiff1d(np.arange(b), group)
        left_out.append(_ratio([float(x[np.ix_(kept, kept)].sum()) for x in products]))
    n = len(left_out)
    return float(np.sqrt((n - 1) * np.var(left_out)))
