"""The paper's claims, on trainings small enough to run every time, and one at full size.

Measured at N = 64, 200 epochs, four seeds a gain. g = 0: loss / 50 to 73, first six directions 99 % of the variance,
functional rank 2, loss after shuffle 1.4 to 1.8 %. g = 0.9: loss / 128 to 279, first six directions 94 to 96 %
(those of W0: 30 %), functional rank 3 or 4, loss after shuffle 0.88 to 1.03 of the initial one.
"""

import json

import numpy as np
import pytest

import rankscope as rs
from rankscope import change, convergence_epoch, functional_rank, truncation_curve
from rankscope.lowrank import shuffled_loss

TASK = rs.tasks.FlipFlop()


def trained(gain, seed=0, size=64, epochs=200, **options):
    network = rs.RateRNN.initialize(TASK, hidden_size=size, gain=gain, rng=seed)
    before = network.snapshot()
    return before, network, rs.train(network, TASK, epochs, seed + 10, recorded_epochs=2, **options)


@pytest.mark.parametrize("gain", [0.0, 0.9])
def test_a_small_network_learns_in_a_few_directions(gain):
    before, after, history = trained(gain)
    assert history.losses[-5:].mean() < history.losses[0] / 25
    dW = change(before, after)
    assert dW.variance_explained[5] > 0.9
    assert dW.variance_explained[0] < 0.9  # but not in one
    W0 = change(np.zeros((64, 64)), before)
    assert W0.variance_explained[5] < 0.4 or gain == 0
    trials = TASK.sample(256, rng=99)
    assert functional_rank(truncation_curve(before, after, trials)) in ({2} if gain == 0 else {3, 4, 5})
    shuffled = np.mean([shuffled_loss(before, after, trials, rng=seed) for seed in range(5)]) / history.losses[0]
    if gain == 0:
        assert shuffled < 0.03
    else:
        assert 0.8 < shuffled < 1.2


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.0, 0.9])
def test_full_size_against_the_reference(gain, reference):
    runs = json.loads(reference("nonlinear_n256.json").read_text())
    runs = [run for run in runs if run["task"] == "flipflop" and run["gain"] == gain]
    assert len(runs) == 4
    theirs = np.array([run["convergence_epoch"] for run in runs])
    histories = [trained(gain, seed, size=256, epochs=300, stop_below=0.05)[2] for seed in range(4)]
    ours = np.array([convergence_epoch(history.losses) for history in histories])
    error = np.sqrt(ours.var(ddof=1) / 4 + theirs.var(ddof=1) / 4)
    assert abs(ours.mean() - theirs.mean()) < 2 * error

    before, after, history = trained(gain, size=256, epochs=1000)
    trials = TASK.sample(512, rng=99)
    rank = functional_rank(truncation_curve(before, after, trials))
    ranks = [run["functional_rank"] for run in runs]
    assert min(ranks) - 1 <= rank <= max(ranks) + 1
    if gain == 0:
        assert rank == 2
    norms = np.array([run["change_norm"] for run in runs])
    assert abs(change(before, after).norm - norms.mean()) < 0.1 * norms.mean()
    relative = shuffled_loss(before, after, trials, rng=0) / history.losses[0]
    assert relative == pytest.approx(np.mean([run["shuffled_loss_relative"] for run in runs]), abs=0.08)
