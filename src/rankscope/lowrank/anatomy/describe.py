"""`anatomy`: whose directions a change consists of, as one Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.anatomy import directions as aspects
from rankscope.lowrank.anatomy.directions import SIDES, STAGES, Directions, Found, variable
from rankscope.lowrank.anatomy.growth import growth
from rankscope.lowrank.anatomy.partners import ACTIVE, PARTNERS, RESOLVED, Sides, given, partners
from rankscope.lowrank.anatomy.products import products
from rankscope.lowrank.anatomy.shares import components
from rankscope.lowrank.anatomy.subspaces import overlaps
from rankscope.lowrank.change import Change
from rankscope.lowrank.matrices import Block, blocks_of, changes_of
from rankscope.networks.protocol import Network, check_network, hidden_size_of, matrices_of, with_weights
from rankscope.networks.use import issue
from rankscope.tasks.trials import OneTrialTask, Task, Trials, trials_of
from rankscope.training.history import History
from rankscope.training.loss import Loss, find_loss
from rankscope.validation import RngLike, generator, integer

Array = NDArray[np.float64]

TRIALS = 128
DIRECTIONS = 8


def anatomy(
    before: Network,
    after: Network,
    task: Task | Trials | None = None,
    *,
    matrices: Iterable[str] | None = None,
    loss: str | Loss | None = None,
    partners: Mapping[str, ArrayLike] | None = None,
    history: History | Mapping[int, Network] | None = None,
    directions: int = DIRECTIONS,
    rng: RngLike = 0,
) -> xr.Dataset:
    """Return whose directions the change of a network consists of.

    Parameters
    ----------
    before, after
        The network before and after learning. Neither is changed.
    task
        Task or trials for the shares in activity and adjoints, which are NaN without it. Of a task, 128 trials are
        drawn, or the one that it has.
    matrices
        Names, patterns, and gates in brackets, as in `rankscope.lowrank.changes`; by default the recurrent weights, of
        layers with gates gate by gate.
    loss
        As in `train`; by default that of the task.
    partners
        Name -> vectors (N,) or (N, d): further subspaces with which the directions are compared, on each side of that
        size.
    history
        The record of the training with copies of the network or its weights (`kept_epochs`, `record_weights`), or epoch
        -> network: adds the growth of the directions over `growth_record`, after `growth_epoch`
        completed epochs.
    directions
        Number of leading directions, at most that of singular values.
    rng
        Source of the trials and of noise.

    Returns
    -------
    xr.Dataset
        Over `block` (matrix or gate), `direction`, `side` ("left": u, postsynaptic; "right": v, presynaptic), `partner`
        and `stage` (weights and activity "before" or "after" learning); each variable has a `long_name`.

    Raises
    ------
    InputError
        If the networks do not fit together, or an argument is out of range.

    Warns
    -----
    UserWarning
        If a change is zero: there are no directions, and what describes them is NaN.
    """
    for name, network in (("before", before), ("after", after)):
        check_network(name, network)
    described = Described(before, after, matrices, directions, partners)
    source = generator(rng)
    trials = _trials(task, source)
    function = find_loss(loss, None if isinstance(task, Trials) else task)
    with threads_for(hidden_size_of(after)):
        found = described.now(trials, function, source)
        if history is not None:
            networks = _along(history, after, described)
            found = found.merge(described.over(networks, _last(history, networks)))
    return found


class Described:
    """The matrices and gates of two networks, their directions and partners.

    Parameters
    ----------
    before, after, matrices, directions, partners
        As in `anatomy`.
    """

    def __init__(
        self,
        before: Network,
        after: Network,
        matrices: Iterable[str] | None = None,
        directions: int = DIRECTIONS,
        partners: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        self.before, self.after = before, after
        self.blocks = gates_first(after, matrices)
        changes = changes_of(before, after, self.blocks)
        most = max(min(change.shape) for change in changes.values())
        count = min(integer("directions", directions, minimum=1), most)
        self.directions = {name: Directions(change, min(count, *change.shape)) for name, change in changes.items()}
        self.partners = {
            block.name: [self._partners(network, block, changes[block.name], partners) for network in (before, after)]
            for block in self.blocks
        }
        own = dict.fromkeys(name for pair in self.partners.values() for one in pair for name in one)
        self.names = list(dict.fromkeys([*PARTNERS, *ACTIVE, *own]))
        for name, one in self.directions.items():
            if one.empty:
                issue(f"the change of {name!r} is zero: it has no directions, and its anatomy is NaN")

    def now(self, trials: Trials | None, loss: Loss | None, rng: RngLike) -> xr.Dataset:
        """Return everything but growth; activity only with trials and a loss."""
        found: list[dict[str, Any]] = [{}, {}]
        if trials is not None and loss is not None:
            found = [products(network, trials, loss, rng) for network in (self.before, self.after)]
        matrices = {block.matrix for block in self.blocks}
        activity = [{key: components(of[key].activity) for key in matrices & of.keys()} for of in found]
        datasets = []
        for block in self.blocks:
            one, key = self.directions[block.name], block.matrix
            known = [
                Found(active[key], components(of[key].adjoints[:, block.rows])) if key in of else Found()
                for of, active in zip(found, activity, strict=True)
            ]
            both = zip(self.partners[block.name], known, strict=True)
            partners = [of_weights | active.partners(one.change.shape) for of_weights, active in both]
            variables = {
                **aspects.strengths(one),
                **aspects.partner_overlaps(one, partners, self.names),
                **aspects.product_shares(one, known),
                **aspects.in_trained_weights(one),
                **aspects.along_initial(one),
            }
            datasets.append(xr.Dataset(variables, self._coordinates(one, variables)))
        return self._joined(datasets)

    def over(self, networks: Mapping[int, Mapping[str, Array]], last: int) -> xr.Dataset:
        """Return the growth of the directions.

        Parameters
        ----------
        networks
            Number of completed epochs -> W of each matrix, by name.
        last
            Number of completed epochs at the end.
        """
        epochs = sorted(networks)
        datasets = []
        for block in self.blocks:
            one = self.directions[block.name]
            k, shape = one.known, (len(epochs), one.count)
            strength, value, cosine = (np.full(shape, np.nan) for _ in range(3))
            half = np.full(one.count, np.nan)
            overlap = np.full((len(epochs), len(self.names), len(SIDES), one.count), np.nan)
            if k:
                changes = [networks[epoch][block.matrix][block.rows] - one.change.before for epoch in epochs]
                found = growth(epochs, changes, one.U[:, :k], one.s[:k], one.V[:, :k].T, last)
                strength[:, :k], value[:, :k], cosine[:, :k] = found.strength, found.matched, found.cosine
                half[:k] = found.half
                for index, name in enumerate(self.names):
                    sides = self.partners[block.name][0].get(name)
                    for side, vectors in enumerate((found.left, found.right)):
                        if sides is not None and sides[side].shape[1]:
                            for at in range(len(epochs)):
                                overlap[at, index, side, :k] = overlaps(vectors[at], sides[side])
            dims = ("growth_record", "direction")
            variables = {
                "growth_strength": variable(dims, strength, "u^T dW v of the final direction at an earlier epoch"),
                "growth_singular_value": variable(dims, value, "singular value of the matched direction"),
                "growth_cosine": variable(dims, cosine, "|cos| |cos| of the matched and the final direction"),
                "growth_overlap": variable(
                    ("growth_record", "partner", "side", "direction"), overlap, "overlap of the matched direction"
                ),
                "half_growth_epoch": variable(("direction",), half, "epoch of half the final strength"),
            }
            datasets.append(xr.Dataset(variables, self._coordinates(one, variables)))
        # A variable and no coordinate, as the networks of a run may have different epochs.
        times = variable(("growth_record",), epochs, "number of completed epochs of the record")
        return self._joined(datasets).assign(growth_epoch=times)

    def _coordinates(self, one: Directions, variables: Mapping[str, Any]) -> dict[str, Any]:
        known = {
            "direction": np.arange(1, one.count + 1),
            "side": list(SIDES),
            "partner": self.names,
            "stage": list(STAGES),
            "matrix": list(aspects.MATRICES),
            "activity_component": np.arange(1, one.change.shape[1] + 1),
            "adjoint_component": np.arange(1, one.change.shape[0] + 1),
            "spectrum_index": np.arange(1, min(one.change.shape) + 1),
        }
        used = {dim for dims, *_ in variables.values() for dim in dims}
        return {name: values for name, values in known.items() if name in used}

    def _joined(self, datasets: list[xr.Dataset]) -> xr.Dataset:
        names = xr.DataArray([block.name for block in self.blocks], dims="block", name="block")
        return xr.concat(datasets, names, join="outer", data_vars="all", coords="minimal", compat="override")

    def _partners(
        self, network: Network, block: Block, change: Change, more: Mapping[str, ArrayLike] | None
    ) -> dict[str, Sides]:
        found = partners(network, change.before, block)
        for name, vectors in (more or {}).items():
            if name in (*PARTNERS, *ACTIVE, *RESOLVED):
                raise InputError(f"partners must have names of their own, got {name!r}")
            columns = np.asarray(vectors, dtype=np.float64)
            columns = columns[:, None] if columns.ndim == 1 else columns
            if columns.ndim != 2 or len(columns) not in change.shape or not np.isfinite(columns).all():
                raise InputError(
                    f"partners must hold finite vectors (N, d) with N one of {change.shape}, got {name!r} of the shape "
                    f"{columns.shape}"
                )
            found[name] = given(columns, change.shape)
        return found


def gates_first(network: Network, matrices: Iterable[str] | None = None) -> list[Block]:
    """Return the matrices that are named; in place of one with gates, and not named with brackets, its gates."""
    blocks = blocks_of(network, matrices, gates=True)
    gated = {block.matrix for block in blocks if block.gate is not None}
    return [block for block in blocks if block.gate is not None or block.matrix not in gated]


def weights_of(network: Network, blocks: Iterable[Block]) -> dict[str, Array]:
    """Return the effective matrices of these blocks in double precision, by name."""
    with torch.no_grad():
        found = matrices_of(network, dict.fromkeys(block.matrix for block in blocks))
        return {name: matrix.detach().cpu().double().numpy() for name, matrix in found.items()}


def _trials(task: Task | Trials | None, rng: np.random.Generator) -> Trials | None:
    if task is None or isinstance(task, Trials):
        return task
    return trials_of(task, 1 if isinstance(task, OneTrialTask) else TRIALS, rng)


def _along(
    history: History | Mapping[int, Network], after: Network, described: Described
) -> dict[int, dict[str, Array]]:
    """Return number of completed epochs -> matrices."""
    if not isinstance(history, History):
        return {int(epoch): weights_of(network, described.blocks) for epoch, network in history.items()}
    if history.kept:
        return {
            epoch: weights_of(with_weights(after, state), described.blocks) for epoch, state in history.kept.items()
        }
    names = {block.matrix for block in described.blocks}
    recorded = {name: one.weights for name, one in history.matrices.items() if one.weights is not None}
    if not names <= recorded.keys():
        raise InputError(
            "history must have copies of the network or the recorded weights, got one without; train with kept_epochs, "
            "or with record_weights=True"
        )
    return {
        int(epoch): {name: np.asarray(recorded[name][at], dtype=np.float64) for name in names}
        for at, epoch in enumerate(history.recorded_epochs)
    }


def _last(history: History | Mapping[int, Network], networks: Mapping[int, Any]) -> int:
    return history.epochs if isinstance(history, History) else max(networks, default=0)
