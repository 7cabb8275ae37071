"""A made-up run of NeuroGym environments: learned, not learned, not a task, and with a score below 0."""

import numpy as np
import xarray as xr

NAMES = ["GoNogo", "perceptualdecisionmaking.roitman02", "PerceptualDecisionMakingDelayResponse", "Box"] + [
    f"Task{index}" for index in range(22)
]


def make_neurogym_run(samples=2):
    """The first is learned by all, the second by none, the third is unsuitable, the fourth has a score below 0."""
    rng = np.random.default_rng(0)
    dims, shape = ("task", "gain", "sample"), (len(NAMES), 3, samples)
    score = rng.uniform(0.3, 0.95, shape)
    score[0], score[1], score[2], score[3] = 1.0, 0.5, np.nan, -2.0
    status = np.full(shape, "finished", dtype=object)
    status[2] = "unsuitable"
    chance = np.full(shape, 0.5)
    chance[2], chance[3] = np.nan, 0.0
    return xr.Dataset(
        {
            "score": (dims, score),
            "chance": (dims, chance),
            "status": (dims, status),
            "fall_epoch": (dims, rng.uniform(80, 2500, shape)),
            "score_rank": (dims, rng.integers(1, 12, shape).astype(float)),
            "change_norm": (dims, rng.uniform(1, 4, shape)),
        },
        {"task": NAMES, "gain": [0.0, 0.9, 1.5], "sample": range(samples), "hidden_size": 256},
    )
