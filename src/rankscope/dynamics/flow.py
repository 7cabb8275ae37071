r"""The flow of a network in the plane of one or two directions, with fixed points and trajectories.

A state has the coordinates :math:`\kappa_i = d_i \cdot h / \sqrt N` along orthonormal directions d, by default the
leading left singular vectors u of the change: what learning writes (Mastrogiuseppe & Ostojic 2018; Dubreuil et al.
2022). The vector field is the velocity of :math:`\kappa` at the states
:math:`h = \sqrt N \sum_i \kappa_i d_i + h_\perp`. All other coordinates :math:`h_\perp` start from zero and relax for
some time while :math:`\kappa` is held, so that zeros of the field are fixed points of the whole network. Where W is of
this rank and nothing else drives the network, :math:`h_\perp` stays zero, and the field is the mean-field dynamics of
:math:`\kappa`. The share of the squared velocity that lies in the plane tells whether the other coordinates have come
to rest; in chaotic networks they do not, and the picture is a snapshot. Fixed points and trajectories are those of the
whole network, projected.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rankscope.dynamics.fixed_points import FixedPoints, fixed_points
from rankscope.dynamics.trajectories import steps_of, trajectories
from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.lowrank import change
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Task, Trials, trials_of
from rankscope.validation import RngLike, generator, integer, number

Array = NDArray[np.float64]

TRIALS = 32
"""Trials that are drawn of a task."""
STARTS = 96
"""States along the trials from which fixed points are searched."""
POINTS = 21
"""Points of the grid along each direction."""
SHOWN = 8
"""Trajectories that are kept."""
MOST = 64
"""Fixed points that are kept."""
MOST_PAIRED = 12
"""Fixed points between which further ones are searched, those that most starts reached."""
MARGIN = 1.25
RELAXATION = 30.0
"""Time constants for which the other coordinates relax."""


def flow(
    before: RateRNN,
    after: RateRNN,
    task: Task | Trials,
    *,
    directions: ArrayLike | None = None,
    count: int = 2,
    inputs: ArrayLike | None = None,
    starts: int = STARTS,
    points: int = POINTS,
    relaxation: float = RELAXATION,
    rng: RngLike = 0,
) -> xr.Dataset:
    """Return the flow of a rate network in the plane of one or two directions.

    Parameters
    ----------
    before, after
        The network before and after learning.
    task
        Trials for the trajectories, or a task of which 32 are drawn.
    directions
        (N, 1) or (N, 2), made orthonormal; by default the `count` leading left singular vectors of the change.
    count
        1 or 2.
    inputs
        Constant input of field and fixed points, (in,); by default none.
    starts
        Number of states along the trials from which fixed points are searched, from a random fraction of each, and then
        from the middle between any two that were found.
    points
        Number of points of the grid along each direction.
    relaxation
        Time constants for which the coordinates outside the plane relax; 0 leaves them at zero.
    rng
        Source of the trials and of the starts.

    Returns
    -------
    xr.Dataset
        The grid `flow_kappa`, the field `flow_velocity` in units of kappa per time constant, the share
        `flow_share` of the squared velocity in the plane, `fixed_point` positions with the largest modulus of a
        multiplier (stable below 1), and `flow_trajectory`; each variable has a `long_name`.

    Raises
    ------
    InputError
        If a network is no RateRNN, or an argument is out of range.
    """
    for name, network in (("before", before), ("after", after)):
        if not isinstance(network, RateRNN):
            raise InputError(f"{name} must be a RateRNN, got {type(network).__name__}")
    count = integer("count", count, minimum=1, maximum=2)
    starts = integer("starts", starts, minimum=1)
    points = integer("points", points, minimum=2)
    relaxation = number("relaxation", relaxation, minimum=0)
    source = generator(rng)
    trials = trials_of(task, TRIALS, source)
    d = _directions(before, after, directions, min(count, after.hidden_size))
    u = None if inputs is None else torch.as_tensor(np.asarray(inputs, dtype=np.float64))
    with threads_for(after.hidden_size):
        states = trajectories(after, trials)
        flat = states.flatten(0, 1)
        chosen = flat[torch.from_numpy(source.permutation(len(flat))[:starts])]
        # Saddles are closer to the origin than what they separate.
        scaled = chosen * torch.from_numpy(source.random((len(chosen), 1)))
        first = fixed_points(after, torch.cat([chosen, scaled, torch.zeros_like(chosen[:1])]), u)
        found = fixed_points(after, _between(first, chosen), u, settling=0)
        return _dataset(after, d, u, states[:SHOWN], found, points, relaxation)


def _between(found: FixedPoints, starts: Tensor) -> Tensor:
    """Return fixed points and the middle between any two of them: saddles are found from there."""
    if not len(found.states):
        return starts
    h = torch.from_numpy(found.states[:MOST_PAIRED])
    one, other = torch.triu_indices(len(h), len(h), 1)
    return torch.cat([torch.from_numpy(found.states), (h[one] + h[other]) / 2])


def _directions(before: RateRNN, after: RateRNN, given: ArrayLike | None, count: int) -> Array:
    """Return orthonormal directions, (N, 1) or (N, 2)."""
    if given is None:
        learned = change(before, after)
        if not learned.norm:
            raise InputError("directions must be given for a network that has not changed")
        U = np.linalg.svd(learned.matrix)[0][:, :count]
        turned: Array = U * np.where(U.sum(0) < 0, -1.0, 1.0)
        return turned
    found = np.asarray(given, dtype=np.float64)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or found.shape[0] != after.hidden_size or found.shape[1] not in (1, 2):
        raise InputError(f"directions must have shape ({after.hidden_size}, 1 or 2), got {found.shape}")
    if np.linalg.matrix_rank(found) < found.shape[1]:
        raise InputError("directions must be linearly independent, got vectors that are not")
    Q, R = np.linalg.qr(found)
    signed: Array = Q * np.sign(np.diag(R))
    return signed


def _dataset(
    network: RateRNN,
    d: Array,
    u: Tensor | None,
    states: Tensor,
    found: FixedPoints,
    points: int,
    relaxation: float,
) -> xr.Dataset:
    root = network.hidden_size**0.5
    D = torch.from_numpy(d)
    paths = (states @ D / root).numpy()
    fixed = found.states @ d / root
    extents = np.max(np.abs(np.concatenate([paths.reshape(-1, d.shape[1]), fixed])), axis=0) * MARGIN
    grid = np.stack([np.linspace(-extent, extent, points) for extent in np.where(extents > 0, extents, 1.0)])
    kappa = torch.from_numpy(np.stack(np.meshgrid(*grid, indexing="ij"), -1))
    twin = steps_of(network)
    held = kappa.reshape(-1, d.shape[1]) @ D.t() * root
    h = held
    with torch.no_grad():
        for _ in range(round(relaxation / network.dynamics.dt)):
            moved = twin.step(h, u)
            h = held + moved - (moved @ D) @ D.t()
        velocity = (twin.step(h, u) - h) / network.dynamics.dt
    inside = velocity @ D
    total = velocity.square().sum(1)
    share = torch.where(total > 0, inside.square().sum(1) / total.clamp(min=1e-300), 1.0)
    axes = ["flow_x", "flow_y"][: d.shape[1]]
    shape = kappa.shape[:-1]
    kept = min(len(fixed), MOST)
    positions, multipliers = np.full((MOST, d.shape[1]), np.nan), np.full(MOST, np.nan)
    positions[:kept] = fixed[:kept]
    multipliers[:kept] = np.abs(found.multipliers[:kept, 0])

    def variable(dims: list[str], values: Any, long_name: str) -> tuple[list[str], Any, dict[str, str]]:
        return dims, values, {"long_name": long_name}

    return xr.Dataset(
        {
            "flow_kappa": variable(["flow_component", "flow_x"], grid, "coordinates of the grid"),
            "flow_velocity": variable(
                [*axes, "flow_component"], (inside / root).reshape(*shape, -1).numpy(), "velocity in the plane"
            ),
            "flow_share": variable(axes, share.reshape(shape).numpy(), "share of the squared velocity in the plane"),
            "fixed_point": variable(["fixed_point_index", "flow_component"], positions, "projected fixed points"),
            "fixed_point_multiplier": variable(
                ["fixed_point_index"], multipliers, "largest modulus of a multiplier; stable below 1"
            ),
            "fixed_points_found": variable([], float(len(fixed)), "number of fixed points that were found"),
            "stable_fixed_points_found": variable([], float(found.stable.sum()), "number of stable ones among them"),
            "flow_trajectory": variable(
                ["flow_trial", "flow_step", "flow_component"], paths, "states along trials, projected"
            ),
        }
    )
