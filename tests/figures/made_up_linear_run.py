"""Made-up runs of the linear experiments: networks that learn about as fast as real ones, each a little otherwise."""

import numpy as np
import xarray as xr

GAINS = (0.0, 0.6, 0.8)
TARGETS = (0.5, 1.0, 2.0)
RATES = {0.5: 0.06, 1.0: 0.036, 2.0: 0.012, 4.0: 0.0015}
EPOCHS, RECORDS = 50, 25


def spread(values, rng):
    """Values with a scatter of a few percent."""
    return values * rng.uniform(0.9, 1.1, values.shape)


def dataset_for(experiment):
    if experiment == "cosine":
        return make_cosine_run()
    return make_linear_run(GAINS[1:], (2.0, 4.0)) if experiment == "divergence" else make_linear_run()


def make_linear_run(gains=GAINS, targets=TARGETS, samples=3, indices=22):
    rng = np.random.default_rng(0)
    shape = (len(gains), samples, len(targets))
    g, _, z = np.meshgrid(gains, range(samples), targets, indexing="ij")
    epoch, recorded = np.arange(EPOCHS), np.linspace(0, EPOCHS - 1, RECORDS).round()
    learned = 1 - np.exp(-recorded / 6)
    loss = spread(z, rng)[..., None] ** 2 / 2 * np.exp(-epoch / 6)
    s = spread(z * (1 - g**2), rng)[..., None, None] * learned[:, None] * 0.1 ** np.arange(indices)
    real = g[..., None, None] - 0.02 * np.arange(5) + np.zeros((RECORDS, 1))
    real[..., 0] += (0.9 - g)[..., None] * learned * (g > 0)[..., None]
    names = ("gain", "sample", "target")
    scalars = {
        "convergence_epoch": np.argmax(loss < 0.05 * loss[..., :1], axis=-1).astype(float),
        "learning_rate": np.vectorize(RATES.get)(z) * (1 - g**2) ** 2,
        "change_norm": spread(z * (1 - g**2), rng),
        "average_gradient": spread(1 / (1 - np.minimum(g, 0.9) ** 2), rng),
        "shuffled_loss": spread(g**2, rng),
    }
    along = {
        "loss": ("epoch", loss),
        "singular_value_history": ("record", "leading_index", s),
        "eigenvalue_real_history": ("record", "leading_eigenvalue", real),
        "eigenvalue_imag_history": ("record", "leading_eigenvalue", 0 * real),
    }
    return xr.Dataset(
        {name: (names, values) for name, values in scalars.items()}
        | {name: ((*names, *parts[:-1]), parts[-1]) for name, parts in along.items()}
        | {"status": (names, np.full(shape, "finished", dtype=object))},
        {
            "task": "fixed_point",
            "hidden_size": 64,
            "gain": list(gains),
            "sample": range(samples),
            "target": list(targets),
            "epoch": epoch,
            "recorded_epoch": ((*names, "record"), np.broadcast_to(recorded, (*shape, RECORDS)).copy()),
            "leading_index": np.arange(1, indices + 1),
            "leading_eigenvalue": np.arange(1, 6),
        },
    )


def make_cosine_run(gains=(0.0, 0.4, 0.8), samples=3):
    rng = np.random.default_rng(0)
    names, shape = ("gain", "sample"), (len(gains), samples)
    epoch, recorded, time = np.arange(EPOCHS), np.linspace(0, EPOCHS - 1, RECORDS).round(), 0.1 * np.arange(1, 101)
    target = np.broadcast_to(np.cos(2 * np.pi * time / 5)[:, None], (*shape, 100, 1))
    mask = np.broadcast_to((time <= 5.0)[:, None].astype(float), target.shape)
    along = {
        "loss": ("epoch", spread(np.exp(-epoch / 9) * np.ones((*shape, 1)), rng)),
        "eigenvalue_real_history": ("record", "leading_eigenvalue", rng.uniform(0.5, 1, (*shape, RECORDS, 5))),
        "eigenvalue_imag_history": ("record", "leading_eigenvalue", rng.uniform(-1.2, 1.2, (*shape, RECORDS, 5))),
        "example_output": ("step", "output_channel", spread(target, rng)),
        "example_target": ("step", "output_channel", target.copy()),
        "example_mask": ("step", "output_channel", mask.copy()),
    }
    return xr.Dataset(
        {name: ((*names, *parts[:-1]), parts[-1]) for name, parts in along.items()}
        | {"status": (names, np.full(shape, "finished", dtype=object))},
        {
            "task": "cosine",
            "hidden_size": 64,
            "gain": list(gains),
            "sample": range(samples),
            "epoch": epoch,
            "recorded_epoch": ((*names, "record"), np.broadcast_to(recorded, (*shape, RECORDS)).copy()),
            "leading_eigenvalue": np.arange(1, 6),
            "time": ((*names, "step"), np.broadcast_to(time, (*shape, 100)).copy()),
        },
    )


def diverge(run, epoch, **where):
    """Let networks have no finite loss from an epoch on, where a last look at their weights found them far off."""
    run["status"].loc[where] = "diverged"
    run["convergence_epoch"].loc[where] = np.nan
    run["loss"].loc[{**where, "epoch": slice(epoch, None)}] = np.nan
    looks_before = int((run["recorded_epoch"].values[0, 0, 0] < epoch).sum())
    for name in ("singular_value_history", "eigenvalue_real_history"):
        here = run[name].loc[where].copy()
        here[{"record": slice(looks_before, None)}] = np.nan
        here[{"record": slice(looks_before, looks_before + 1)}] = 1e6
        run[name].loc[where] = here
    return run
