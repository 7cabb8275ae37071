"""A made-up run of the experiment `needed`: with connectivity, rank 1 is enough and five directions are used."""

import numpy as np
import xarray as xr

TASKS, GAINS, SAMPLES, RANKS, STARTS = ["flipflop", "mante", "romo"], [0.0, 0.9, 1.8], 3, [1, 2, 3, 4, 6], [0, 1]


def make_needed_run(needed=(3, 1, 1), used=(2, 5, 6)):
    """The needed and the functional rank at each gain; a second start that fails always."""
    labels, starts = ["none", *map(str, RANKS)], ["none", *map(str, STARTS)]
    shape = (len(TASKS), len(GAINS), SAMPLES, len(labels), len(starts))
    rng = np.random.default_rng(0)
    found = {name: np.full(shape, np.nan) for name in ("evaluation_loss", "initial_loss", "functional_rank")}
    status = np.full(shape, "", dtype=object)
    for g in range(len(GAINS)):
        full = (slice(None), g, slice(None), 0, 0)
        status[full] = "finished"
        found["initial_loss"][full], found["evaluation_loss"][full] = 0.06, 1e-4
        found["functional_rank"][full] = used[g] + rng.integers(0, 2, (len(TASKS), SAMPLES))
        for r, rank in enumerate(RANKS):
            low = (slice(None), g, slice(None), r + 1, slice(1, None))
            status[low] = "finished"
            found["initial_loss"][low] = 0.06
            found["evaluation_loss"][low] = 0.03
            if rank >= needed[g]:
                found["evaluation_loss"][(*low[:-1], 1)] = 0.06 * 0.02 / rank
    dims = ("task", "gain", "sample", "trained_rank", "start")
    return xr.Dataset(
        {"status": (dims, status)} | {name: (dims, values) for name, values in found.items()},
        {
            "task": TASKS,
            "gain": GAINS,
            "sample": range(SAMPLES),
            "trained_rank": labels,
            "start": starts,
            "hidden_size": 256,
        },
    )
