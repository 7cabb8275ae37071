r"""
Whose directions learning wrote
===============================

Each direction :math:`s\, u v^T` of the change reads the activity along v and writes along u. Are these the network's
input and output vectors? Without random connectivity (g = 0) the two strongest directions read the inputs and write
along inputs and outputs, a loop that keeps each bit. Random connectivity hides this: at g = 0.9 the overlaps with
these vectors are small, but the directions still lie in the few dimensions of activity and adjoints (ten principal
components of each). The last column is what a random direction has.
"""

import matplotlib.pyplot as plt
import numpy as np

import rankscope as rs

task = rs.tasks.FlipFlop()
partners = ["inputs", "outputs", "activity", "adjoints"]
figure, axes = plt.subplots(2, 2, figsize=(7.5, 5), layout="constrained")
for row, gain in zip(axes, (0.0, 0.9), strict=True):
    network = rs.RateRNN.initialize(task, hidden_size=128, gain=gain, rng=0)
    before = network.snapshot()
    rs.train(network, task, epochs=250, rng=0)
    found = rs.anatomy(before, network, task, directions=4)
    found = found.isel(block=0).sel(partner=partners)
    # Weights before learning, activity and adjoints after it.
    stages = ["before", "before", "after", "after"]
    for ax, side in zip(row, ("left", "right"), strict=True):
        overlaps, nulls = [], []
        for partner, stage in zip(partners, stages, strict=True):
            at = {"partner": partner, "stage": stage, "side": side}
            overlaps.append(found.overlap.sel(at).values)
            nulls.append(float(found.overlap_null.sel(at)))
        shown = np.column_stack([overlaps, nulls])
        ax.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (y, x), value in np.ndenumerate(shown):
            color = "white" if value > 0.55 else "black"
            ax.text(x, y, f"{value:.2f}", ha="center", va="center", color=color)
        ax.axvline(3.5, color="white", linewidth=4)
        vector = "u (writes)" if side == "left" else "v (reads)"
        ax.set_title(f"g = {gain:g}, {vector}")
        ax.set_yticks(range(4), partners if side == "left" else [""] * 4)
        ax.set_xticks(range(5), ["1", "2", "3", "4", "random"])
for ax in axes[1]:
    ax.set_xlabel("direction of the change")
plt.show()
