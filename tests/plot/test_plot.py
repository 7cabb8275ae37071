"""Plots on axes, and the HTML that notebooks show."""

import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import rankscope as rs
from rankscope.plot.html import card
from rankscope.sweep import RunResult


@pytest.fixture(scope="module")
def learned():
    task = rs.tasks.FlipFlop(duration=20)
    network = rs.RateRNN.initialize(task, hidden_size=16, gain=0.9, rng=0)
    before = network.snapshot()
    history = rs.train(network, task, epochs=5, rng=0)
    return task, before, network, history


@pytest.fixture
def ax():
    return Figure().add_subplot()


def heights(axes):
    return [np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()]


def drawn(axes, values):
    return any(y.shape == np.shape(values) and np.allclose(y, values) for y in heights(axes))


def test_each_plot_returns_the_axes_with_the_values(learned, ax):
    task, before, network, history = learned
    assert rs.plot.loss(history, ax) is ax
    assert drawn(ax, history.losses)
    change = rs.change(before, network)
    new = Figure().add_subplot()
    assert drawn(rs.plot.singular_values(change, new, most=3), change.singular_values[:3])
    trials = task.sample(4, rng=1)
    curve = rs.truncation_curve(before, network, trials)
    relative = rs.plot.truncation(curve, Figure().add_subplot(), rank=curve.ranks[1])
    assert drawn(relative, curve.scores / curve.scores[0])
    eigenvalues = torch.linalg.eigvals(network.recurrent_weights.detach())
    points = rs.plot.spectrum(network.recurrent_weights, Figure().add_subplot(), radius=0.9)
    assert np.allclose(np.sort(points.get_lines()[1].get_xdata()), np.sort(eigenvalues.real), atol=1e-5)
    with torch.no_grad():
        outputs = network(trials.inputs)
    panel = rs.plot.trial(trials, [outputs], Figure().add_subplot(), index=2, dt=task.dt)
    strips = panel.child_axes
    assert len(strips) == 2
    for channel, strip in enumerate(strips):
        assert drawn(strip, outputs[2, :, channel])


def test_without_axes_a_new_figure_is_made(learned):
    with mpl.rc_context({"backend": "agg"}):
        import matplotlib.pyplot as plt

        for one in (rs.plot.loss(learned[3]), rs.plot.trial(learned[0].sample(2, rng=0))):
            plt.close(one.figure)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ax: rs.plot.loss(np.ones((2, 2)), ax), "history must hold one number after the other"),
        (lambda ax: rs.plot.spectrum(np.ones((2, 3)), ax), "matrix must be square"),
        (lambda ax: rs.plot.trial(rs.tasks.FlipFlop().sample(2, rng=0), ax=ax, index=2), "index must be .*<= 1"),
        (lambda ax: rs.plot.trial(rs.tasks.FlipFlop().sample(2, rng=0), [np.ones((2, 3, 2))], ax), "outputs must have"),
    ],
)
def test_impossible_values_are_refused(ax, call, message):
    with pytest.raises(rs.InputError, match=message):
        call(ax)


def test_displays_are_html_with_a_plot_and_change_nothing_global(learned, tmp_path):
    task, before, network, history = learned
    job = rs.Job(task=task, network={"hidden_size": 8}, training={"epochs": 2}, measurements=["norms"])
    settings, curve = dict(mpl.rcParams), rs.truncation_curve(before, network, task.sample(4, rng=1))
    for shown in (history, rs.change(before, network), curve, job, job.run()):
        html = shown._repr_html_()
        assert html.count("<svg") == 1
        assert len(html) < 150_000
        ElementTree.fromstring(re.sub(r"<svg.*</svg>", "", html, flags=re.DOTALL))
        ElementTree.fromstring(re.search(r"<svg.*</svg>", html, flags=re.DOTALL)[0])
    assert dict(mpl.rcParams) == settings
    result = RunResult(("a",), (), {"b": "<script>"}, (), (), 0, {})
    assert "&lt;script&gt;" in result._repr_html_()
    assert "&lt;b&gt;" in card("<b>", {})
