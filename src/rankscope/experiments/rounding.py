"""How much of `gain` a rounding decides: the same networks, with initial weights moved by one part in ten million.

At g = 0 Mante and Romo are learned on the edge of Adam's stability, and far above g = 1 networks are chaotic before
they learn. There a difference in the last bit of a weight grows to a different network, as another seed would make it.
Each network of `gain` at these gains is trained as it is (repetition 0) and after three such moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from rankscope.experiments.base import MEASURED, PAPER_EPOCHS, PAPER_SIZE, QUICK_SIZE, Experiment, seed_of
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Finding, by_gain, claim, standard_error
from rankscope.experiments.gain import HANDFUL, few_directions, ranks_where_learned
from rankscope.sweep import Job

GAINS = {"flipflop": (1.8, 2.1), "mante": (0.0, 2.4, 2.7), "romo": (0.0, 3.0)}
QUICK_GAINS = {"flipflop": (1.8,), "mante": (0.0,)}
MOVE = 1e-7  # relative; single precision resolves 6e-8
REPETITIONS = 4  # the first is not moved


def rounding_jobs(gains: Mapping[str, Iterable[float]], samples: int, repetitions: int, N: int) -> list[Job]:
    """Return a job for each task, gain, sample and repetition; those of a sample share their seed."""
    return [
        Job(
            task=task,
            network={"kind": "rate", "gain": float(gain), "hidden_size": N}
            | ({"perturbation": MOVE, "perturbation_rng": repetition} if repetition else {}),
            training={"epochs": PAPER_EPOCHS[task], "recorded_epochs": 2},
            measurements=MEASURED,
            seed=seed_of(task, float(gain), N, sample),
            labels={"sample": sample, "repetition": repetition},
        )
        for task, its_gains in gains.items()
        for gain in its_gains
        for sample in range(samples)
        for repetition in range(repetitions)
    ]


def repetitions(dataset: xr.Dataset) -> list[xr.Dataset]:
    """Return the networks of each repetition; none of a run without that label."""
    if "repetition" not in dataset.coords:
        return []
    run = dataset if "repetition" in dataset.dims else dataset.expand_dims("repetition")
    return [run.isel(repetition=index) for index in range(run.sizes["repetition"])]


@claim(
    "{task}: few directions",
    f"{{task}}: whatever the rounding, a handful of directions suffices (at most {HANDFUL}, as in gain)",
    "(not in the paper)",
)
def _same_verdict(dataset: xr.Dataset, task: str) -> Finding:
    runs = repetitions(dataset)
    found = [few_directions(one, task).holds for one in runs]
    means = [{g: x.mean() for g, x in ranks_where_learned(one, task).items()} for one in runs]
    texts = []
    for gain in sorted({gain for one in means for gain in one}):
        listed = ", ".join(f"{one[gain]:.3g}" if gain in one else "not learned" for one in means)
        texts.append(f"{listed} at g = {gain:g}")
    if len(runs) < 2 or not texts:
        return NOT_IN_THIS_RUN
    return Finding("; ".join(texts), not any(holds is False for holds in found))


@claim(
    "{task}: like another seed",
    "{task}: a move in the last bit changes no mean more than other seeds would (three standard errors)",
    "(not in the paper)",
)
def _as_another_seed(dataset: xr.Dataset, task: str) -> Finding:
    texts, holds = [], True
    for name, short in (("change_norm", "|dW|"), ("functional_rank", "rank")):
        means: dict[float, list[float]] = {}
        errors: dict[float, list[float]] = {}
        for one in repetitions(dataset):
            for gain, x in by_gain(one, name, task=task).items():
                if x.size > 1:
                    means.setdefault(gain, []).append(float(x.mean()))
                    errors.setdefault(gain, []).append(standard_error(x))
        for gain, found in means.items():
            if len(found) > 1:
                moved, error = (
                    max(abs(x - found[0]) for x in found[1:]),
                    float(np.hypot(max(errors[gain]), errors[gain][0])),
                )
                holds &= moved <= 3 * error
                texts.append(
                    f"{short} {found[0]:.3g} moves by {moved:.2g} (standard error {error:.2g}) at g = {gain:g}"
                )
    return Finding("; ".join(texts), holds) if texts else NOT_IN_THIS_RUN


ROUNDING = Experiment(
    name="rounding",
    description="Networks of gain where roundings matter, trained again with weights moved by 1e-7",
    presets={
        "quick": lambda: rounding_jobs(QUICK_GAINS, 3, 2, QUICK_SIZE),
        "paper": lambda: rounding_jobs(GAINS, 5, REPETITIONS, PAPER_SIZE),
    },
    claims=tuple(one.at(task=task) for task in GAINS for one in (_same_verdict, _as_another_seed)),
)
