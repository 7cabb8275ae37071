r"""
Fixed points in the plane of the change
=======================================

A flip-flop with two channels has to remember two bits. The learned change has two leading directions, and in their
plane one sees how: four stable fixed points (filled), one for each pair of bits, four saddles between them (open), and
an unstable point in the middle. A pulse moves the state across a saddle (trials in orange). This network has random
connectivity (g = 0.9): the other 62 coordinates relax while those of the plane are held.
"""

import matplotlib.pyplot as plt

import rankscope as rs

task = rs.tasks.FlipFlop()
network = rs.RateRNN.initialize(task, hidden_size=64, gain=0.9, rng=0)
before = network.snapshot()
rs.train(network, task, epochs=300, rng=0)
flow = rs.dynamics.flow(before, network, task, rng=0)
print(
    int(flow.stable_fixed_points_found), "stable of", int(flow.fixed_points_found)
)

figure, ax = plt.subplots(figsize=(4.5, 4.3), layout="constrained")
rs.plot.flow(flow, ax)
ax.set_title("two bits: filled points are stable")
plt.show()
