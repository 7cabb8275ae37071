r"""
Random connectivity accelerates learning
========================================

The stronger the initial random connectivity, the faster a network learns and the less has to change, until chaos sets
in. The networks are jobs of a run: each is stored in a folder, and an interrupted run continues.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import numpy as np

import rankscope as rs

base = rs.Job(task="flipflop", network={"hidden_size": 64}, training={"epochs": 300})
jobs = rs.Sweep(base=base, grid={"gain": [0.0, 0.5, 1.0, 1.5, 2.0]}, samples=3).jobs()
folder = tempfile.mkdtemp()

# %%
# `rs.run(jobs, folder)` starts one process a core. In a script, call it below `if __name__ == "__main__":`. Any executor
# can be used instead: a thread here, Dask's on a cluster.

with ThreadPoolExecutor(1) as executor:
    rs.run(jobs, folder, executor=executor)

# %%
# A run opens as one labelled dataset. Missing quantities, such as the convergence epoch of a network that did not
# converge, are NaN.

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
