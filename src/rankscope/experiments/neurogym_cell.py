"""One cell of the study of NeuroGym: an environment to learn, and how well and in how many directions it was learned.

Everything that is measured for the paper's tasks is measured here too, on fresh trials. But most of these tasks cannot
be solved without error, as the stimuli are noisy, so that a loss does not fall to 5 % of the first one. Convergence and
functional rank are therefore measured against what learning reached as well: by the loss above the final one, and by
the score, which is how often the decisions are right.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from rankscope import lowrank
from rankscope.errors import InputError
from rankscope.experiments.cell import EVALUATION_TRIALS, RANKS, measure, provenance
from rankscope.networks.rate import RateRNN
from rankscope.sweep.processes import Report
from rankscope.tasks.neurogym import MISSING, STEPS, USUAL_STEPS, NeuroGym, installed
from rankscope.tasks.trials import Trials
from rankscope.training import train
from rankscope.training.convergence import convergence_epoch
from rankscope.validation import integer

UNSUITABLE = "unsuitable"
"""Status of an environment that is no task for these networks; its `obstacle` says why."""

KEPT = 0.95
SMOOTHED = 20
"""Epochs that the loss is averaged over, before asking when it has fallen."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NeuroGymCell:
    """What to train.

    Attributes
    ----------
    environment
        Name in NeuroGym's registry.
    gain, hidden_size, epochs
        g, N and the number of gradient steps.
    seed
        Everything random, the pool of trials too, is derived from it.
    sample
        Which of several networks of the same kind this is; a label.
    pool
        Trials to train on; 0 trains on fresh ones. What is measured is measured on fresh ones.
    parameters
        Further parameters of `NeuroGym`.
    training
        Further options of `train`.
    """

    environment: str
    gain: float = 0.9
    hidden_size: int = 256
    epochs: int = 1000
    seed: int = 0
    sample: int = 0
    pool: int = 4096
    parameters: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return the cell as plain values."""
        names = ("environment", "gain", "hidden_size", "epochs", "seed", "sample", "pool", "parameters", "training")
        return {"task": NeuroGym.name, **{name: getattr(self, name) for name in names}}

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that two cells share only if they describe the same work."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def steps(self) -> int:
        """Time steps in all of the training."""
        return self._steps * self.epochs

    @property
    def work(self) -> float:
        """About how many multiplications the cell takes."""
        batch = int(self.training.get("batch_size", 32))
        truncations = 2 * len(RANKS) * EVALUATION_TRIALS
        return float(self.hidden_size**2 * self._steps * (3 * self.epochs * batch + truncations))

    @property
    def _steps(self) -> int:
        return STEPS.get(self.environment, USUAL_STEPS)

    def check(self) -> None:
        """Find out whether the cell can be run here.

        Raises
        ------
        InputError
            If NeuroGym is not installed.
        """
        if not installed():
            raise InputError(MISSING)

    def measure(self, report: Report, checkpoint: str | os.PathLike[str] | None = None) -> xr.Dataset:
        """Train the network and return everything measured, going on from its checkpoint if it has one.

        An environment that cannot be learned from examples is a result, too: one with the reason in `obstacle`.
        """
        self.check()
        weights_rng, training_rng, evaluation_rng, pool_rng = (
            np.random.default_rng(seed)
            for seed in np.random.SeedSequence(integer("seed", self.seed, minimum=0)).spawn(4)
        )
        labels = {
            "task": short_name(self.environment),
            "gain": self.gain,
            "sample": self.sample,
            "hidden_size": self.hidden_size,
            "seed": self.seed,
        }
        try:
            pool_seed = int(pool_rng.integers(2**32))
            task = NeuroGym(self.environment, pool=self.pool, pool_seed=pool_seed, **self.parameters).balanced()
        except InputError as error:
            unsuitable = xr.Dataset({"status": UNSUITABLE, "obstacle": str(error)})
            return unsuitable.assign_coords(labels).assign_attrs(provenance(self))
        network = RateRNN.initialize(task, self.hidden_size, self.gain, weights_rng)
        before = network.snapshot()
        history = train(
            network, task, self.epochs, training_rng, progress=report, checkpoint=checkpoint, **self.training
        )
        fresh = task.fresh()
        measured = measure(before, network, history, fresh, evaluation_rng, ("truncation", "trial"))
        decisions = fresh.decisions(EVALUATION_TRIALS, evaluation_rng)
        found = xr.merge(
            [measured, against_what_was_reached(measured), scores(before, network, decisions, task.loss)],
            join="exact",
            combine_attrs="drop_conflicts",
        )
        found["steps"] = ((), task.steps, {"long_name": "steps of a trial"})
        found["obstacle"] = ((), "", {"long_name": "why this is no task"})
        return found.assign_coords(labels).assign_attrs(provenance(self))


def short_name(environment: str) -> str:
    """Return the name of an environment without its version."""
    return environment.removesuffix("-v0")


def against_what_was_reached(measured: xr.Dataset) -> xr.Dataset:
    """Return when, and with how many directions, 95 % of what learning reached in the loss is there.

    Parameters
    ----------
    measured
        Of one network, with `loss`, `truncation_loss` and `evaluation_loss`.
    """
    losses = np.asarray(measured["loss"].values, dtype=np.float64)
    window = min(SMOOTHED, len(losses))
    smooth = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    fallen = convergence_epoch(smooth - smooth[-1], 1 - KEPT) if smooth[0] > smooth[-1] else None
    curve = lowrank.TruncationCurve(
        range(measured.sizes["rank"]), measured["truncation_loss"].values, measured["evaluation_loss"].item()
    )
    rank = lowrank.functional_rank(curve, "recovered") if curve.scores[0] > curve.full else None
    return xr.Dataset(
        {
            "fall_epoch": (
                (),
                float("nan") if fallen is None else float(fallen),
                {"long_name": f"first epoch from which the loss over {SMOOTHED} epochs has made 95 % of its fall"},
            ),
            "excess_rank": (
                (),
                float("nan") if rank is None else float(rank),
                {"long_name": "smallest rank with a loss, above the final one, below 5 % of that of rank 0"},
            ),
        }
    )


def scores(before: RateRNN, after: RateRNN, decisions: Trials, loss: str | None) -> xr.Dataset:
    """Return how often decisions are right, before and after learning, and with the change truncated.

    Parameters
    ----------
    decisions
        Trials of which only the decision periods count.
    loss
        "cross_entropy": the score is the fraction of steps decided rightly, averaged over the classes that occur, so
        that chance is one over their number. "squared": it is the explained variance, of which chance has 0.
    """
    judge = _wrong if loss == "cross_entropy" else _unexplained
    with torch.no_grad():
        first, last = (
            1 - float(judge(network(decisions.inputs, rng=0), decisions.targets, decisions.mask))
            for network in (before, after)
        )
    chance = 1 / len(_classes(decisions)) if loss == "cross_entropy" else 0.0
    wrong = lowrank.truncation_curve(before, after, decisions, rng=0, loss=judge)
    curve = lowrank.TruncationCurve(wrong.ranks, 1 - wrong.scores, last, higher_is_better=True)
    rank = lowrank.functional_rank(curve, "recovered", baseline=chance) if last > chance else None
    kind = "balanced accuracy" if loss == "cross_entropy" else "explained variance"
    return xr.Dataset(
        {
            "score": ((), last, {"long_name": f"{kind} of the decisions, on fresh trials"}),
            "initial_score": ((), first, {"long_name": "the same before learning"}),
            "chance": ((), chance, {"long_name": "score without knowing anything"}),
            "score_rank": (
                (),
                float("nan") if rank is None else float(rank),
                {"long_name": "smallest rank that keeps 95 % of the score above chance"},
            ),
            "truncation_score": ("rank", curve.scores, {"long_name": "score with the change truncated to this rank"}),
        },
        {"rank": list(curve.ranks)},
    )


def _classes(trials: Trials) -> list[int]:
    counted = trials.mask[..., 0] > 0
    return sorted(set(trials.targets.argmax(-1)[counted].tolist()))


def _wrong(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the fraction of steps decided wrongly, each class counting the same."""
    counted = mask[..., 0] > 0
    said, wanted = outputs.argmax(-1)[counted], targets.argmax(-1)[counted]
    right = torch.stack([(said[wanted == one] == one).double().mean() for one in set(wanted.tolist())])
    return 1 - right.mean()


def _unexplained(outputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the mean square of the error over the variance of what is wanted, all channels together."""
    counted = mask[..., 0] > 0
    error, wanted = (outputs - targets)[counted].double(), targets[counted].double()
    return error.square().sum() / (wanted - wanted.mean(0)).square().sum()
