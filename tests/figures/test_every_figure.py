"""Properties of every figure: legible text, no global settings changed, incomplete runs, saving."""

import itertools
import warnings

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from made_up_linear_run import dataset_for as linear_dataset_for
from made_up_linear_run import diverge
from made_up_needed_run import make_needed_run
from made_up_neurogym_run import make_neurogym_run
from made_up_population_run import make_population_run
from made_up_run import TASKS, fail, forget, make_run
from made_up_sentiment_run import fail_one, make_sentiment_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import rankscope as rs
from rankscope.experiments import EXPERIMENTS
from rankscope.figures import FIGURES, save_figure
from rankscope.plot.style import series, styled

NONLINEAR = ("tasks", "gain", "rounding", "spectra", "alignment", "regimes", "size")
LINEAR = ("linear", "linear-gain", "linear-log", "divergence", "cosine")
ALL = (*NONLINEAR, *LINEAR, "sentiment", "populations", "needed", "neurogym")


@pytest.fixture(autouse=True)
def few_points_of_theory(monkeypatch):
    monkeypatch.setattr("rankscope.experiments.linear_theory.GAIN_POINTS", 3)


def dataset_for(name):
    if name in LINEAR:
        return linear_dataset_for(name)
    if name == "rounding":
        return xr.concat([make_run((16,))] * 4, xr.Variable("repetition", range(4)))
    if name == "regimes":
        run = xr.concat([make_run((16,))] * 3, xr.Variable("output_norm", [0.1, 0.3, 1.0]))
        meters = ("kernel_alignment", "output_alignment", "output_alignment_null")
        return run.assign(dict.fromkeys(meters, run["change_norm"] / 9))
    if name in NONLINEAR:
        return make_run((8, 16, 32) if name == "size" else (16,))
    if name in ("populations", "needed"):
        return make_population_run() if name == "populations" else make_needed_run()
    return make_sentiment_run() if name == "sentiment" else make_neurogym_run()


def partly_failed(name):
    """A run in which some networks did not converge, or diverged."""
    run = dataset_for(name)
    if name in NONLINEAR:
        return fail(run, task=["mante", "romo"], gain=0.0)
    if name == "sentiment":
        return fail_one(run)
    if name in ("cosine", "neurogym", "populations", "needed"):
        return run
    return diverge(run, 20, gain=0.8, target=2.0, sample=[0, 1])


def draw(figure, layout=True):
    """Draw into memory. The layout and the pixels take most of the time."""
    canvas = FigureCanvasAgg(figure)
    if not layout:
        figure.set_layout_engine("none")
        figure.set_dpi(20)
    with styled(), warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.draw()
    return canvas.get_renderer()


def drawn_texts(figure):
    """Texts with their boxes; without tick labels beyond the limits and those of hidden axes."""
    renderer = draw(figure)
    hidden = set()
    for ax in figure.findobj(mpl.axes.Axes):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in itertools.chain(axis.majorTicks, axis.minorTicks):
                if not ax.axison or not low <= tick.get_loc() <= high:
                    hidden |= {id(tick.label1), id(tick.label2)}
            if not ax.axison:
                hidden.add(id(axis.label))
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text())
    shown = {id(text): text for text in texts if text.get_in_layout() and id(text) not in hidden}
    return [(text, text.get_window_extent(renderer)) for text in shown.values()]


def test_every_experiment_has_a_figure():
    assert set(EXPERIMENTS) <= set(FIGURES)


@pytest.mark.parametrize("name", ALL)
def test_text_is_at_least_7_points_and_does_not_overlap(name):
    figure = FIGURES[name](partly_failed(name))
    with styled():
        texts = drawn_texts(figure)
    assert len(texts) > 20
    assert min(text.get_fontsize() for text, _ in texts) >= 7
    width, height = figure.bbox.size
    for text, box in texts:
        assert min(box.x0, box.y0) >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), (one, other)


@pytest.mark.parametrize("name", ALL)
def test_settings_and_dataset_are_not_changed(name):
    before, dataset = dict(mpl.rcParams), dataset_for(name)
    FIGURES[name](dataset)
    assert dict(mpl.rcParams) == before
    assert dataset.identical(dataset_for(name))


CHANGES = {
    "scalar gain": lambda run: run.isel(gain=1),
    "no samples": lambda run: run.isel(sample=0).drop_vars("sample", errors="ignore"),
}
NONLINEAR_CHANGES = {
    "one task": lambda run: run.isel(task=1),
    "scalar size": lambda run: run.isel(hidden_size=0),
    "none converged": lambda run: fail(run, task=list(TASKS)),
    "a task is missing": lambda run: forget(run, task="mante"),
    "all are missing": lambda run: forget(run, task=list(TASKS)),
    "a gain is missing": lambda run: forget(run, gain=0.9),
}
LINEAR_CHANGES = {
    "none converged": lambda run: run.assign(convergence_epoch=run["convergence_epoch"] * np.nan),
    "a gain is missing": lambda run: forget(run, gain=run["gain"].values[1]),
    "samples are missing": lambda run: forget(run, gain=run["gain"].values[0], sample=[0, 1]),
    "a condition is missing": lambda run: forget(run, gain=run["gain"].values[1:], target=2.0),
    "dimensions of size 1": lambda run: run.expand_dims(["hidden_size", "task"]),
}
NEUROGYM_CHANGES = {
    "no suitable task": lambda run: run.isel(task=[2]),
    "scalar task": lambda run: run.isel(task=1),
    "none learned": lambda run: run.assign(score=run["score"] * 0),
}
EMPTY = (
    CHANGES["no samples"],
    NONLINEAR_CHANGES["none converged"],
    NONLINEAR_CHANGES["all are missing"],
    LINEAR_CHANGES["none converged"],
    NEUROGYM_CHANGES["none learned"],
)
INCOMPLETE = [
    pytest.param(name, change, id=f"{name}: {text}")
    for names, changes in ((NONLINEAR, NONLINEAR_CHANGES), (LINEAR[:-1], LINEAR_CHANGES), (ALL[-1:], NEUROGYM_CHANGES))
    for name in names
    for text, change in (CHANGES | changes).items()
]


@pytest.mark.parametrize(("name", "change"), INCOMPLETE)
def test_incomplete_runs_are_drawn(name, change):
    run = dataset_for(name)
    if run.sizes.get("target", 0) > 2:
        run = run.sel(target=[1.0, 2.0])
    figure = FIGURES[name](change(run))
    if change in EMPTY:  # axes without data or of one value are where drawing can fail
        draw(figure, layout=False)


@pytest.mark.parametrize("name", ["gain", "divergence"])
def test_lazy_runs_are_drawn(name):
    draw(FIGURES[name](dataset_for(name).chunk()), layout=False)


@pytest.mark.parametrize("name", NONLINEAR)
def test_a_diverged_network_is_drawn(name):
    where = {"task": "mante", "gain": 0.9}
    run = fail(dataset_for(name), **where)
    run["status"].loc[where] = "diverged"
    for variable in ("loss", "truncation_loss", "singular_value", "eigenvalue_real", "eigenvalue_imag"):
        run[variable].loc[where] = np.where(np.arange(run[variable].shape[-1]) % 2, np.inf, np.nan)
    draw(FIGURES[name](run), layout=False)


def test_the_first_49_curves_differ_in_color_or_marker():
    assert len({(series(i)["color"], series(i)["marker"]) for i in range(49)}) == 49


def test_a_figure_is_saved_in_several_formats(tmp_path):
    figure = FIGURES["gain"](make_run())
    paths = save_figure(figure, tmp_path / "figure.png", ("png", "pdf"))
    assert [path.name for path in paths] == ["figure.png", "figure.pdf"]
    assert [path.read_bytes()[:4] for path in paths] == [b"\x89PNG", b"%PDF"]
    with pytest.raises(rs.InputError, match="format must be one of"):
        save_figure(figure, tmp_path / "figure.bmp")
