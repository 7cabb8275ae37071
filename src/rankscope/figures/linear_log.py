"""Supplement: all that dW is made of in the linear network, on a logarithmic scale.

Each direction beyond the first grows with a higher power of learning time and of the target, and is orders of magnitude
smaller than the one before. Without random connectivity there are two of them, and then nothing.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rankscope.figures.averages import mean_and_std
from rankscope.figures.style import QUIET, label_panels, look, say_no_measurements, styled
from rankscope.figures.theory_curves import (
    NETWORKS,
    TIME_LABEL,
    Place,
    draw_place,
    explain_theories,
    read_places,
)

TARGETS = (0.5, 1.0, 2.0)
GAINS = (0.3, 0.8)
INDICES = range(1, 6)
#: Where the scale ends: W is in single precision, and below a resolution of that dW is rounding.
FLOOR = float(np.finfo(np.float32).eps)
# From this index on all singular values are of rounding, those of a random matrix: nearly alike.
ALL_ROUNDING = 20


def linear_log(dataset: xr.Dataset) -> Figure:
    """Draw the five largest singular values of dW over effective learning time, a panel for each target and gain.

    Networks and theories are drawn as in `linear`. The shaded part is below the twentieth or a later singular value,
    where there is only the rounding of W.

    Parameters
    ----------
    dataset
        Measurements of the experiment `linear` along `gain`, `target` and `sample`, of one `hidden_size`. Of many
        targets three are drawn, of many gains two.

    Raises
    ------
    InputError
        If it is of another experiment, or holds several hidden sizes.
    """
    places = read_places(dataset, "linear-log", GAINS, TARGETS)
    rows = len(next(iter(places.values())))
    with styled():
        figure = Figure(figsize=(0.8 + 2.1 * len(places), 0.9 + 2.2 * rows), layout="constrained")
        grid = figure.subplots(rows, len(places), sharex="col", sharey=True, squeeze=False)
        for by_gain, column in zip(places.values(), grid.T, strict=True):
            until = max(place.interesting for place in by_gain.values())
            for place, ax in zip(by_gain.values(), column, strict=True):
                _draw(ax, place, until)
            column[-1].set_xlabel(TIME_LABEL)
        for ax in grid[:, 0]:
            ax.set_ylabel(r"singular values of $\Delta W$")
        label_panels(figure, list(grid.flat), offset=(-16, 6))
        entries: list[Artist] = [
            Line2D([], [], label=f"$s_{index}$", **NETWORKS, **look(index - 1)) for index in INDICES
        ]
        entries.append(Patch(color=QUIET, alpha=0.3, linewidth=0, label="rounding"))
        every = [place for by_gain in places.values() for place in by_gain.values()]
        explain_theories(figure, entries, every, "networks: mean, standard deviation (of the logarithm)")
    return figure


def _draw(ax: Axes, place: Place, until: float) -> None:
    for index in INDICES:
        shift = (index - 1) / len(INDICES)
        draw_place(ax, place, index, look(index - 1), until, shift=shift, logarithmic=True)
    last = int(place.networks["leading_index"].max())
    if last >= ALL_ROUNDING and place.lasting.sizes["sample"]:
        epochs, values = place.measured(last)
        x, level = place.effective_time(epochs), mean_and_std(values)["mean"]
        ax.fill_between(x, level, 0.1 * FLOOR, color=QUIET, alpha=0.3, linewidth=0)
    ax.set_yscale("log", nonpositive="clip")
    ax.set(title=str(place), ylim=(FLOOR, 2))
    if until > 0:
        ax.set_xlim(-0.03 * until, until)
    if not place.networks.sizes["sample"]:
        say_no_measurements(ax)
    ax.locator_params(axis="x", nbins=4)
