"""Results of any sweep: scalars against one label of the networks, with colors and columns for two others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from rankscope.errors import InputError
from rankscope.experiments.averages import averages_of
from rankscope.figures.averages import ROW_HEIGHT, draw_averages, explain_averages, rows_above, scale_averages
from rankscope.figures.labels import QUANTITIES, axis_label, label_prefix, suits_logarithm, value_text
from rankscope.figures.selection import with_dims
from rankscope.plot.style import label_panels, styled
from rankscope.validation import choice

USUAL = ("convergence_epoch", "functional_rank", "change_norm", "shuffled_loss", "accuracy", "evaluation_loss")
MOST_ROWS = 4
MOST_COLORS = 12
MOST_COLUMNS = 6
TICKS = 10  # values of a label that have a tick each


def sweep(
    dataset: xr.Dataset,
    x: str | None = None,
    color: str | None = None,
    panels: str | None = None,
    show: Sequence[str] | None = None,
) -> Figure:
    """Draw scalars (rows) against a label: mean and standard deviation over the samples.

    Samples that did not converge are left out if any network of the run converged.

    Parameters
    ----------
    dataset
        The Dataset of a run.
    x, color, panels
        Labels for the horizontal axis, the colors and the columns. By default the gain, or the label with the most
        values, is the horizontal axis, and the others follow in order.
    show
        Names of scalars; by default up to four usual ones that were measured.

    Raises
    ------
    InputError
        If a name is unknown, the networks differ by more labels than three, or a label has too many values.
    """
    varying = [str(name) for name in dataset["status"].dims if name != "sample"]
    axis, color, panels = _axes(dataset, varying, x, color, panels)
    names = _scalars(dataset, show)
    kept = [name for name in (axis, color, panels) if name is not None]
    run = with_dims(dataset[["status", *({"convergence_epoch"} & set(dataset)), *names]], *kept, "sample").compute()
    columns = run[panels].values if panels else [None]
    with styled():
        size = (max(4.2, 0.9 + 2.3 * len(columns)), 1.0 + 1.9 * len(names))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(names), len(columns), sharex=True, sharey="row", squeeze=False)
        averages = {name: averages_of(run, name).transpose(axis, ...) for name in names}
        curves: dict[str, xr.Dataset] = {}
        handles: dict[str, Any] = {}
        above = 0
        for name, row in zip(names, grid, strict=True):
            for value, ax in zip(columns, row, strict=True):
                one = averages[name] if panels is None else averages[name].sel({panels: value})
                curves = _placed(one, axis, color)
                handles = draw_averages(ax, axis, curves, joined=_numeric(run, axis))
                above = max(above, rows_above(axis, curves) if name == names[0] else 0)
            row[0].set_ylabel(axis_label(name))
            scale_averages(row[0], name)
        for ax in grid.flat:
            _set_axis(ax, run, axis)
        for value, top, bottom in zip(columns, grid[0], grid[-1], strict=True):
            if panels is not None:
                top.set_title(_text(panels, value), pad=6 + ROW_HEIGHT * above)
            bottom.set_xlabel(axis_label(axis))
        label_panels(figure, grid.flat, offset=(-12, 6))
        figure.align_ylabels()
        explain_averages(figure, averages, handles if color is not None else {})
    return figure


def _axes(dataset: xr.Dataset, varying: Sequence[str], *given: str | None) -> tuple[str, str | None, str | None]:
    """Return the labels of the horizontal axis, of the colors and of the columns."""
    labels = [str(name) for name, values in dataset.coords.items() if values.ndim == 0 and name != "seed"]
    for option, name in zip(("x", "color", "panels"), given, strict=True):
        if name is not None:
            choice(option, name, [*varying, *labels])
    named = [name for name in given if name is not None]
    if len(set(named)) < len(named):
        raise InputError(f"x, color and panels must be different labels, got {', '.join(named)}")
    free = [name for name in varying if name not in named]
    if len(named) + len(free) > 3:
        raise InputError(
            f"a figure shows networks that differ in at most three labels besides sample, got {', '.join(varying)}; "
            f"choose with --select {free[-1]}=VALUE (dataset.sel in Python)"
        )
    first = sorted(free, key=lambda name: (not _numeric(dataset, name), name != "gain", -dataset.sizes[name]))
    x = given[0] or (
        first[0] if first else next((name for name in ("gain", "hidden_size") if name in labels), labels[0])
    )
    rest = iter(name for name in free if name != x)
    color, panels = (one or next(rest, None) for one in given[1:])
    for name, most, how in ((color, MOST_COLORS, "colors"), (panels, MOST_COLUMNS, "columns")):
        if name is not None and dataset[name].size > most:
            raise InputError(
                f"a figure has at most {most} {how}, got {dataset[name].size} values of {name}; take it as x, or "
                f"choose with --select {name}=VALUE (dataset.sel in Python)"
            )
    return x, color, panels


def _scalars(dataset: xr.Dataset, show: Sequence[str] | None) -> list[str]:
    """Return the names of the scalars to draw."""
    dims = set(dataset["status"].dims)
    found = [
        str(name)
        for name, values in dataset.data_vars.items()
        if set(values.dims) == dims and values.dtype.kind in "fiu" and bool(np.isfinite(values.values).any())
    ]
    if show is not None:
        if not show:
            raise InputError("show must name a scalar, got none")
        return [choice("show", name, found) for name in show]
    if not found:
        raise InputError("dataset must have a scalar for each network, got none")
    usual = [name for name in USUAL if name in found] or [name for name in QUANTITIES if name in found] or found
    return usual[:MOST_ROWS]


def _numeric(dataset: xr.Dataset, name: str) -> bool:
    return dataset[name].dtype.kind in "fiu"


def _placed(averages: xr.Dataset, axis: str, color: str | None) -> dict[str, xr.Dataset]:
    """Return the curves by their legend labels; words along the axis are replaced by their position."""
    if not _numeric(averages, axis):
        averages = averages.assign_coords({axis: np.arange(averages.sizes[axis])})
    if color is None:
        return {"": averages}
    return {_text(color, value): averages.sel({color: value}) for value in averages[color].values}


def _text(label: str, value: object) -> str:
    return label_prefix(label) + value_text(label, value)


def _set_axis(ax: Axes, run: xr.Dataset, axis: str) -> None:
    """Set scale, limits and ticks of the horizontal axis."""
    values = run[axis].values
    if not _numeric(run, axis):
        ticks = range(len(values))
        long = sum(len(str(value)) for value in values) > 24
        ax.set_xticks(
            ticks, [value_text(axis, value) for value in values], rotation=30 * long, ha="right" if long else "center"
        )
        ax.set_xlim(-0.5, len(values) - 0.5)
        return
    if suits_logarithm(values):
        ax.set_xscale("log")
        margin = (values.max() / values.min()) ** 0.06
        ax.set_xlim(values.min() / margin, values.max() * margin)
    else:
        margin = 0.06 * float(np.ptp(values)) or 0.1 * abs(float(values[0])) or 0.1
        ax.set_xlim(values.min() - margin, values.max() + margin)
    if values.size <= TICKS:
        ax.xaxis.set_major_locator(FixedLocator(values.tolist()))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.xaxis.set_minor_locator(NullLocator())
