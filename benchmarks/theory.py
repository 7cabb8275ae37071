"""How far is theory from simulation? The linear networks of a run beside both theories, and one by one.

The first table compares means over the networks of each gain and target with the exact theory of infinite width, which
takes the same gradient steps, and with the paper's third-order expansion: the relative error of the loss curve (area
between the curves over the area below the simulated one) and, at the end, of |dW|, s1, s2, the outlier, the loss after
shuffle and the convergence time. z is the exact theory's error in standard errors of the mean.

The second table foretells single networks from their initial weights (`SingleNetwork`), and gives the largest error of
the whole readout curve in units of the target. Trials of 101 time constants end before networks whose outlier is close
to 1 have settled; `settling` is what is then left, exp(-(1 - outlier) 101).

The third table, with `--ensemble`, is sharper than five trained networks allow: as single networks are foretold to five
digits, their theory stands for training, and many new ones are compared with infinite width: relative error in percent,
and z.

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
from rankscope.experiments.cell import initial_network
from rankscope.experiments.linear import EPOCHS, PAPER_SIZE, PRESETS, RATES
from rankscope.theory import InfiniteWidth, SingleNetwork, ThirdOrder

GAINS, TARGETS = (0.0, 0.3, 0.6, 0.8), (0.5, 1.0, 2.0)
QUANTITIES = ("loss curve", "change_norm", "s1", "s2", "outlier", "shuffled_loss", "convergence_time")
SCALARS = ("change_norm", "s1", "s2", "convergence_time")
TRIAL = 101.0
# A loss after shuffle at g = 0, where nothing is shuffled: what is left is rounding, and has no relative error.
NOTHING = 1e-6
Row = dict[str, Any]


def main() -> None:
    """Compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="folder of a run of `linear`")
    parser.add_argument("--preset", default="paper", choices=list(PRESETS), help="the preset it was run with")
    parser.add_argument("--networks", type=int, default=20, help="how many to foretell one by one")
    parser.add_argument("--ensemble", type=int, default=0, help="how many new networks a place to set beside the limit")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    run = rs.open_run(options.folder)
    there = [(g, z) for g in GAINS for z in TARGETS if g in run["gain"].values and z in run["target"].values]
    means = [compare(run.sel(gain=g, target=z).load(), g, z) for g, z in there]
    cells = [cell for cell in PRESETS[options.preset]() if (cell.gain, cell.labels["target"]) in there]
    # The first samples of all places, as many as asked for.
    cells = sorted(cells, key=lambda cell: (cell.sample, cell.gain, cell.labels["target"]))[: options.networks]
    singles = [foretell(run.sel(gain=c.gain, target=c.labels["target"], sample=c.sample).load(), c) for c in cells]
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
    """Return the errors of both theories for the networks of one place, over `sample`."""
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
    """Return the same of a theory, given before every epoch and at the end."""
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


def foretell(network: xr.Dataset, cell: Any) -> Row:
    """Return how far the theory of one network is from its training."""
    target, rate = cell.labels["target"], float(network["learning_rate"])
    theory = SingleNetwork.of(initial_network(cell), target).descend(rate, network.sizes["epoch"])
    measured = np.sqrt(2 * network["loss"].values)
    off = np.abs(np.abs(target - theory["readout"].values) - measured).max() / target
    outlier = float(network["outlier"])
    return {
        "gain": cell.gain,
        "target": target,
        "sample": cell.sample,
        "readout error": float(off) if np.isfinite(off) else None,
        "outlier": outlier,
        "settling": float(np.exp(-(1 - outlier) * TRIAL)),
    }


def ensemble(gain: float, target: float, networks: int) -> Row:
    """Return how far infinite width is from the mean over new networks, all by theory, after the same steps."""
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
    """Return relative error (z)."""
    table = Table("g", "target", *SCALARS, title="many networks: relative error of infinite width in % (z)")
    for row in rows:
        cells = [f"{100 * row[name]['relative']:+.2g} ({row[name]['z']:+.1f})" for name in SCALARS]
        table.add_row(f"{row['gain']:g}", f"{row['target']:g}", *cells)
    return table


def table_of_means(rows: list[Row]) -> Table:
    """Return exact / third order in percent, and z of the exact theory."""
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
    """Return one row a network."""
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
