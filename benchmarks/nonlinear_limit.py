"""Random networks approach the limit of infinitely many units: singly as 1/sqrt(N), in the mean as 1/N.

    python benchmarks/nonlinear_limit.py [LARGEST_N]

trains networks of 64 to LARGEST_N (1024) units on the flip-flop at g = 0, prints a table and draws
docs/images/nonlinear_limit.png. About two minutes of one core up to 1024 units. At epoch 25 the loss begins to fall.
Later, some networks below 512 units lag far behind the others, and these laws hold for larger ones only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rankscope.figures import save_figure
from rankscope.plot.style import COLORS, GREY, label_panels, styled
from rankscope.theory import NonlinearLimit

EPOCH = 25
NODES, SCRAMBLINGS = 512, 4
NETWORKS = {64: 64, 128: 48, 256: 24, 512: 10, 1024: 4}
QUANTITIES = {"change_norm": r"$\|\Delta W\|$", "loss": "loss"}
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "nonlinear_limit.png"

Array = NDArray[np.float64]


def measure(largest: int) -> tuple[Array, dict[int, Array]]:
    """Return `QUANTITIES` at `EPOCH` in the limit (scrambling, quantity), and by N in networks (sample, quantity)."""
    limit = NonlinearLimit("flipflop", NODES)
    # The same trials for all.
    options: dict[str, Any] = {"epochs": EPOCH + 1, "rng": 0, "recorded_epochs": 1, "functional_rank": False}
    solved = np.array([ends(limit.solve(scrambling=seed, **options)) for seed in range(SCRAMBLINGS)])
    networks = {}
    for N, samples in NETWORKS.items():
        if largest >= N:
            found = [ends(limit.simulate(N, network_rng=1000 * N + i, **options)) for i in range(samples)]
            networks[N] = np.array(found)
    return solved, networks


def ends(dataset: xr.Dataset) -> list[float]:
    """Return the quantities at the epoch."""
    return [float(dataset[name].sel(epoch=EPOCH)) for name in QUANTITIES]


def draw(solved: Array, networks: dict[int, Array]) -> Figure:
    """Draw the standard deviation over networks, and how far their mean is from the limit, against N."""
    sizes = np.array(list(networks))
    with styled():
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        axes = figure.subplots(1, 2)
        for index, (ax, label) in enumerate(zip(axes, QUANTITIES.values(), strict=True)):
            at_infinity = solved[:, index].mean()
            values = [x[:, index] / at_infinity for x in networks.values()]
            std = np.array([x.std(ddof=1) for x in values])
            count = np.array([x.size for x in values])
            distance = np.abs([x.mean() - 1 for x in values])
            error = np.hypot(std / np.sqrt(count), solved[:, index].std(ddof=1) / at_infinity / np.sqrt(len(solved)))
            ax.errorbar(
                sizes, std, std / np.sqrt(2 * (count - 1)), fmt="o", color=COLORS[0], label="single network: std"
            )
            ax.errorbar(
                sizes * 1.04, distance, error, fmt="s", color=COLORS[1], label="mean of networks: |mean − limit|"
            )
            ax.plot(sizes, std[0] * (sizes[0] / sizes) ** 0.5, "--", color=COLORS[0], linewidth=0.8, label="1/√N")
            ax.plot(sizes, distance[0] * sizes[0] / sizes, "--", color=COLORS[1], linewidth=0.8, label="1/N")
            scatter = solved[:, index].std(ddof=1) / at_infinity
            ax.axhline(scatter, color=GREY, linewidth=0.8, linestyle=":", label=f"scatter of {NODES} nodes")
            lowest = min(0.3 * scatter, 0.5 * distance[distance > 0].min())
            ax.set(xscale="log", yscale="log", xlabel="number of units $N$", ylim=(lowest, None), xticks=sizes)
            ax.set_ylabel(f"{label} at epoch {EPOCH},\nrelative to the limit")
            ax.set_xticks(sizes, [str(N) for N in sizes])
            ax.minorticks_off()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
        label_panels(figure, axes)
    return figure


def main() -> None:
    """Measure, print and draw."""
    torch.set_num_threads(1)
    solved, networks = measure(int(sys.argv[1]) if len(sys.argv) > 1 else max(NETWORKS))
    for N, values in {f"limit, {NODES} nodes": solved, **networks}.items():
        means, stds = values.mean(0), values.std(0, ddof=1)
        row = [f"{name} {m:.4g} ± {s:.2g}" for name, m, s in zip(QUANTITIES, means, stds, strict=True)]
        sys.stdout.write(f"{N} ({len(values)}): {', '.join(row)}\n")
    save_figure(draw(solved, networks), PICTURE)


if __name__ == "__main__":
    main()
