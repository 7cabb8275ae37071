r"""
Units drawn from populations
============================

A network is trained on a context-dependent decision in W = m n^T of rank 1. Each unit is a point of its m, n,
input and output weights. Left: the weights of the two context inputs, colored by the population of a fitted
mixture of two Gaussians: each population listens to one context. Right: the fraction of right trials of networks
whose 1024 units are drawn anew from one, two and four Gaussians, in six draws each.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import rankscope as rs

task = rs.tasks.make("context_dependent_decision", noise=0.05, trials=400)
network = rs.RateRNN.initialize(task, 256, 0.0, rng=0, rank=1, trained=("input", "recurrent"))
before = network.snapshot()
rates = {"recurrent_weights": 0.02 / 16}
rs.train(network, task, epochs=60, rng=0, learning_rate=0.02, learning_rates=rates, clip_norm=0.5)
trials = task.sample(200, rng=1)


@torch.no_grad()
def accuracy(one):
    return task.trial_accuracy(one(trials.inputs, rng=0), trials.targets, trials.mask)


figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.2), layout="constrained")
right.axhline(accuracy(network), color="grey", linestyle="--", label="trained network")
for number in (1, 2, 4):
    found = rs.populations(before, network, rank=1, number=number, rng=0)
    drawn = [accuracy(found.draw(rng, hidden_size=1024)) for rng in range(6)]
    right.plot(np.full(6, number), drawn, "o", color="tab:blue", alpha=0.4)
    right.plot(number, np.mean(drawn), "_", color="black", markersize=25)
    if number == 2:
        contexts = network.input_weights.detach()[:, 2:]
        left.scatter(*contexts.T, c=found.labels, cmap="coolwarm", s=12)
left.set(xlabel="weight of context 1", ylabel="weight of context 2")
right.set(xlabel="populations", ylabel="fraction of right trials", xticks=[1, 2, 4])
right.legend()
plt.show()
