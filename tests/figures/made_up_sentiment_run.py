"""A made-up run of the experiment on text: singular values that fall, accuracies that rise with the rank."""

import numpy as np
import xarray as xr

WEIGHTS = ["weight_hh_l0", "weight_hh_l1", "weight_ih_l1"]
GATES = ["input", "forget", "cell", "output"]


def make_sentiment_run(samples=2, N=24, gates=GATES, weights=WEIGHTS, epochs=40, kept=(5, 20)):
    rng = np.random.default_rng(0)
    index, rank = np.arange(1, N + 1), np.arange(N)
    of_matrix = np.stack([1 - index / (N + 1), 3 * 0.7**index, 1 - index / (N + 1) + 3 * 0.7**index])
    rising = np.stack([0.78 - 0.2 * 0.6**rank, 0.5 + 0.28 * rank / N])

    def spread(values, *shape):
        return values * rng.uniform(0.95, 1.05, (samples, *shape, *np.ones(values.ndim, int)))

    falling = 0.4 + 0.3 * 0.9 ** np.arange(epochs)
    along = np.array([4.0, 12.0]) + np.arange(len(kept))[:, None]
    return xr.Dataset(
        {
            "loss": (("sample", "epoch"), spread(falling)),
            "validation_loss": (("sample", "epoch"), spread(falling + 0.05)),
            "validation_accuracy": (("sample", "epoch"), spread(1.2 - falling)),
            "functional_rank": ("sample", np.full(samples, 7.0)),
            "functional_rank_trained": ("sample", np.full(samples, 18.0)),
            "functional_rank_along": (("sample", "kept_epoch", "truncated"), spread(along)),
            "accuracy": ("sample", np.full(samples, 0.78)),
            "evaluation_loss": ("sample", np.full(samples, 0.45)),
            "status": ("sample", np.full(samples, "finished", dtype=object)),
            "truncation_accuracy": (("sample", "truncated", "rank"), spread(rising)),
            "truncation_loss": (("sample", "truncated", "rank"), spread(1.25 - rising)),
            "singular_value": (
                ("sample", "weight", "matrix", "singular_index"),
                spread(of_matrix, len(weights)),
            ),
            "gate_singular_value": (
                ("sample", "weight", "matrix", "gate", "singular_index"),
                spread(of_matrix[:, None], len(weights)) * np.linspace(0.4, 0.6, len(gates))[:, None],
            ),
        },
        {
            "sample": range(samples),
            "epoch": range(epochs),
            "kept_epoch": list(kept),
            "truncated": ["change", "trained"],
            "rank": rank,
            "weight": weights,
            "matrix": ["initial", "change", "trained"],
            "gate": gates,
            "singular_index": index,
            "task": "sentiment",
            "hidden_size": N,
        },
    )


def fail_one(run):
    """Let the first network have diverged, with nothing to show."""
    run["status"].loc[{"sample": 0}] = "diverged"
    for name in ("truncation_accuracy", "truncation_loss", "singular_value", "gate_singular_value"):
        run[name].loc[{"sample": 0}] = np.nan
    return run
