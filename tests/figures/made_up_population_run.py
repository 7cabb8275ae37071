"""A made-up run of the experiment `populations`, with the published accuracies."""

import numpy as np
import xarray as xr

from rankscope.experiments.populations import CDM, DM, PROTOCOL, PUBLISHED

RHOS, KINDS, SAMPLES = [0.0, 0.1, 1.0], ["full", "1", "2", "3"], 4
RANKS, RESAMPLED, COUNTS = np.arange(26), np.arange(1, 11), [1, 2, 3]


def make_population_run(shift=0.0, one=0.6, two=0.9):
    """Family a at rho = 0.1 and b at rho = 1, shifted; with the accuracies of one and more populations."""
    rng = np.random.default_rng(0)
    shape = (len(PROTOCOL), len(RHOS), SAMPLES, len(KINDS))
    status = np.full(shape, "", dtype=object)
    accuracy = np.full((*shape, len(RANKS)), np.nan)
    resampled = np.full((*shape, len(RESAMPLED), len(COUNTS)), np.nan)
    for t, task in enumerate(PROTOCOL):
        for r, family in ((1, "a"), (2, "b")):
            means = PUBLISHED.get(task, PUBLISHED[DM])[family][0]
            curve = np.r_[0.5, means, np.full(25 - len(means), 0.999)]
            noise = 0.002 * rng.standard_normal((SAMPLES, 26))
            accuracy[t, r, :, 0] = np.clip(curve + noise - noise.mean(0) + shift, 0, 1)
            resampled[t, r, :, 0] = [one, two, two] if task == CDM else 0.996
            status[t, r, :, 0] = "finished"
        if task in (DM, CDM):
            for k in (1, 2, 3):
                accuracy[t, 0, :, k] = np.where(k <= RANKS, 0.98, 0.6)
                resampled[t, 0, :, k, :k] = [one, two, two] if task == CDM else 0.97
                status[t, 0, :, k] = "finished"
    dims = ("task", "gain", "sample", "trained_rank")
    return xr.Dataset(
        {
            "status": (dims, status),
            "accuracy_of_rank": ((*dims, "accuracy_rank"), accuracy),
            "trial_accuracy": (dims, accuracy[..., -1]),
            "resampled_accuracy": ((*dims, "resampled_rank", "populations"), resampled),
            "resampled_accuracy_larger": (
                (*dims, "resampled_rank", "populations"),
                np.where(np.array(RHOS)[:, None, None, None, None] == 0, resampled, np.nan),
            ),
        },
        {
            "task": list(PROTOCOL),
            "gain": RHOS,
            "sample": range(SAMPLES),
            "trained_rank": KINDS,
            "accuracy_rank": RANKS,
            "resampled_rank": RESAMPLED,
            "populations": COUNTS,
            "hidden_size": 512,
        },
    )
