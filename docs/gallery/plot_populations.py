r"""
Units drawn from populations
============================

Networks are trained in W = m n^T of rank 1, on a decision about one input, and on one in which a context says
which of two inputs counts. Each unit is a point of its m, n, input and output weights. Left: units are drawn anew
from one Gaussian of these points, in six draws. This keeps the first task and loses the second. Right: the weights
of the two context inputs, colored by the population of a mixture of two Gaussians: units listen to one context or to
the other, which one Gaussian cannot say.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import rankscope as rs

figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.2), layout="constrained")
for x, (name, epochs) in enumerate({"perceptual_decision": 15, "context_dependent_decision": 40}.items()):
    task = rs.tasks.make(name, noise=0.05, trials=400)
    network = rs.RateRNN.initialize(task, 128, 0.0, rng=0, rank=1, trained=("input", "recurrent"))
    before = network.snapshot()
    rates = {"learning_rate": 0.04, "learning_rates": {"recurrent_weights": 0.004}}
    rs.train(network, task, epochs=epochs, rng=0, clip_norm=0.5, **rates)
    trials = task.sample(200, rng=1)
    found = rs.populations(before, network, rank=1, number=1, rng=0)
    accuracies = []
    with torch.no_grad():
        for one in (network, *(found.draw(rng, hidden_size=512) for rng in range(6))):
            outputs = one(trials.inputs, rng=0)
            accuracies.append(task.trial_accuracy(outputs, trials.targets, trials.mask))
    left.plot(x, accuracies[0], "_", color="black", markersize=30, label="trained" if x == 0 else None)
    left.plot(np.full(6, x), accuracies[1:], "o", alpha=0.4, color="tab:blue", label="drawn" if x == 0 else None)
left.set(ylabel="fraction of right trials", xlim=(-0.5, 1.5), ylim=(0.4, 1.05))
left.set_xticks([0, 1], ["perceptual", "context-dependent"])
left.legend(loc="lower left")

found = rs.populations(before, network, rank=1, number=2, rng=0)
right.scatter(*network.input_weights.detach()[:, 2:].T, c=found.labels, cmap="coolwarm", s=12)
right.set(xlabel="weight of context 1", ylabel="weight of context 2")
plt.show()
