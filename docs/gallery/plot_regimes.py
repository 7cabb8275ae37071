r"""
Aligned and oblique, lazy and rich
==================================

The norm of the output weights decides whether the outputs read the leading components of activity. Small weights
(:math:`|w| = 1/\sqrt{N}`) lead to aligned networks, large ones to oblique networks, in which the alignment is that of
random output weights (dotted). Noise along the outputs hurts oblique networks most. The kernel alignment tells how much
the sensitivities of the outputs have changed: less with random connectivity (g = 0.9), where the network is lazier.
"""

import matplotlib.pyplot as plt
import numpy as np

import rankscope as rs

task = rs.tasks.FlipFlop()
N = 64
norms = np.geomspace(N**-0.5, 1, 3)
names = ["alignment with outputs", "kernel alignment", "loss added by noise"]
found = {}
for gain in (0.0, 0.9):
    for norm in norms:
        network = rs.RateRNN.initialize(task, N, gain, rng=0, output_norm=norm)
        before = network.snapshot()
        rs.train(network, task, epochs=200, rng=0)
        activity = rs.regime.activity(network, task)
        alignment = rs.regime.alignment(activity.rates, activity.output_weights)
        kernel = rs.regime.kernel_alignment(before, network, task)
        noise = rs.regime.noise_loss(network, task)
        added = (noise.outputs - noise.without) / noise.silent
        found[gain, norm] = alignment.rho, kernel.value, added

figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), layout="constrained")
for index, (ax, name) in enumerate(zip(axes, names, strict=True)):
    for gain in (0.0, 0.9):
        values = [found[gain, norm][index] for norm in norms]
        ax.plot(norms, values, "o-", label=f"g = {gain:g}")
    ax.set(xscale="log", xlabel="norm of the outputs |w|", ylabel=name)
    ax.set_xticks(norms, [f"{norm:.2g}" for norm in norms])
    ax.minorticks_off()
axes[0].axhline(N**-0.5, color="gray", linestyle=":")
axes[0].set_ylim(0, None)
axes[1].set_ylim(0, 1)
axes[2].set_ylim(0, None)
axes[0].legend(frameon=False)
plt.show()
