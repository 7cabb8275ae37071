"""The flip-flop learned from g = 0 and from g = 0.9: without, and with strong random connectivity.

Both networks learn by a change of low rank, but only at g = 0.9 does the change depend on its W0. The two share their
seed, and with it trials and input and output vectors.
"""

from __future__ import annotations

from rankscope.experiments.base import MEASURED, Experiment
from rankscope.sweep import Job

GAINS = (0.0, 0.9)


def demo_jobs(hidden_size: int = 256, epochs: int = 1000, seed: int = 0) -> list[Job]:
    """Return the two jobs."""
    return [
        Job(
            task="flipflop",
            network={"kind": "rate", "gain": gain, "hidden_size": hidden_size},
            training={"epochs": epochs},
            measurements=MEASURED,
            seed=seed,
        )
        for gain in GAINS
    ]


DEMO = Experiment(
    name="demo",
    description="Flip-flop at g = 0 and 0.9, one network each",
    presets={"quick": lambda: demo_jobs(128, 500), "paper": demo_jobs},
    figure="tasks",
)
