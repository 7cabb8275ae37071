r"""
A theory that stays with the network
====================================

A linear network that has one number to learn can be solved on paper. The paper expands learning in powers of learning
time; `InfiniteWidth` follows it to the end; `SingleNetwork` foretells the very network that is trained.
"""

import matplotlib.pyplot as plt
import numpy as np

import rankscope as rs

gain, target, rate, epochs = 0.6, 2.0, 0.001, 160
task = rs.tasks.FixedPoint(target=target)
network = rs.RateRNN.initialize(
    task,
    hidden_size=400,
    gain=gain,
    rng=1,
    nonlinearity="identity",
    trained=("recurrent",),
)
this_one = rs.theory.SingleNetwork.of(network, target).descend(rate, epochs)
history = rs.train(
    network, task, epochs, rng=0, optimizer="sgd", learning_rate=rate, batch_size=1
)

# %%
# The theories, over learning time (learning rate times epoch).

times = np.linspace(0, rate * epochs, 200)
exact = rs.theory.InfiniteWidth(gain, target).solve(times)
expansion = rs.theory.ThirdOrder(gain, target).solve(times)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.plot(times, exact.loss, label="infinite width, exact")
left.plot(times, expansion.loss, ":", label="third order (the paper's)")
left.plot(this_one.tau, this_one.loss, color="C2", label="this network, foretold")
left.plot(
    rate * np.arange(epochs)[::5],
    history.losses[::5],
    "k.",
    label="this network, trained",
)
left.set(xlabel=r"learning time $\tau$", ylabel="loss", ylim=(-0.05, 2.1))
left.legend(frameon=False, fontsize=8)
right.plot(times, exact.change_norm)
right.plot(times, expansion.change_norm, ":")
right.plot(this_one.tau, this_one.change_norm, color="C2")
right.plot(rate * history.recorded_epochs, history.singular_values[:, 0], "k.")
right.set(xlabel=r"learning time $\tau$", ylabel=r"$\|\Delta W\|$", ylim=(0, 0.85))
plt.show()
