r"""
An eigenvalue leaves the disc
=============================

Random connectivity of gain g fills a disc of radius g with eigenvalues. Learning a task that needs memory takes a few of
them out of it, to where perturbations no longer decay.
"""

import matplotlib.pyplot as plt
import numpy as np

import rankscope as rs

task = rs.tasks.FlipFlop()
gain = 0.6
network = rs.RateRNN.initialize(task, hidden_size=200, gain=gain, rng=0)
before = network.snapshot()
rs.train(network, task, epochs=300, rng=0)
spectra = rs.lowrank.spectra(before, network)

figure, axes = plt.subplots(
    1, 2, sharex=True, sharey=True, figsize=(8, 4), layout="constrained"
)
angle = np.linspace(0, 2 * np.pi, 200)
for ax, matrix, title in zip(
    axes, ("initial", "trained"), ("before, $W_0$", "after, $W$"), strict=True
):
    one = spectra.sel(matrix=matrix)
    ax.plot(gain * np.cos(angle), gain * np.sin(angle), color="grey", linewidth=1)
    ax.axvline(1, color="grey", linestyle=":")
    ax.plot(one.eigenvalue_real, one.eigenvalue_imag, ".", markersize=4)
    ax.set(title=title, xlabel="real part", aspect="equal")
axes[0].set_ylabel("imaginary part")
plt.show()
