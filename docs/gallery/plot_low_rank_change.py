r"""
The change is of low rank
=========================

A network learns the flip-flop from random connectivity :math:`W_0`. What does learning add, and how much of it is
needed? The singular values of the change :math:`\Delta W = W - W_0` fall off steeply, those of a random matrix of the
same size do not; and the few leading directions are all that the task needs.
"""

# %%
# Train.

import matplotlib.pyplot as plt
import numpy as np

import rankscope as rs

task = rs.tasks.FlipFlop()
network = rs.RateRNN.initialize(task, hidden_size=128, gain=0.9, rng=0)
before = network.snapshot()
history = rs.train(network, task, epochs=400, rng=0)
print(f"loss {history.losses[0]:.3f} -> {history.losses[-1]:.5f}")

# %%
# `truncation_curve` truncates the change to rank `R` and evaluates the loss on fresh trials, with the trained input and
# output weights.

change = rs.change(before, network)
curve = rs.truncation_curve(
    before, network, task.sample(256, rng=1), ranks=range(16)
)
rank = rs.functional_rank(curve)
print(f"|dW| = {change.norm:.2f}, functional rank {rank} of {network.hidden_size}")

# %%
# Beside it, a random matrix of the same size and norm.

random = np.random.default_rng(0).standard_normal(change.matrix.shape)
random *= change.norm / np.linalg.norm(random)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.plot(range(1, 26), change.singular_values[:25], "o-", label=r"$\Delta W$")
left.plot(
    range(1, 26),
    np.linalg.svd(random, compute_uv=False)[:25],
    "s--",
    color="grey",
    label="random, same norm",
)
left.set(xlabel="index", ylabel="singular value", ylim=(0, None))
left.legend(frameon=False)
right.semilogy(curve.ranks, curve.scores / curve.scores[0], "o-")
right.axhline(0.05, color="grey", linestyle=":")
right.text(15, 0.055, "5 %", ha="right", color="grey")
right.axvline(rank, color="C1", linestyle="--", label=f"functional rank {rank}")
right.set(
    xlabel=r"rank that $\Delta W$ is truncated to",
    ylabel="loss / loss at rank 0",
    xticks=range(0, 16, 3),
)
right.legend(frameon=False)
plt.show()
