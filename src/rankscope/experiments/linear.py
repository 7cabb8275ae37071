"""Schuessler et al. 2020, Fig. 3: a linear network learns to answer with one number, and theory predicts how.

Only the recurrent weights learn, by plain gradient descent, so that learning time is learning rate times epoch. The
linear network shows what the nonlinear ones show (a change of low rank, faster learning and a smaller change with
stronger random connectivity, a change that depends on its W0), and can be solved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from rankscope.experiments.base import Experiment, seed_of
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Finding, claim, values
from rankscope.experiments.linear_agreement import BY_EYE, comparisons, exact_theory, judged, probability
from rankscope.sweep import Job
from rankscope.theory import ThirdOrder

#: Target z_hat -> learning rate at g = 0; it falls as (1 - g^2)^2, as the time that learning takes does.
RATES = {0.5: 0.015, 1.0: 0.009, 2.0: 0.003}
GAINS = [round(0.1 * step, 1) for step in range(10)]
QUICK_GAINS = (0.0, 0.3, 0.6, 0.8)
PAPER_SIZE, QUICK_SIZE = 1024, 256
EPOCHS = 200
MEASURED = ("learning", "norms", "evaluation", "shuffle", "outlier")


def linear_job(
    task: str | Mapping[str, Any],
    network: Mapping[str, Any],
    seed: int,
    labels: Mapping[str, Any],
    measurements: tuple[str, ...] = MEASURED,
    **training: Any,
) -> Job:
    """Return a job of a linear network whose recurrent weights learn by gradient descent."""
    return Job(
        task=task,
        network={"kind": "rate", "nonlinearity": "identity", "trained": ["recurrent"], **network},
        training={"optimizer": "sgd", "batch_size": 1, **training},
        measurements=measurements,
        seed=seed,
        labels=dict(labels),
    )


def linear_jobs(gains: Iterable[float], rates: Mapping[float, float], samples: int, N: int) -> list[Job]:
    """Return a job for each target, gain and sample."""
    return [
        linear_job(
            {"name": "fixed_point", "target": target},
            {"gain": gain, "hidden_size": N},
            seed_of("linear", target, gain, N, sample),
            {"sample": sample, "target": target},
            epochs=EPOCHS,
            learning_rate=rate * (1 - gain**2) ** 2,
            recorded_epochs=EPOCHS,
            singular_values=32,
        )
        for target, rate in rates.items()
        for gain in gains
        for sample in range(samples)
    ]


PRESETS = {
    "quick": lambda: linear_jobs(QUICK_GAINS, RATES, 3, QUICK_SIZE),
    "paper": lambda: linear_jobs(GAINS, RATES, 5, PAPER_SIZE),
}


@claim("learned", "every network learns: its loss falls below 5 % of the initial one", "all")
def _learned(dataset: xr.Dataset) -> Finding:
    # Wherever steps are short enough to settle.
    there = [comparison for comparison in comparisons(dataset) if comparison.settles]
    done, networks = sum(c.measured["s1"].size for c in there), sum(c.networks for c in there)
    return Finding(f"{done} of {networks} converged", done == networks) if there else NOT_IN_THIS_RUN


@claim(
    "early learning",
    "the paper's third-order theory gives s1 of dW half-way to convergence (within 10 %)",
    "theory and simulation coincide early",
)
def _early_learning(dataset: xr.Dataset) -> Finding:
    ratios = {}
    for comparison in comparisons(dataset):
        convergence = comparison.theory["convergence_epoch"]
        if comparison.settles and comparison.measured["s1"].size and np.isfinite(convergence):
            epoch = round(convergence / 2)
            first = dataset[["singular_value_history"]].isel(record=epoch).sel(leading_index=1)
            s1 = values(first, "singular_value_history", gain=comparison.gain, target=comparison.target)
            expansion = ThirdOrder(comparison.gain, comparison.target).solve([comparison.rate * epoch])
            ratios[str(comparison)] = s1 / expansion["singular_value"].values[0, 0]
    finding = judged({name: probability(ratio, 1.0, BY_EYE) for name, ratio in ratios.items()})
    if finding.holds is None:
        return finding
    off = {name: float(ratio.mean()) - 1 for name, ratio in ratios.items()}
    most = max(off, key=lambda name: abs(off[name]))
    median = float(np.median(np.abs(list(off.values()))))
    text = f"{finding.measured}; {100 * median:.1f} % off (median), the most {100 * off[most]:+.0f} % at {most}"
    return Finding(text, finding.holds)


LINEAR = Experiment(
    name="linear",
    description="Linear network, one number to learn: loss and singular values with theory (paper Fig. 3)",
    presets=PRESETS,
    claims=(
        _learned,
        _early_learning,
        exact_theory("convergence time, s1 and s2 of dW", "convergence_epoch", "s1", "s2"),
    ),
)
