r"""
Random connectivity speeds learning up
======================================

The stronger the random connectivity a network begins with, the sooner it has learned and the less has to change, until
chaos sets in. This is a sweep: each network is a file, and interrupted it goes on where it was.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import numpy as np

import rankscope as rs
from rankscope.experiments import Cell, run_cells

cells = [
    Cell(
        rs.tasks.FlipFlop(),
        gain=gain,
        hidden_size=64,
        epochs=300,
        sample=sample,
        seed=10 * sample,
    )
    for gain in (0.0, 0.5, 1.0, 1.5, 2.0)
    for sample in range(3)
]
folder = tempfile.mkdtemp()

# %%
# In a script below `if __name__ == "__main__":`, and on the command line, `run_cells(cells, folder)` starts a process for
# every core. Any executor serves in its place: here a thread, on a cluster that of Dask.

with ThreadPoolExecutor(1) as executor:
    run_cells(cells, folder, executor=executor)

# %%
# A run opens as one labelled dataset. What a network did not reach is NaN, never 0.

run = rs.open_run(folder)
print(run.sizes)

figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, run.sizes["gain"]))
for gain, color in zip(run.gain.values, colors, strict=True):
    axes[0].semilogy(
        run.loss.sel(gain=gain).mean("sample"), color=color, label=f"g = {gain:g}"
    )
axes[0].set(xlabel="epoch", ylabel="loss, mean of 3 networks")
axes[0].legend(frameon=False, fontsize=8)
for ax, name, label in (
    (axes[1], "convergence_epoch", "epochs to converge"),
    (axes[2], "change_norm", r"$\|\Delta W\|$"),
):
    ax.errorbar(
        run.gain, run[name].mean("sample"), run[name].std("sample"), fmt="o-", capsize=3
    )
    ax.set(xlabel="gain g", ylabel=label, ylim=(0, None))
plt.show()
