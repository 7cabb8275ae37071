"""The ranks that an accuracy needs along training, from the copies of the network that the training kept.

Source: the definitions of `accuracy_truncation` at earlier epochs; Schuessler et al. 2020 have the end alone (Fig. 5).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from rankscope import lowrank
from rankscope.measurements.accuracy_truncation import curves
from rankscope.measurements.base import Measurement, TrainedNetwork, filled, has_validation


def compute(trained: TrainedNetwork, rng: np.random.Generator) -> xr.Dataset:
    """Return `accuracy_along`, `functional_rank_along` and more over the epochs whose networks were kept."""
    scores, ranks, spectra = [], [], []
    for network in trained.kept.values():
        then = replace(trained, after=network)
        found, _ = curves(then)
        scores.append([curve.scores for curve in found])
        ranks.append([lowrank.functional_rank(curve, "accuracy") for curve in found])
        values = [dW.singular_values for dW in then.changes.values()]
        spectra.append(filled(values, max(map(len, values))))
    described = "{} of the network after that many epochs"
    return xr.Dataset(
        {
            "truncation_accuracy_along": (
                ("kept_epoch", "truncated", "rank"),
                np.array(scores),
                {"long_name": described.format("validation accuracy, weights truncated,")},
            ),
            "functional_rank_along": (
                ("kept_epoch", "truncated"),
                np.array(ranks, dtype=np.float64),
                {"long_name": described.format("functional rank")},
            ),
            "change_singular_value_along": (
                ("kept_epoch", "weight", "change_index"),
                np.array(spectra),
                {"long_name": described.format("singular value of the change")},
            ),
        },
        {
            "kept_epoch": list(trained.kept),
            "truncated": ["change", "trained"],
            "rank": list(found[0].ranks),
            "weight": trained.short_names,
        },
    )


ACCURACY_ALONG = Measurement(
    "accuracy_along",
    "validation accuracy with the change or the weights truncated, along training",
    compute,
    lambda network, task, matrices: None if has_validation(task) else "the task has no validation data",
    along=True,
)
