"""How long the steps of gradient descent may be in the linear network: a phase diagram for each target.

Short steps settle where gradient flow ends. Longer ones overshoot there, and are thrown to another solution, at which
the loss is less curved. The longest take an eigenvalue of W to 1, and learning diverges.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from rankscope.figures.style import COLOURS, INK, label_panels, styled

PANEL_WIDTH = 2.1


def learning_rates(rates: xr.Dataset, used: Mapping[float, float]) -> Figure:
    """Draw the phases over g and learning rate, one panel a target.

    Parameters
    ----------
    rates
        `settles` and `diverges` over `gain` and `target`, as `experiments.prediction.learning_rates` returns them.
    used
        Target -> learning rate in the same units, of networks that were trained, to be drawn as a line.
    """
    with styled():
        targets = rates["target"].values
        figure = Figure(figsize=(1.2 + PANEL_WIDTH * len(targets), 2.9), layout="constrained")
        axes = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
        lowest, highest = float(rates["settles"].min()) / 5, float(rates["diverges"].max()) * 3
        for ax, target in zip(axes, targets, strict=True):
            at = rates.sel(target=target)
            gain, settles, diverges = at["gain"].values, at["settles"].values, at["diverges"].values
            ax.fill_between(gain, lowest, settles, color=COLOURS[2], alpha=0.35, linewidth=0, label="settles")
            ax.fill_between(gain, settles, diverges, color=COLOURS[4], alpha=0.45, linewidth=0, label="overshoots")
            ax.fill_between(gain, diverges, highest, color=COLOURS[1], alpha=0.55, linewidth=0, label="diverges")
            ax.plot(gain, settles, color=INK, linewidth=0.8)
            ax.plot(gain, diverges, color=INK, linewidth=0.8)
            if float(target) in used:
                ax.axhline(used[float(target)], color=INK, linestyle="--", linewidth=1.0, label="paper's Fig. 3")
            ax.set(yscale="log", ylim=(lowest, highest), xlim=(gain.min(), gain.max()), xlabel="gain $g$")
            ax.set_title(rf"$\hat z$ = {target:g}")
            ax.set_xticks(np.linspace(gain.min(), gain.max(), 4).round(2))
        axes[0].set_ylabel("learning rate / $(1 - g^2)^2$")
        entries: dict[str, Artist] = {}
        for ax in axes:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=4)
        label_panels(figure, list(axes), offset=(-14, 6))
    return figure
