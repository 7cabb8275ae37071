"""Paper Fig. 3: a linear network learns to answer with one number, as the theory says it should.

All that the nonlinear networks show, low rank, faster learning and smaller changes from stronger random connectivity, a
change that is tied to its W0, shows in a linear network on the simplest of tasks, where it can be derived. Only the
recurrent weights learn, by plain gradient descent, so that learning time is learning rate times epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from rankscope.experiments.base import Experiment, seed_of, work
from rankscope.experiments.cell import Cell
from rankscope.experiments.claims import NOT_IN_THIS_RUN, Claim, Finding, values
from rankscope.experiments.linear_agreement import BY_EYE, agreement, chance, judged, places
from rankscope.tasks import FixedPoint
from rankscope.theory import ThirdOrder

#: Target z_hat -> learning rate at g = 0; it falls as (1 - g^2)^2, as the time that learning takes does.
RATES = {0.5: 0.015, 1.0: 0.009, 2.0: 0.003}
GAINS = [round(0.1 * step, 1) for step in range(10)]
QUICK_GAINS = (0.0, 0.3, 0.6, 0.8)
PAPER_SIZE, QUICK_SIZE = 1024, 256
EPOCHS = 200
RECURRENT_SGD = {"optimizer": "sgd", "batch_size": 1}
LINEAR_NETWORK = {"nonlinearity": "identity", "trained": ["recurrent"]}


def linear_cells(gains: Iterable[float], rates: Mapping[float, float], samples: int, N: int) -> list[Cell]:
    """Return one cell for each gain, target and sample, every one with a seed of its own."""
    cells = [
        Cell(
            FixedPoint(target=target),
            gain=gain,
            hidden_size=N,
            epochs=EPOCHS,
            sample=sample,
            seed=seed_of("linear", target, gain, N, sample),
            network=LINEAR_NETWORK,
            training=RECURRENT_SGD
            | {"learning_rate": rate * (1 - gain**2) ** 2, "recorded_epochs": EPOCHS, "singular_values": 32},
            labels={"target": target},
            measurements=("outlier",),
        )
        for target, rate in rates.items()
        for gain in gains
        for sample in range(samples)
    ]
    return sorted(cells, key=work, reverse=True)


PRESETS = {
    "quick": lambda: linear_cells(QUICK_GAINS, RATES, 3, QUICK_SIZE),
    "paper": lambda: linear_cells(GAINS, RATES, 5, PAPER_SIZE),
}


def learned(dataset: xr.Dataset) -> Finding:
    """Find whether every network converged, wherever the steps are short enough to settle."""
    there = [place for place in places(dataset) if place.settles]
    done, networks = (sum(n) for n in ([p.measured["s1"].size for p in there], [p.networks for p in there]))
    return Finding(f"{done} of {networks} converged", done == networks) if there else NOT_IN_THIS_RUN


def early_learning(dataset: xr.Dataset) -> Finding:
    """Find whether the first singular value half-way to convergence is the paper's, as well as figures are read.

    The expansion is one in learning time, and says nothing of later times.
    """
    ratios = {}
    for place in places(dataset):
        if place.settles and place.measured["s1"].size and np.isfinite(place.theory["convergence_epoch"]):
            epoch = round(place.theory["convergence_epoch"] / 2)
            of_first = dataset[["singular_value_history"]].isel(record=epoch).sel(leading_index=1)
            s1 = values(of_first, "singular_value_history", gain=place.gain, target=place.target)
            expansion = ThirdOrder(place.gain, place.target).solve([place.rate * epoch])["singular_value"].values[0, 0]
            ratios[str(place)] = s1 / expansion
    finding = judged({name: chance(ratio, 1.0, BY_EYE) for name, ratio in ratios.items()})
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
        Claim("learned", "every network learns: its loss falls below 5 % of the initial one", "all", learned),
        Claim(
            "early learning",
            "the paper's third-order theory gives s1 of dW half-way to convergence (within 10 %)",
            "theory and simulation coincide early",
            early_learning,
        ),
        Claim(
            "exact theory",
            "convergence time, s1 and s2 of dW are those of the exact theory of infinitely many units",
            "(not in the paper)",
            lambda dataset: agreement(dataset, ("convergence_epoch", "s1", "s2")),
        ),
    ),
)
