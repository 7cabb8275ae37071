r"""
Comparing two checkpoints
=========================

The same question for any PyTorch model: here an LSTM, of which only the weights before and after are known.
"""

import matplotlib.pyplot as plt
import torch

import rankscope as rs

# %%
# Something to learn: a sequence of bits, and whether there were more ones than zeros.

torch.manual_seed(0)
lstm, readout = torch.nn.LSTM(1, 48, batch_first=True), torch.nn.Linear(48, 1)
model = torch.nn.ModuleDict({"lstm": lstm, "readout": readout})
before = {name: value.clone() for name, value in model.state_dict().items()}
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(150):
    bits = torch.randint(2, (64, 15, 1)).float()
    states, _ = lstm(2 * bits - 1)
    more = (bits.sum((1, 2)) > 7.5).float()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        readout(states[:, -1])[:, 0], more
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
after = model.state_dict()

# %%
# A row for each matrix and gate.

table = rs.compare(before, after)
print(
    table[["relative_norm", "stable_rank", "rank_90", "standing_out"]]
    .round(2)
    .to_string()
)

# %%
# And how many directions the answers need, of all matrices at once.

test = torch.randint(2, (512, 15, 1)).float()
truth = test.sum((1, 2)) > 7.5


def accuracy(model):
    states, _ = model["lstm"](2 * test - 1)
    return ((model["readout"](states[:, -1])[:, 0] > 0) == truth).float().mean()


curve = rs.truncation_curve(
    rs.load_weights(model, before),
    rs.load_weights(model, after),
    score=accuracy,
    higher_is_better=True,
    matrices=["lstm.weight_*"],
    ranks=range(9),
)
rank = rs.functional_rank(curve, "recovered")
figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
ax.plot(curve.ranks, curve.scores, "o-")
ax.axvline(rank, color="C1", linestyle="--", label=f"functional rank {rank}")
ax.set(xlabel=r"rank that every $\Delta W$ is truncated to", ylabel="accuracy")
ax.legend(frameon=False)
plt.show()
