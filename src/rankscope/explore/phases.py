"""Stable and divergent learning rates over g and z_hat: the table of the phase diagram.

Each divergent rate is found by hundreds of descents, and the table takes two minutes. It is computed once, by
`python -m rankscope.explore.phases`, and stored beside this file.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.experiments.prediction import learning_rates
from rankscope.explore.bounds import GAIN, TARGET
from rankscope.explore.curves import listed
from rankscope.io.atomic import replacing

TABLE = "phases.json"
GAINS = [round(gain, 3) for gain in np.linspace(GAIN.minimum, GAIN.maximum, 20).tolist()]
TARGETS = [float(f"{target:.3g}") for target in np.geomspace(TARGET.minimum, TARGET.maximum, 20).tolist()]


@cache
def phases() -> dict[str, Any]:
    """Return the stored table.

    Returns
    -------
    dict
        `gain` (20,), `target` (20,); `settles` and `diverges` (gain, target): log10 of the learning rate, in units of
        (1 - g^2)^2, up to which descent settles at the end of gradient flow, and from which it diverges.
    """
    values: dict[str, Any] = json.loads((files("rankscope.explore") / TABLE).read_text(encoding="utf-8"))
    return values


def compute(gains: list[float], targets: list[float]) -> dict[str, Any]:
    """Return the table for other gains and targets."""
    rates = learning_rates(gains, targets)
    logs = {name: [listed(np.log10(row).round(3)) for row in rates[name].values] for name in ("settles", "diverges")}
    return {"gain": gains, "target": targets, **logs}


if __name__ == "__main__":
    path = Path(__file__).with_name(TABLE)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(compute(GAINS, TARGETS)) + "\n")
    sys.stdout.write(f"{path}\n")
