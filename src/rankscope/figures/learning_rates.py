"""Stable learning rates of gradient descent in the linear network: a phase diagram for each target.

Short steps settle at the solution of gradient flow. Longer ones overshoot and end at another solution, where the loss
is less curved. The longest move an eigenvalue of W to 1, and learning diverges.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from rankscope.figures.theory_curves import target_label
from rankscope.plot.style import COLORS, INK, label_panels, styled

PANEL_WIDTH = 2.1


def learning_rates(rates: xr.Dataset, used: Mapping[float, float]) -> Figure:
    """Draw the phases over g and learning rate, one panel a target.

    Parameters
    ----------
    rates
        `settles` and `diverges` over `gain` and `target`, as `experiments.prediction.learning_rates` returns them.
    used
        Target -> learning rate of trained networks in the same units, drawn as a line.
    """
    with styled():
        targets = rates["target"].values
        figure = Figure(figsize=(1.2 + PANEL_WIDTH * len(targets), 2.9), layout="constrained")
        axes = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
        lowest, highest = float(rates["settles"].min()) / 5, float(rates["diverges"].max()) * 3
        handles: dict[str, Artist] = {}
        for ax, target in zip(axes, targets, strict=True):
            one = rates.sel(target=target)
            gain, settles, diverges = one["gain"].values, one["settles"].values, one["diverges"].values
            ax.fill_between(gain, lowest, settles, color=COLORS[2], alpha=0.35, linewidth=0, label="settles")
            ax.fill_between(gain, settles, diverges, color=COLORS[4], alpha=0.45, linewidth=0, label="overshoots")
            ax.fill_between(gain, diverges, highest, color=COLORS[1], alpha=0.55, linewidth=0, label="diverges")
            for boundary in (settles, diverges):
                ax.plot(gain, boundary, color=INK, linewidth=0.8)
            if float(target) in used:
                label = "Schuessler et al. 2020, Fig. 3"
                ax.axhline(used[float(target)], color=INK, linestyle="--", linewidth=1.0, label=label)
            ax.set(yscale="log", ylim=(lowest, highest), xlim=(gain.min(), gain.max()), xlabel="gain $g$")
            ax.set_title(target_label(target))
            ax.set_xticks(np.linspace(gain.min(), gain.max(), 4).round(2))
            found, labels = ax.get_legend_handles_labels()
            handles |= dict(zip(labels, found, strict=True))
        axes[0].set_ylabel("learning rate / $(1 - g^2)^2$")
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4)
        label_panels(figure, axes, offset=(-14, 6))
    return figure
