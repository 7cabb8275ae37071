"""The figure of NeuroGym's environments: what is drawn where, and runs with holes."""

import numpy as np
import pytest
import xarray as xr
from test_every_figure import draw, drawn_texts

from rankscope.figures import neurogym
from rankscope.figures.style import styled

NAMES = ["GoNogo", "perceptualdecisionmaking.roitman02", "PerceptualDecisionMakingDelayResponse", "Box"] + [
    f"Task{index}" for index in range(22)
]


def make_neurogym_run(samples=2):
    """The first is learned by all, the second by none, the third is unsuitable, the fourth has a score below 0."""
    rng = np.random.default_rng(0)
    dims, shape = ("task", "gain", "sample"), (len(NAMES), 3, samples)
    score = rng.uniform(0.3, 0.95, shape)
    score[0], score[1], score[2], score[3] = 1.0, 0.5, np.nan, -2.0
    status = np.full(shape, "finished", dtype=object)
    status[2] = "unsuitable"
    chance = np.full(shape, 0.5)
    chance[2], chance[3] = np.nan, 0.0
    return xr.Dataset(
        {
            "score": (dims, score),
            "chance": (dims, chance),
            "status": (dims, status),
            "fall_epoch": (dims, rng.uniform(80, 2500, shape)),
            "score_rank": (dims, rng.integers(1, 12, shape).astype(float)),
            "change_norm": (dims, rng.uniform(1, 4, shape)),
        },
        {"task": NAMES, "gain": [0.0, 0.9, 1.5], "sample": range(samples), "hidden_size": 256},
    )


def drawn_in(ax, filled):
    lines = [line for line in ax.get_lines() if line.get_linestyle() == "None"]
    wanted = [line for line in lines if (line.get_markerfacecolor() != "white") == filled]
    return np.concatenate([np.asarray(line.get_xdata(), dtype=float) for line in wanted])


def test_every_network_is_drawn_and_the_learned_are_filled():
    run = make_neurogym_run()
    panels = neurogym(run).axes
    score = np.where(run["score"] < 0, -0.03, run["score"])
    learned = (run["score"] > (1 + run["chance"]) / 2).values
    known = np.isfinite(score)
    np.testing.assert_allclose(np.sort(drawn_in(panels[0], True)), np.sort(score[learned]))
    np.testing.assert_allclose(np.sort(drawn_in(panels[0], False)), np.sort(score[known & ~learned]))
    for ax, name in zip(panels[1:], ("fall_epoch", "score_rank", "change_norm"), strict=True):
        np.testing.assert_allclose(np.sort(drawn_in(ax, True)), np.sort(run[name].values[learned]))
        assert drawn_in(ax, False).size == 0
    rows = [text.get_text() for text in panels[0].get_yticklabels()]
    assert rows[-1] == "GoNogo"
    assert rows[0] == "PerceptualDecisionMakingDelayResponse"
    assert "not a task" in [text.get_text() for text in panels[0].texts]


def test_every_text_is_large_enough_and_overlaps_no_other():
    figure = neurogym(make_neurogym_run())
    with styled():
        texts = drawn_texts(figure, draw(figure))
    assert min(text.get_fontsize() for text, _ in texts) >= 7
    width, height = figure.bbox.size
    boxes = [box for _, box in texts]
    for box in boxes:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for index, box in enumerate(boxes):
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[index + 1 :]), texts[index]


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.isel(gain=0, sample=0),
        lambda run: run.isel(task=[2]),
        lambda run: run.isel(task=1),
        lambda run: run.assign(score=run["score"] * 0),
    ],
    ids=["one gain", "only one that is no task", "a scalar task", "none is learned"],
)
def test_incomplete_runs_are_drawn(change):
    draw(neurogym(change(make_neurogym_run())), layout=False)


def test_the_dataset_is_left_as_it_was():
    run = make_neurogym_run()
    neurogym(run)
    assert run.identical(make_neurogym_run())
