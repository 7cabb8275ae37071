r"""
A task of your own
==================

A task is anything with a method `sample(batch_size, rng)` that returns :class:`rankscope.Trials`. Here: say, at the end,
the sum of two numbers heard at different times.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch

import rankscope as rs


@dataclass(frozen=True)
class Sum:
    """Two pulses of random height; their mean is asked for in the last ten steps."""

    steps: int = 60

    def sample(self, batch_size, rng):
        inputs = np.zeros((batch_size, self.steps, 1))
        heights = rng.uniform(-1, 1, size=(batch_size, 2))
        inputs[:, 5:10, 0] = heights[:, :1]
        inputs[:, 25:30, 0] = heights[:, 1:]
        targets, mask = np.zeros_like(inputs), np.zeros_like(inputs)
        targets[:, -10:] = heights.mean(axis=1)[:, None, None]
        mask[:, -10:] = 1
        return rs.Trials.from_arrays(inputs, targets, mask)


task = Sum()
network = rs.RateRNN.initialize(task, hidden_size=100, gain=1.0, rng=0)
before = network.snapshot()
history = rs.train(network, task, epochs=500, rng=0)
curve = rs.truncation_curve(
    before, network, task.sample(256, np.random.default_rng(1)), ranks=range(11)
)

# %%
# What it answers, and how many directions that takes.

trials = task.sample(100, np.random.default_rng(2))
with torch.no_grad():
    answers = network(trials.inputs)[:, -1, 0]

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.plot([-1, 1], [-1, 1], color="grey", linewidth=1)
left.plot(trials.targets[:, -1, 0], answers, ".")
left.set(xlabel="mean of the two numbers", ylabel="answer of the network")
right.semilogy(curve.ranks, curve.scores / curve.scores[0], "o-")
right.axhline(0.05, color="grey", linestyle=":")
right.set(
    xlabel=r"rank that $\Delta W$ is truncated to", ylabel="loss / loss at rank 0"
)
print("functional rank:", rs.functional_rank(curve))
plt.show()
