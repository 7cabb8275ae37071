r"""
Directions that a task needs
============================

Left: truncating the change of a trained network. Right: networks with the same W0, trained in
:math:`W_0 + m n^T` of rank R. With random connectivity (g = 0.9) one trained direction solves a memory of two
bits, for which the network without a constraint uses several. Without it (g = 0) rank 1 keeps one bit only. The
better of two starts counts, as some stay on a plateau.
"""

import matplotlib.pyplot as plt

import rankscope as rs

task = rs.tasks.FlipFlop()
trials = task.sample(256, rng=1)
ranks = [1, 2, 3, 4]
figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3), sharey=True, layout="constrained")
for gain in (0.0, 0.9):
    network = rs.RateRNN.initialize(task, hidden_size=96, gain=gain, rng=0)
    before = network.snapshot()
    initial = rs.evaluate(before, trials)
    rs.train(network, task, epochs=350, rng=0)
    curve = rs.truncation_curve(before, network, trials, ranks=range(9))
    left.semilogy(curve.ranks, curve.scores / initial, "o-", label=f"g = {gain:g}")
    losses = []
    for rank in ranks:
        found = []
        for start in (0, 1):
            # m starts at 0, n small; ten times the learning rate for both.
            options = {"rank": rank, "rank_spread": (0, 0.1), "rank_rng": start}
            network = rs.RateRNN.initialize(task, 96, gain, rng=0, **options)
            rates = {"recurrent_weights": 0.5 / 96}
            rs.train(network, task, epochs=350, rng=0, learning_rates=rates, stop_below=0.01)
            found.append(rs.evaluate(network, trials) / initial)
        losses.append(min(found))
    right.semilogy(ranks, losses, "o-")
for ax in (left, right):
    ax.axhline(0.05, color="grey", linestyle="--", linewidth=0.8)
left.set(xlabel="rank of the truncated change", ylabel="loss / initial loss")
right.set(xlabel="rank in training", xticks=ranks)
left.legend()
plt.show()
