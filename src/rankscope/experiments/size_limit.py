"""The infinitely wide networks of the `size` experiment at g = 0, from `NonlinearLimit`.

Solving them takes minutes, so the results are kept in `size_limit.csv`, made by

    python -m rankscope.experiments.size_limit

They have the training of the experiment but for the input weights, which learn in its networks and not here; at N units
this changes a network by O(1/N).
"""

from __future__ import annotations

import csv
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from rankscope.experiments.base import PAPER_EPOCHS
from rankscope.io.atomic import replacing
from rankscope.theory import NonlinearLimit
from rankscope.theory.nonlinear_limit import ADAM_RATE

FILE = Path(__file__).with_name("size_limit.csv")
NODES = {"flipflop": 128, "mante": 128, "romo": 128}
SAMPLES = 4  # each with its own trials and its own scrambling
QUANTITIES = ("convergence_epoch", "change_norm", "functional_rank")


class Limit(NamedTuple):
    """A quantity of infinitely many units and its error.

    The error is that of the mean over trials and scramblings, and the difference from half as many nodes.
    """

    value: float
    error: float


@lru_cache
def limits() -> dict[tuple[str, str], Limit]:
    """Return the limits by task and quantity: means over the samples that converged, as for networks."""
    with FILE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["convergence_epoch"] != "nan"]
    found = {}
    for task, nodes in NODES.items():
        for name in QUANTITIES:
            few, many = (
                np.array([float(row[name]) for row in rows if (row["task"], int(row["nodes"])) == (task, count)])
                for count in (nodes // 2, nodes)
            )
            scatter = np.nanstd(many, ddof=1) / np.sqrt(np.isfinite(many).sum())
            difference = np.nanmean(many) - np.nanmean(few)
            found[task, name] = Limit(float(np.nanmean(many)), float(np.hypot(scatter, difference)))
    return found


def limit_for(run: xr.Dataset, task: str, name: str) -> Limit | None:
    """Return the limit of a quantity of the networks with g = 0 of a run, None where it is not known.

    It is known for the tasks and quantities of the file, for networks trained for the epochs and with the learning rate
    of the experiment.

    Parameters
    ----------
    run
        With `loss` over `epoch`, `learning_rate`, `task`, `gain` and `hidden_size`.
    """
    networks = networks_without_weights(run, task)
    if (task, name) not in limits() or networks is None or not {"loss", "learning_rate"} <= set(networks.variables):
        return None
    rates = (networks["learning_rate"] * networks["hidden_size"]).values.ravel()
    rates = rates[np.isfinite(rates)]
    epochs = int(networks["loss"].notnull().sum("epoch").max())
    same = rates.size and np.allclose(rates, ADAM_RATE) and epochs == PAPER_EPOCHS[task]
    return limits()[task, name] if same else None


def networks_without_weights(run: xr.Dataset, task: str) -> xr.Dataset | None:
    """Return the networks of a task with g = 0, along `hidden_size` and other labels; None if the run has none."""
    if not {"task", "gain", "hidden_size"} <= set(run.coords):
        return None
    labelled = run.expand_dims([name for name in ("task", "gain", "hidden_size") if name not in run.dims])
    if task not in labelled["task"].values or 0.0 not in labelled["gain"].values:
        return None
    return labelled.sel(task=task, gain=0.0)


def write_size_limit() -> None:
    """Solve the limits and write them to `FILE`; about five minutes on one core."""
    with replacing(FILE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "nodes", "sample", *QUANTITIES])
        for task, all_nodes in NODES.items():
            for nodes in (all_nodes // 2, all_nodes):
                for sample in range(SAMPLES):
                    limit = NonlinearLimit(task, nodes)
                    solved = limit.solve(PAPER_EPOCHS[task], sample, scrambling=sample, recorded_epochs=2)
                    # The experiment measures dW after the last epoch.
                    row = [
                        task,
                        nodes,
                        sample,
                        *(f"{float(solved[name].values.ravel()[-1]):.5g}" for name in QUANTITIES),
                    ]
                    writer.writerow(row)
                    sys.stdout.write(f"{','.join(map(str, row))}\n")


if __name__ == "__main__":
    write_size_limit()
