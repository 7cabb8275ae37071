"""What holds for every figure of an experiment."""

import itertools
import sys
import warnings

import matplotlib as mpl
import numpy as np
import pytest
from made_up_linear_run import dataset_for as linear_dataset_for
from made_up_linear_run import diverge
from made_up_run import TASKS, fail, forget, make_run
from made_up_sentiment_run import fail_one, make_sentiment_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from rankscope.experiments import EXPERIMENTS
from rankscope.figures import FIGURES
from rankscope.figures.style import look, styled

NONLINEAR = ("tasks", "gain", "spectra", "size")
LINEAR = ("linear", "linear-gain", "linear-log", "divergence", "cosine")

TEXT = ("sentiment",)


def dataset_for(name):
    if name in TEXT:
        return make_sentiment_run()
    return linear_dataset_for(name) if name in LINEAR else make_run((8, 16, 32) if name == "size" else (16,))


def partly_failed(name):
    """A run in which some networks did not converge, or diverged."""
    run = dataset_for(name)
    if name in NONLINEAR:
        return fail(run, task=["mante", "romo"], gain=0.0)
    if name in TEXT:
        return fail_one(run)
    return run if name == "cosine" else diverge(run, 20, gain=0.8, target=2.0, sample=[0, 1])


def draw(figure, layout=True):
    """Draw into memory; finding the layout takes most of the time."""
    canvas = FigureCanvasAgg(figure)
    if not layout:
        figure.set_layout_engine("none")
    with styled(), warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.draw()
    return canvas.get_renderer()


def visible_texts(figure):
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text())
    shown = {id(text): text for text in texts if text.get_in_layout()}
    return list(shown.values())


def drawn_texts(figure, renderer):
    """Texts and where they are; not the tick labels beyond the limits, nor those of axes that are off."""
    hidden = set()
    for ax in figure.findobj(mpl.axes.Axes):
        for axis in (ax.xaxis, ax.yaxis):
            kept = {id(tick) for tick in axis._update_ticks()} if ax.axison else set()
            for tick in itertools.chain(axis.majorTicks, axis.minorTicks):
                hidden |= {id(t) for t in (tick.label1, tick.label2)} if id(tick) not in kept else set()
            if not ax.axison:
                hidden.add(id(axis.label))
    texts = [text for text in visible_texts(figure) if id(text) not in hidden]
    return [(text, text.get_window_extent(renderer)) for text in texts]


def test_the_registry_names_the_experiments():
    assert set(EXPERIMENTS) <= set(FIGURES)


@pytest.mark.parametrize("name", NONLINEAR + LINEAR + TEXT)
def test_every_text_is_large_enough_and_overlaps_no_other(name):
    figure = FIGURES[name](partly_failed(name))
    with styled():
        texts = drawn_texts(figure, draw(figure))
    assert len(texts) > 20
    assert min(text.get_fontsize() for text, _ in texts) >= 7
    width, height = figure.bbox.size
    for text, box in texts:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), (one, other)


@pytest.mark.parametrize("name", NONLINEAR + LINEAR + TEXT)
def test_nothing_global_is_changed_and_the_dataset_is_left_as_it_was(name, monkeypatch):
    # By this way, as the package's attribute of that name is the function.
    monkeypatch.setattr(sys.modules["rankscope.figures.linear_gain"], "CURVE_POINTS", 3)
    before, dataset = dict(mpl.rcParams), dataset_for(name)
    FIGURES[name](dataset)
    assert dict(mpl.rcParams) == before
    assert dataset.identical(dataset_for(name))


@pytest.mark.parametrize("name", NONLINEAR)
@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.isel(gain=[1]),
        lambda run: run.isel(gain=1),
        lambda run: run.isel(task=1),
        lambda run: run.isel(sample=0).drop_vars("sample", errors="ignore"),
        lambda run: run.isel(hidden_size=0),
        lambda run: fail(run, task=list(TASKS)),
        lambda run: forget(run, task="mante"),
        lambda run: forget(run, task=list(TASKS)),
        lambda run: forget(run, gain=0.9),
    ],
    ids=[
        "one gain",
        "a scalar gain",
        "one task",
        "no samples",
        "a scalar size",
        "none converged",
        "a task is missing",
        "all is missing",
        "a gain is missing",
    ],
)
def test_incomplete_runs_are_drawn(name, change):
    draw(FIGURES[name](change(dataset_for(name))), layout=name == "gain")


@pytest.mark.parametrize("name", NONLINEAR)
def test_a_diverged_network_is_drawn(name):
    run = fail(dataset_for(name), task="mante", gain=0.9)
    where = {"task": "mante", "gain": 0.9}
    run["status"].loc[where] = "diverged"
    for variable in ("loss", "truncation_loss", "singular_value", "eigenvalue_real", "eigenvalue_imag"):
        run[variable].loc[where] = np.where(np.arange(run[variable].shape[-1]) % 2, np.inf, np.nan)
    draw(FIGURES[name](run), layout=False)


def test_no_two_curves_look_alike():
    assert len({(look(i)["color"], look(i)["marker"]) for i in range(49)}) == 49
