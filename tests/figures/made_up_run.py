"""A made-up run with what real runs have: failures, missing combinations, padding where tasks or networks differ."""

import numpy as np
import xarray as xr

TASKS = {"flipflop": (2, 2, 20), "mante": (4, 1, 18), "romo": (1, 2, 12)}  # input and output channels, steps
GAINS = (0.0, 0.9, 1.8)
SAMPLES = 4
RANKS = 6
EPOCHS = 30
SCALARS = (
    "convergence_epoch",
    "change_norm",
    "trained_norm",
    "shuffled_loss",
    "functional_rank",
    "initial_loss",
    "evaluation_loss",
)


def per_network(rng, sizes):
    """Variables of all networks, without failures or padding."""
    shape = (len(TASKS), len(GAINS), SAMPLES, len(sizes))
    names = ("task", "gain", "sample", "hidden_size")
    largest = max(sizes)
    parts = {
        "loss": {"epoch": EPOCHS},
        "truncation_loss": {"rank": RANKS},
        "singular_value": {"matrix": 3, "singular_index": largest},
        "eigenvalue_real": {"matrix": 3, "eigenvalue": largest},
        "eigenvalue_imag": {"matrix": 3, "eigenvalue": largest},
        "example_input": {"step": 20, "input_channel": 4},
        "example_target": {"step": 20, "output_channel": 2},
        "example_mask": {"step": 20, "output_channel": 2},
        "example_output": {"step": 20, "output_channel": 2},
        "overlap": {"block": 1, "stage": 2, "partner": 6, "side": 2, "direction": 3},
        "overlap_null": {"block": 1, "stage": 2, "partner": 6, "side": 2},
        "direction_share": {"block": 1, "direction": 3},
    }
    made = {name: (names, rng.uniform(1.0, 9.0, shape)) for name in SCALARS}
    for name, dims in parts.items():
        made[name] = ((*names, *dims), rng.uniform(0.1, 1.0, (*shape, *dims.values())))
    made["functional_rank"] = (names, rng.integers(1, RANKS, shape).astype(float))
    made["status"] = (names, np.full(shape, "finished", dtype=object))
    return made


def make_run(hidden_sizes=(16,)):
    rng = np.random.default_rng(0)
    run = xr.Dataset(
        per_network(rng, hidden_sizes),
        {
            "task": list(TASKS),
            "gain": list(GAINS),
            "hidden_size": list(hidden_sizes),
            "matrix": ["initial", "change", "trained"],
            "rank": range(RANKS),
            "block": ["recurrent_weights"],
            "stage": ["before", "after"],
            "partner": ["inputs", "outputs", "W0 inputs", "W0^T outputs", "activity", "adjoints"],
            "side": ["left", "right"],
            "epoch": range(EPOCHS),
            "singular_index": np.arange(1, max(hidden_sizes) + 1),
            "time": ("step", np.arange(20) * 0.5),
        },
    )
    for task, (inputs, outputs, steps) in TASKS.items():
        run["example_input"].loc[{"task": task}] = pad(run["example_input"].sel(task=task), steps, inputs)
        for name in ("example_target", "example_mask", "example_output"):
            run[name].loc[{"task": task}] = pad(run[name].sel(task=task), steps, outputs)
    for n in hidden_sizes:
        for name in ("singular_value", "eigenvalue_real", "eigenvalue_imag"):
            run[name].loc[{"hidden_size": n}] = run[name].sel(hidden_size=n).where(np.arange(max(hidden_sizes)) < n)
    run["overlap"].loc[{"gain": 0.0, "partner": ["W0 inputs", "W0^T outputs"]}] = np.nan
    run["singular_value"].loc[{"gain": 0.0, "matrix": "initial"}] = 0.0
    return run


def pad(values, steps, channels):
    padded = values.copy()
    padded[{"step": slice(steps, None)}] = np.nan
    padded[{padded.dims[-1]: slice(channels, None)}] = np.nan
    return padded


def forget(run, **where):
    """Take out a combination as if it had never been trained."""
    for name in run.data_vars:
        run[name].loc[where] = "" if name == "status" else np.nan
    return run


def fail(run, **where):
    """Let networks not converge, and have no functional rank."""
    for name in ("convergence_epoch", "functional_rank"):
        run[name].loc[where] = np.nan
    return run


def line_with(axes, values):
    """Whether one of the lines of `axes` has just these heights."""
    values = np.asarray(values, dtype=float)
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()]
    return any(y.shape == values.shape and np.allclose(y, values, equal_nan=True) for y in drawn)


def bars(axes):
    """The ends of all error bars, one row a bar: x, lower, upper."""
    segments = [segment for collection in axes.collections for segment in collection.get_segments()]
    return np.array([[s[0][0], s[0][1], s[1][1]] for s in segments if np.isfinite(s).all() and len(s) == 2])
