r"""
The change belongs to its random connectivity
=============================================

The change that learning makes is of low rank, but it is no program of its own: it works together with the very
:math:`W_0` that it grew on. Permute the entries of :math:`W_0`, keep :math:`\Delta W` and the trained input and output
weights, and the task is lost.
"""

import matplotlib.pyplot as plt
import torch

import rankscope as rs

task = rs.tasks.FlipFlop()
network = rs.RateRNN.initialize(task, hidden_size=128, gain=0.9, rng=0)
before = network.snapshot()
rs.train(network, task, epochs=400, rng=0)

# %%
# The measured quantity is the loss on fresh trials.

trials = task.sample(256, rng=1)
print("after learning    ", rs.evaluate(network, trials))
print("with W0 shuffled  ", rs.lowrank.shuffled_loss(before, network, trials, rng=2))
print("before learning   ", rs.evaluate(before, trials))

# %%
# One trial shows what that means.

shuffled = network.snapshot()
with torch.no_grad():
    W0 = before.recurrent_weights
    order = torch.randperm(W0.numel(), generator=torch.Generator().manual_seed(2))
    elsewhere = W0.flatten()[order].reshape(W0.shape)
    shuffled.recurrent_weights += elsewhere - W0
    trial = task.example()
    outputs = {
        "trained": network(trial.inputs),
        r"$W_0$ shuffled": shuffled(trial.inputs),
    }

time = (torch.arange(trial.steps) + 1) * task.dt
figure, axes = plt.subplots(2, 1, sharex=True, figsize=(8, 4), layout="constrained")
for channel, ax in enumerate(axes):
    ax.fill_between(
        time,
        -0.6,
        0.6,
        where=trial.mask[0, :, channel] > 0,
        color="0.93",
        label="asked for",
    )
    ax.plot(
        time,
        0.5 * trial.inputs[0, :, channel],
        color="0.6",
        linewidth=1,
        label="input / 2",
    )
    ax.plot(time, trial.targets[0, :, channel], "k--", linewidth=1, label="target")
    for name, z in outputs.items():
        ax.plot(time, z[0, :, channel], label=name)
    ax.set_ylabel(f"output {channel + 1}")
axes[1].set_xlabel("time (membrane time constants)")
figure.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside upper center",
    ncols=5,
    frameon=False,
)
plt.show()
