"""Alignment of activity with the output weights, and its dimensions, before and after learning.

See `regime/alignment.py` and `regime/dimensions.py` for the formulas, nulls and bounds.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from rankscope.measurements.base import Matrices, Measurement, TrainedNetwork, scalar
from rankscope.networks.protocol import Network
from rankscope.regime import TRIALS, Activity, Dimensions, activity, alignment, dimensions
from rankscope.regime.activity import unreadable
from rankscope.tasks.trials import Task


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `output_alignment` with null and bound, `activity_dimension`, `fit_dimension`, `participation_ratio`."""
    trials = trained.evaluation_trials(rng)[:TRIALS]
    before, after = (activity(network, trials, rng) for network in (trained.before, trained.after))
    aligned, initially = (alignment(one.rates, one.output_weights) for one in (after, before))
    size, initial_size = _dimensions(after), _dimensions(before)
    return xr.Dataset(
        {
            "output_alignment": scalar(aligned.rho, "alignment of activity with the output weights, after learning"),
            "output_alignment_null": scalar(aligned.null, "alignment of random output weights, 1 / sqrt(N)"),
            "output_alignment_bound": scalar(aligned.bound, "largest alignment for this activity"),
            "output_variance_ratio": scalar(
                aligned.variance_ratio, "variance of activity along the outputs over that along random directions"
            ),
            "output_variance_ratio_std": scalar(aligned.variance_ratio_std, "standard deviation of it, random outputs"),
            "initial_output_alignment": scalar(initially.rho, "alignment of activity with outputs, before learning"),
            "activity_dimension": scalar(size.variance, "components of activity with 90 % of the variance"),
            "fit_dimension": scalar(size.fit, "components of activity that give 90 % of the outputs' variance"),
            "participation_ratio": scalar(size.participation, "participation ratio of activity, after learning"),
            "initial_activity_dimension": scalar(
                initial_size.variance, "components of activity with 90 % of the variance, before learning"
            ),
            "initial_participation_ratio": scalar(
                initial_size.participation, "participation ratio of activity, before learning"
            ),
        }
    )


def _dimensions(of: Activity) -> Dimensions:
    return dimensions(of.rates, of.outputs)


def applies(network: Network, task: Task, matrices: Matrices) -> str | None:
    """Require a network whose activity is known."""
    return unreadable(network)


# Not by default, as the other meters of the regime: they describe how a network learned, not what.
ACTIVITY = Measurement(
    "activity", "alignment of activity with the outputs, dimensions of activity", compute, applies, by_default=False
)
