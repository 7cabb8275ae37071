"""The figure of the anatomy of one network, from Python and from a run."""

import numpy as np
import pytest

import rankscope as rs
from commands import call
from rankscope.figures import anatomy

TASK = rs.tasks.FlipFlop(duration=8.0)


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_overlaps_are_written_and_those_above_the_null_are_bold():
    network = rs.RateRNN.initialize(TASK, 16, 0.0, 0)
    before = network.snapshot()
    history = rs.train(network, TASK, 4, rng=0, kept_epochs=(2, 4))
    found = rs.anatomy(before, network, TASK, history=history)
    figure = anatomy(found)
    first = found.overlap.sel(block="recurrent_weights", stage="before", partner="inputs", side="right", direction=1)
    drawn = figure.axes[1].texts[0]
    assert drawn.get_text() == f"{float(first):.2f}".removeprefix("0")
    assert drawn.get_fontweight() == "bold"
    assert [ax.get_xlabel() for ax in figure.axes[-3:]] == ["epoch", "singular value", "principal components"]
    without = anatomy(rs.anatomy(before, network))
    assert "no activity" in texts(without)


def test_a_change_of_zero_is_said_to_be_zero():
    network = rs.RateRNN.initialize(TASK, 8, 0.9, 0)
    with pytest.warns(UserWarning, match="is zero"):
        figure = anatomy(rs.anatomy(network.snapshot(), network))
    assert "the change of recurrent_weights is zero" in texts(figure)[0]


def test_one_network_of_a_run_is_drawn(tmp_path, capsys, forked_workers):
    jobs = [
        rs.Job(
            task=TASK,
            network={"kind": "gru", "hidden_size": 6, "gain": gain},
            training=rs.TrainingConfig(epochs=3, batch_size=4, kept_epochs=(1, 3)),
            measurements=("anatomy", "anatomy_along"),
        )
        for gain in (0.5, 1.0)
    ]
    rs.run(jobs, tmp_path / "run")
    measured = rs.open_run(tmp_path / "run")
    assert np.isfinite(measured.half_growth_epoch).any()
    with pytest.raises(rs.InputError, match=r"of one network; choose it, as in --select gain=0.5"):
        anatomy(measured)
    arguments = ["figure", "anatomy", "--from", str(tmp_path / "run"), "--out", str(tmp_path / "z.png")]
    arguments += ["--select", "gain=1", "--block", "rnn.weight_hh_l0[z]"]
    assert call(capsys, *arguments)[0] == 0
    assert (tmp_path / "z.png").exists()
