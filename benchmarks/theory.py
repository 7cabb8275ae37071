"""Compare the linear networks of a run with the theories.

The first table compares means over the networks of each gain and target with the exact theory of infinite width, which
takes the same gradient steps, and with the paper's third-order expansion: the relative error of the loss curve (area
between the curves over the area below the simulated one) and, at the end, of |dW|, s1, s2, the outlier, the loss after
shuffle and the convergence time. z is the exact theory's error in standard errors of the mean.

The second table compares single networks with the theory of their own initial weights (`SingleNetwork`): the largest
error of the readout curve in units of the target. Trials of 101 time constants end before networks whose outlier is
close to 1 have settled; `settling` is the remaining deviation, exp(-(1 - outlier) 101).

The third table, with `--ensemble`, compares infinite width with the mean over many new networks, for which
`SingleNetwork` replaces training, as it is exact to five digits: relative error in percent, and z.

    rankscope run linear --preset paper --out runs/linear
    python benchmarks/theory.py --from runs/linear
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

import rankscope as rs
from rankscope.experiments.linear import EPOCHS, PAPER_SIZE, PRESETS, RATES
from rankscope.figures.selection import with_dims
from rankscope.sweep import Job
from rankscope.theory import InfiniteWidth, SingleNetwork, ThirdOrder

GAINS, TARGETS = (0.0, 0.3, 0.6, 0.8), (0.5, 1.0, 2.0)
QUANTITIES = ("loss curve", "change_norm", "s1", "s2", "outlier", "shuffled_loss", "convergence_time")
SCALARS = ("change_norm", "s1", "s2", "convergence_time")
TRIAL = 101.0
NOTHING = 1e-6  # the loss after shuffle at g = 0 is rounding, and has no relative error
Row = dict[str, Any]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="folder of a run of `linear`")
    parser.add_argument("--preset", default="paper", choices=list(PRESETS), help="the preset it was run with")
    parser.add_argument("--networks", type=int, default=20, help="number of networks in the second table")
    parser.add_argument("--ensemble", type=int, default=0, help="number of new networks in each row of the third table")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    run = with_dims(rs.open_run(options.folder), "gain", "target", "sample")
    there = [(g, z) for g in GAINS for z in TARGETS if g in run["gain"].values and z in run["target"].values]
    means = [compare(run.sel(gain=g, target=z).load(), g, z) for g, z in there]
    jobs = {(job.labels["sample"], job.network["gain"], job.labels["target"]): job for job in PRESETS[options.preset]()}
    chosen = sorted(at for at in jobs if at[1:] in there)[: options.networks]
    singles = [single(run.sel(sample=s, gain=g, target=z).load(), jobs[s, g, z]) for s, g, z in chosen]
    ensembles = [ensemble(g, z, options.ensemble) for g, z in there] if options.ensemble > 1 else []
    if options.json:
        json.dump({"means": means, "single networks": singles, "ensembles": ensembles}, sys.stdout, indent=2)
        return
    screen = Console(width=None if sys.stdout.isatty() else 200)
    screen.print(table_of_means(means))
    screen.print(table_of_singles(singles))
    if ensembles:
        screen.print(table_of_ensembles(ensembles))


def compare(networks: xr.Dataset, gain: float, target: float) -> Row:
    """Return the errors of both theories for the networks of one gain and target, over `sample`."""
    rate = float(networks["learning_rate"][0])
    epochs = networks.sizes["epoch"]
    exact = InfiniteWidth(gain, target).descend(rate, epochs + 1)
    expansion = ThirdOrder(gain, target).solve(rate * np.arange(epochs + 1))
    row: Row = {"gain": gain, "target": target, "networks": networks.sizes["sample"]}
    for name in QUANTITIES:
        measured = of_networks(networks, name, gain)
        mean = measured.mean("sample")
        row[name] = {
            "exact": relative_error(mean, of_theory(exact, name, rate)),
            "third order": relative_error(mean, of_theory(expansion, name, rate)),
        }
        if mean.ndim == 0:
            error = float(measured.std("sample", ddof=1)) / np.sqrt(networks.sizes["sample"])
            row[name]["z"] = float(of_theory(exact, name, rate) - mean) / error if error > NOTHING else None
    return row


def of_networks(networks: xr.Dataset, name: str, gain: float) -> xr.DataArray:
    """Return a quantity of every network, at the end of its training or as a curve over its epochs."""
    if name == "loss curve":
        return networks["loss"].where(networks["convergence_epoch"].notnull(), drop=True)
    if name == "convergence_time":
        return networks["convergence_epoch"] * networks["learning_rate"]
    if name in ("s1", "s2"):
        return networks["singular_value_history"].isel(record=-1).sel(leading_index=int(name[1]))
    if name == "outlier":
        return networks["outlier"].where(networks["outlier"] > 1.1 * gain)
    return networks[name]


def of_theory(curves: xr.Dataset, name: str, rate: float) -> Any:
    """Return the same quantity of a theory that is given before every epoch and at the end."""
    loss = curves["loss"].values
    if name == "loss curve":
        return loss[:-1]
    if name == "convergence_time":
        epoch = rs.convergence_epoch(loss)
        return np.nan if epoch is None else epoch * rate
    if name in ("s1", "s2"):
        index = int(name[1]) - 1
        return float(curves["singular_value"][-2, index]) if curves.sizes["singular_index"] > index else 0.0
    return float(curves[name][-1])


def relative_error(measured: xr.DataArray, theory: Any) -> float | None:
    """Return |theory - measured| / |measured|, of curves by their areas."""
    size = float(np.abs(measured).mean())
    error = float(np.abs(theory - measured).mean()) / size if size > NOTHING else np.nan
    return error if np.isfinite(error) else None


def single(network: xr.Dataset, job: Job) -> Row:
    """Return the error of the theory of one network."""
    target, rate = float(network["target"]), float(network["learning_rate"])
    theory = SingleNetwork.of(job.initial_network(), target).descend(rate, network.sizes["epoch"])
    measured = np.sqrt(2 * network["loss"].values)
    off = np.abs(np.abs(target - theory["readout"].values) - measured).max() / target
    outlier = float(network["outlier"])
    return {
        "gain": float(network["gain"]),
        "target": target,
        "sample": int(network["sample"]),
        "readout error": float(off) if np.isfinite(off) else None,
        "outlier": outlier,
        "settling": float(np.exp(-(1 - outlier) * TRIAL)),
    }


def ensemble(gain: float, target: float, networks: int) -> Row:
    """Return the error of infinite width for the mean over new networks, all by theory, after the same steps."""
    rate = RATES[target] * (1 - gain**2) ** 2
    limit = InfiniteWidth(gain, target).descend(rate, EPOCHS + 1)
    task = rs.tasks.FixedPoint(target=target)
    found = []
    for sample in range(networks):
        network = rs.RateRNN.initialize(
            task, PAPER_SIZE, gain, np.random.default_rng([sample, int(1000 * gain)]), nonlinearity="identity"
        )
        curves = SingleNetwork.of(network, target, accuracy=1e-4).descend(rate, EPOCHS + 1)
        found.append({name: of_theory(curves, name, rate) for name in SCALARS})
    row: Row = {"gain": gain, "target": target, "networks": networks}
    for name in SCALARS:
        values = np.array([one[name] for one in found])
        values = values[np.isfinite(values)]
        mean, expected = values.mean(), of_theory(limit, name, rate)
        error = values.std(ddof=1) / np.sqrt(len(values))
        row[name] = {"relative": float(expected / mean - 1), "z": float((expected - mean) / error)}
    return row


def table_of_ensembles(rows: list[Row]) -> Table:
    """Return a table of relative errors (z)."""
    table = Table("g", "target", *SCALARS, title="many networks: relative error of infinite width in % (z)")
    for row in rows:
        cells = [f"{100 * row[name]['relative']:+.2g} ({row[name]['z']:+.1f})" for name in SCALARS]
        table.add_row(f"{row['gain']:g}", f"{row['target']:g}", *cells)
    return table


def table_of_means(rows: list[Row]) -> Table:
    """Return a table of the errors of both theories in percent, with z of the exact theory."""
    table = Table("g", "target", *QUANTITIES, title="relative error in %: exact theory (z) | third order")
    for row in rows:
        cells = []
        for name in QUANTITIES:
            errors = row[name]
            z = "" if errors.get("z") is None else f" ({errors['z']:+.1f})"
            cells.append(f"{_percent(errors['exact'])}{z} | {_percent(errors['third order'])}")
        table.add_row(f"{row['gain']:g}", f"{row['target']:g}", *cells)
    return table


def table_of_singles(rows: list[Row]) -> Table:
    """Return a table with one row a network."""
    table = Table("g", "target", "sample", "largest readout error", "outlier", "settling", title="single networks")
    for row in rows:
        table.add_row(
            f"{row['gain']:g}",
            f"{row['target']:g}",
            str(row["sample"]),
            "diverges" if row["readout error"] is None else f"{100 * row['readout error']:.3g} %",
            f"{row['outlier']:.3f}",
            f"{row['settling']:.1e}",
        )
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2g}"


if __name__ == "__main__":
    main()
