r"""Fixed points of a network under constant input, by Newton's method from many states.

A fixed point has :math:`F(h) = \mathrm{step}(h, u) - h = 0`. Newton's method solves :math:`F = 0` with the Jacobian of
a step and a line search on :math:`|F|`, in double precision; unlike running the network, it finds unstable points too.
It starts from given states, and from where the network has gone from them after some steps. A fixed point is stable if
all multipliers, the eigenvalues of the Jacobian of a step at it, are inside the unit circle. What is found depends on
the states to start from: further fixed points may exist.

For a rate network :math:`F / dt` is the flow; a multiplier :math:`\mu` belongs to the eigenvalue
:math:`(\mu - 1) / dt` of its Jacobian.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rankscope.dynamics.trajectories import initial_state, steps_of
from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.networks.protocol import Network
from rankscope.validation import integer, number

Array = NDArray[np.float64]

ITERATIONS = 60
SETTLING = 100
HALVINGS = 12
TOLERANCE = 1e-9
"""Largest |F|, relative to sqrt(S), of what counts as a fixed point."""
SAME = 1e-4
"""Distance, relative to 1 + |h| / sqrt(S), below which two points are one."""


class FixedPoints(NamedTuple):
    """Fixed points, those that more starts reached first.

    Attributes
    ----------
    states
        (points, S).
    multipliers
        Eigenvalues of the Jacobian of a step, (points, S), by decreasing modulus.
    stable
        Whether all multipliers are inside the unit circle, (points,).
    residuals
        ``|step(h) - h|``, (points,).
    starts
        Number of starts that reached each, settled ones included, (points,).
    """

    states: Array
    multipliers: NDArray[np.complex128]
    stable: NDArray[np.bool_]
    residuals: Array
    starts: NDArray[np.int64]


def fixed_points(
    network: Network,
    states: ArrayLike | Tensor | None = None,
    inputs: ArrayLike | Tensor | None = None,
    *,
    settling: int = SETTLING,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> FixedPoints:
    """Return fixed points of a network.

    Parameters
    ----------
    network
        A RateRNN, a GatedRNN, or a module with `step(state, inputs)` for states (batch, S) and inputs (batch, in) or
        None; a method `jacobian(state, inputs)` is used where there is one, autograd else. Noise is left out.
    states
        States to start from, (starts, S) or (S,), such as `trajectories` returns; by default the initial state alone.
    inputs
        Constant input, (in,); None is no input.
    settling
        Steps for which the network runs from each state to give a second start, close to a stable point; 0 for none.
    iterations
        Steps of Newton's method.
    tolerance
        Largest ``|step(h) - h| / sqrt(S)`` of a fixed point.

    Raises
    ------
    InputError
        If the network has no `step`, or states and inputs do not fit.
    """
    twin = steps_of(network)
    settling = integer("settling", settling, minimum=0)
    iterations = integer("iterations", iterations, minimum=1)
    tolerance = number("tolerance", tolerance, above=0)
    start = initial_state(network) if states is None else _tensor("states", states)
    h = start.reshape(-1, start.shape[-1]).clone()
    u = None if inputs is None else _tensor("inputs", inputs)
    size = h.shape[1]
    with threads_for(size):
        h = _with_settled(twin, h, u, settling)
        h, residuals = _newton(twin, h, u, iterations, tolerance * size**0.5)
        found = residuals <= tolerance * size**0.5
        h, residuals, starts = _distinct(h[found], residuals[found])
        multipliers = torch.linalg.eigvals(_jacobians(twin, h, u)) if len(h) else h.to(torch.complex128)
    order = multipliers.abs().argsort(1, descending=True)
    multipliers = multipliers.gather(1, order)
    return FixedPoints(
        h.numpy(), multipliers.numpy(), (multipliers.abs() < 1).all(1).numpy(), residuals.numpy(), starts.numpy()
    )


@torch.no_grad()
def _with_settled(twin: Any, h: Tensor, u: Tensor | None, steps: int) -> Tensor:
    """Return the states, and those after some steps from each of them where they stay finite."""
    if not steps:
        return h
    settled = h
    for _ in range(steps):
        settled = _moved(twin, settled, u)
    return torch.cat([h, settled[torch.isfinite(settled).all(1)]])


def _newton(twin: Any, h: Tensor, u: Tensor | None, iterations: int, enough: float) -> tuple[Tensor, Tensor]:
    """Return the states after Newton's method, and their |F|."""
    with torch.no_grad():
        F = _residual(twin, h, u)
    size = F.norm(dim=1)
    eye = torch.eye(h.shape[1], dtype=h.dtype)
    active = torch.arange(len(h))
    for _ in range(iterations):
        active = active[(size[active] > enough * 1e-3) & torch.isfinite(size[active])]
        if not len(active):
            break
        step, failed = torch.linalg.solve_ex(_jacobians(twin, h[active], u) - eye, -F[active])
        ok = (failed == 0) & torch.isfinite(step).all(1)
        active, step = active[ok], step[ok]
        open_, moved = torch.ones(len(active), dtype=torch.bool), torch.zeros(len(active), dtype=torch.bool)
        for halving in range(HALVINGS):
            at = active[open_]
            if not len(at):
                break
            trial = h[at] + 0.5**halving * step[open_]
            F_trial = _residual(twin, trial, u)
            better = F_trial.norm(dim=1) < size[at]
            accepted = at[better]
            h[accepted], F[accepted], size[accepted] = trial[better], F_trial[better], F_trial[better].norm(dim=1)
            indices = open_.nonzero()[:, 0][better]
            moved[indices], open_[indices] = True, False
        active = active[moved]
    return h, size


@torch.no_grad()
def _residual(twin: Any, h: Tensor, u: Tensor | None) -> Tensor:
    return _moved(twin, h, u) - h


def _jacobians(twin: Any, h: Tensor, u: Tensor | None) -> Tensor:
    if callable(getattr(twin, "jacobian", None)):
        with torch.no_grad():
            own: Tensor = twin.jacobian(h, None if u is None else u.expand(len(h), -1))
        return own
    found = []
    for one in h:
        copies = one.expand(len(one), -1).clone().requires_grad_()  # one for each entry of the next state
        with torch.enable_grad():
            total = _moved(twin, copies, u).diagonal().sum()
        found.append(torch.autograd.grad(total, copies)[0])
    return torch.stack(found)


def _moved(twin: Any, h: Tensor, u: Tensor | None) -> Tensor:
    """Return the states (batch, S) after one step."""
    found: Tensor = twin.step(h, None if u is None else u.expand(len(h), -1))
    if found.shape != h.shape:
        raise InputError(f"step must return states of the shape {tuple(h.shape)}, got {tuple(found.shape)}")
    return found


def _distinct(h: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distinct states, the most common first, with their residuals and numbers of copies."""
    left = torch.arange(len(h))
    found = []
    scale = h.shape[1] ** 0.5
    while len(left):
        best = left[residuals[left].argmin()]
        distance = (h[left] - h[best]).norm(dim=1) / scale
        same = distance < SAME * (1 + h[best].norm() / scale)
        found.append((int(same.sum()), best))
        left = left[~same]
    found.sort(key=lambda one: -one[0])
    at = torch.tensor([int(index) for _, index in found], dtype=torch.long)
    return h[at], residuals[at], torch.tensor([count for count, _ in found], dtype=torch.long)


def _tensor(name: str, values: ArrayLike | Tensor) -> Tensor:
    try:
        found = torch.as_tensor(values).detach().cpu().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an array of numbers, got {type(values).__name__}") from error
    if found.ndim == 0 or 0 in found.shape or not bool(torch.isfinite(found).all()):
        raise InputError(f"{name} must be finite, with one entry or more, got shape {tuple(found.shape)}")
    return found
