"""Anatomy of the change of one network: directions and partners, growth, place in the spectrum of W, activity."""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import beta

from rankscope.errors import InputError
from rankscope.figures.selection import require
from rankscope.plot.style import COLORS, GREY, INK, entry, label_panels, note_below, styled
from rankscope.validation import choice

QUANTILE = 0.999
"""Of the overlaps of random directions: those above are marked."""

LABELS = {
    "W0 inputs": r"$W_0$ inputs",
    "W0^T outputs": r"$W_0^T$ outputs",
    "R inputs": r"$R$ inputs",
    "R^T outputs": r"$R^T$ outputs",
}
PALETTE = {
    "inputs": COLORS[0],
    "W0 inputs": COLORS[5],
    "R inputs": COLORS[5],
    "outputs": COLORS[1],
    "W0^T outputs": COLORS[4],
    "R^T outputs": COLORS[4],
    "activity": COLORS[2],
    "adjoints": COLORS[3],
}
OTHER = "none of them"
ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (-0.02, 1.0),
    "ncols": 2,
    "fontsize": 7,
    "handlelength": 1.6,
    "columnspacing": 1,
}
TICK: dict[str, Any] = {"linestyle": "none", "markersize": 6, "markeredgewidth": 1.6}
SMALL: dict[str, Any] = {"fontsize": 7, "color": GREY}
ACTIVE = ("activity", "adjoints")

Array = NDArray[np.float64]


class Partner(NamedTuple):
    """A row of the matrix of overlaps: a partner with the weights or the activity of one stage."""

    stage: str
    name: str

    @property
    def label(self) -> str:
        """Its title."""
        text = LABELS.get(self.name, self.name)
        if self.name in ACTIVE:
            return f"{text}, {self.stage}"
        return text if self.stage == "before" else f"{text}, trained"


def anatomy(dataset: xr.Dataset, block: str | None = None) -> Figure:
    """Draw whose directions the change of one matrix consists of.

    Parameters
    ----------
    dataset
        As `rankscope.anatomy` returns it, or a run with the measurement "anatomy" at the labels of one network. Of
        several samples the first is drawn.
    block
        Matrix or gate, as in `dataset["block"]`; by default the first.

    Raises
    ------
    InputError
        If the dataset has no anatomy, or that of several networks, or the block is unknown.
    """
    require(dataset, "anatomy", "overlap", "direction_strength", "anatomy_spectrum")
    blocks = [str(name) for name in np.atleast_1d(dataset["block"].values)]
    chosen = blocks[0] if block is None else choice("block", block, blocks)
    one = dataset.sel(block=chosen) if dataset["block"].ndim else dataset
    labels = [str(dim) for dim in one["direction_strength"].dims if dim != "direction"]
    one = one.isel({dim: 0 for dim in labels if one.sizes[dim] == 1 or dim == "sample"})
    several = [f"{dim}={one[dim].values[0]}" for dim in labels if dim in one.dims]
    if several:
        raise InputError(f"dataset must be of one network; choose it, as in --select {' --select '.join(several)}")
    with styled():
        if not np.isfinite(one["direction_strength"]).any():
            return _nothing(chosen)
        rows = _rows(one)
        height = 0.24 * len(rows)
        figure = Figure(figsize=(7.8, 4.0 + height), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=[height + 0.9, 2.7])
        matrices = list(upper.subplots(1, 2, sharey=True))
        for ax, side in zip(matrices, ("left", "right"), strict=True):
            image = _draw_overlaps(ax, one, rows, side)
        bar = upper.colorbar(image, ax=matrices, location="right", aspect=18, pad=0.015)
        bar.set_label("overlap", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        panels = list(lower.subplots(1, 3, width_ratios=[1.15, 1.15, 1]))
        owners = _owners(one)
        _draw_growth(panels[0], one, owners)
        _draw_spectrum(panels[1], one, owners)
        _draw_shares(panels[2], one)
        names = [name for name in [*PALETTE, *sorted({*owners} - {*PALETTE, OTHER}), OTHER] if name in owners]
        entries = [entry(LABELS.get(name, name), color=_color(name), linewidth=2) for name in names]
        lower.legend(
            handles=entries,
            loc="outside upper left",
            ncols=len(entries),
            title="color in c and d: partner (weights before learning) with the largest overlap, of $u$ or $v$",
            title_fontsize=8,
            alignment="left",
        )
        label_panels(figure, [*matrices, *panels], offset=(-14, 6))
        active = one["partner_dimension"].sel(partner=list(ACTIVE))
        count = (
            f"activity and adjoints: their {int(active.max())} leading principal components"
            if np.isfinite(active).any()
            else ""
        )
        bold = f"{chosen}; bold: above {100 * QUANTILE:g} % of random directions, whose mean is the null"
        note_below(figure, "; ".join(filter(None, (bold, count))))
    return figure


def _rows(one: xr.Dataset) -> list[Partner]:
    """Return the partners that are known, those of the weights first."""
    known = [
        Partner(str(stage), str(name))
        for name in one["partner"].values
        for stage in one["stage"].values
        if np.isfinite(one["overlap"].sel(partner=name, stage=stage)).any()
    ]
    # Images under W0 of the trained vectors resemble those of the untrained ones.
    kept = [row for row in known if row.stage == "before" or row.name in ("inputs", "outputs", *ACTIVE)]
    return sorted(kept, key=lambda row: row.name in ACTIVE)


def _draw_overlaps(ax: Axes, one: xr.Dataset, rows: list[Partner], side: str) -> Any:
    values, nulls, levels = [], [], []
    for row in rows:
        at = {"stage": row.stage, "partner": row.name, "side": side}
        values.append(one["overlap"].sel(at).values)
        mean, d = float(one["overlap_null"].sel(at)), float(one["partner_dimension"].sel(at))
        nulls.append(mean)
        levels.append(_level(mean, d))
    shown = np.array(values)
    colors = mpl.colormaps["Blues"].with_extremes(bad="#eeeeee")
    image = ax.imshow(shown, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for (place, column), value in np.ndenumerate(shown):
        if np.isfinite(value):
            above = value > levels[place]
            text: dict[str, Any] = {"fontweight": "bold" if above else "normal"}
            text["color"] = "white" if value > 0.55 else INK if above else GREY
            ax.text(column, place, f"{value:.2f}".removeprefix("0"), ha="center", va="center", fontsize=7, **text)
    right = ax.get_yaxis_transform()
    for place, null in enumerate(nulls):
        if np.isfinite(null):
            ax.text(1.015, place, f"{null:.1g}".removeprefix("0"), transform=right, va="center", **SMALL)
    ax.annotate("null", (1.015, 1), (0, 2), xycoords="axes fraction", textcoords="offset points", **SMALL)
    symbol = "$u$ (postsynaptic)" if side == "left" else "$v$ (presynaptic)"
    ax.set_title(f"directions {symbol}", fontsize=8.5)
    ax.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=7.5)
    ax.set_xticks(range(shown.shape[1]), [str(index) for index in one["direction"].values], fontsize=7.5)
    ax.set_xlabel(r"direction of $\Delta W$")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


def _level(mean: float, d: float) -> float:
    """Return the quantile of the overlaps of random directions, Beta(d / 2, (N - d) / 2)."""
    if not mean or not np.isfinite(mean) or mean >= 1:
        return np.inf
    return float(beta.ppf(QUANTILE, d / 2, (d / mean - d) / 2))


def _owners(one: xr.Dataset) -> list[str]:
    """Return the partner of each direction, on either side, whose overlap is furthest above the null."""
    found = one[["overlap", "overlap_null", "partner_dimension"]].sel(stage="before")
    found = found.sel(partner=[name for name in found["partner"].values if name not in ACTIVE])
    owners = []
    for index in range(one.sizes["direction"]):
        best, owner = 0.0, OTHER
        for name in found["partner"].values:
            for side in ("left", "right"):
                cell = found.sel(partner=name, side=side)
                value, null = float(cell["overlap"][index]), float(cell["overlap_null"])
                above = value > _level(null, float(cell["partner_dimension"])) if np.isfinite(value) else False
                if above and (value - null) / (1 - null) > best:
                    best, owner = (value - null) / (1 - null), str(name)
        owners.append(owner)
    return owners


def _color(name: str) -> str:
    return GREY if name == OTHER else PALETTE.get(name, COLORS[6])


def _draw_growth(ax: Axes, one: xr.Dataset, owners: list[str]) -> None:
    """Draw the strength of each direction over epochs, or its final strength where no earlier ones are known."""
    final = one["direction_strength"].values
    if "growth_strength" not in one or not one.sizes.get("growth_record"):
        ax.bar(one["direction"], final, color=[_color(owner) for owner in owners], width=0.7)
        ax.set(xlabel=r"direction of $\Delta W$", ylabel="singular value")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    recorded = one[["growth_epoch", "growth_strength"]].dropna("growth_record", subset=["growth_epoch"])
    epochs = recorded["growth_epoch"].values
    strength = recorded["growth_strength"].transpose("growth_record", "direction").values
    for index, owner in reversed(list(enumerate(owners))):
        curve = np.concatenate([[0.0], strength[:, index]])
        ax.plot(np.concatenate([[0], epochs]), curve, color=_color(owner), linewidth=1.2)
        half = float(one["half_growth_epoch"][index])
        if np.isfinite(half):
            ax.plot([half], [final[index] / 2], marker="o", markersize=3, color=_color(owner), markeredgewidth=0)
    ax.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    ax.set(xlabel="epoch", ylabel=r"strength $u^T \Delta W\, v$")
    ax.set_title("growth; dots: half of the end", fontsize=8)
    ax.margins(x=0.02)


def _draw_spectrum(ax: Axes, one: xr.Dataset, owners: list[str]) -> None:
    """Draw the singular values of W0 and W as histograms and those of the directions as lines below them."""
    spectrum = {
        str(name): one["anatomy_spectrum"].sel(matrix=name).dropna("spectrum_index") for name in one["matrix"].values
    }
    largest = max(float(values.max()) for values in spectrum.values())
    bins = np.linspace(0, 1.03 * largest, 41).tolist()
    if float(spectrum["initial"].max()) > 0:
        ax.hist(spectrum["initial"], bins, color="#d5d5d5", label="$W_0$")
        edge = float(one["visible_edge"])
        ax.axvline(edge, color=GREY, linestyle="--", linewidth=0.9, label="edge of noise")
    ax.hist(spectrum["trained"], bins, histtype="step", color=INK, linewidth=0.9, label="$W$")
    top = ax.get_ylim()[1]
    ax.set_ylim(-0.2 * top, 1.15 * top)
    for value, owner in zip(one["direction_strength"].values, owners, strict=True):
        if np.isfinite(value):
            ax.plot([value, value], [-0.18 * top, -0.05 * top], color=_color(owner), linewidth=1.6)
    ax.add_patch(Rectangle((0, -0.2 * top), bins[-1], 0.2 * top, color="#f4f4f4", zorder=0, linewidth=0))
    ax.set(xlabel="singular value", ylabel="number", xlim=(0, bins[-1]))
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= 1.1 * top])
    handles = [*ax.get_legend_handles_labels()[0], entry(r"$\Delta W$", color=INK, marker="|", **TICK)]
    ax.legend(handles=handles, **ABOVE)


def _draw_shares(ax: Axes, one: xr.Dataset) -> None:
    """Draw the share of |dW|^2 in the leading components of activity and adjoints."""
    drawn = False
    for name, color in (("activity", PALETTE["activity"]), ("adjoint", PALETTE["adjoints"])):
        for stage, style in (("before", "--"), ("after", "-")):
            share = one[f"{name}_share"].sel(stage=stage)
            if np.isfinite(share).any():
                drawn = True
                label = f"{'activity' if name == 'activity' else 'adjoints'} {stage}"
                ax.plot(one[f"{name}_component"], share, style, color=color, linewidth=1.2, label=label)
    if not drawn:
        ax.text(0.5, 0.5, "no activity", transform=ax.transAxes, ha="center", color=GREY)
        ax.set_axis_off()
        return
    null = one["activity_share_null"]
    ax.plot(one["activity_component"], null, color=GREY, linestyle=":", linewidth=1.0)
    ax.set_xscale("log")
    ax.set(xlabel="principal components", ylabel=r"share of $\|\Delta W\|^2$", ylim=(0, 1.03))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    at = max(1, len(null) // 6)
    ax.annotate("random", (at, float(null[at - 1])), (3, -4), textcoords="offset points", va="top", **SMALL)
    ax.legend(**ABOVE)


def _nothing(block: str) -> Figure:
    figure = Figure(figsize=(4.0, 2.0), layout="constrained")
    ax = figure.subplots()
    ax.text(0.5, 0.5, f"the change of {block} is zero:\nit has no directions", ha="center", va="center", color=GREY)
    ax.set_axis_off()
    return figure
