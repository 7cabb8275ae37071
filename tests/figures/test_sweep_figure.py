"""The figure of any sweep: every label can be axis, color or column, and what cannot be drawn is a sentence."""

import itertools

import numpy as np
import pytest
import xarray as xr
from made_up_run import line_with
from test_every_figure import draw, drawn_texts

import rankscope as rs
from rankscope.figures import sweep
from rankscope.plot.style import styled

LABELS = {"gain": [0.0, 0.9, 1.5], "learning_rate": [1e-4, 1e-3, 1e-2], "optimizer": ["adam", "sgd"]}


def made_up(labels=LABELS, samples=3, converged=True):
    dims = (*labels, "sample")
    shape = (*map(len, labels.values()), samples)
    rng = np.random.default_rng(0)
    variables = {
        "functional_rank": (dims, rng.integers(1, 6, shape).astype(float)),
        "change_norm": (dims, rng.uniform(1, 2, shape)),
        "convergence_epoch": (dims, rng.uniform(10, 90, shape) if converged else np.full(shape, np.nan)),
        "status": (dims, np.full(shape, "finished", dtype=object)),
        "loss": ((*dims, "epoch"), rng.random((*shape, 4))),
    }
    scalars = {"task": "romo", "seed": 3}
    return xr.Dataset(variables, labels | {"sample": range(samples)} | scalars)


@pytest.mark.parametrize("order", list(itertools.permutations(LABELS)))
def test_any_label_is_axis_color_or_column(order):
    run = made_up()
    x, color, panels = order
    figure = sweep(run, x, color, panels, show=["functional_rank", "change_norm"])
    axes = figure.axes
    assert len(axes) == 2 * len(LABELS[panels])
    mean = run["functional_rank"].mean("sample")
    for value, ax in zip(LABELS[panels], axes, strict=False):
        for shade in LABELS[color]:
            assert line_with(ax, mean.sel({panels: value, color: shade}))
    with styled():
        texts = drawn_texts(figure)
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), (one, other)


def test_defaults_and_runs_with_gaps():
    run = made_up()
    run["convergence_epoch"].loc[{"gain": 0.0, "learning_rate": 1e-3}] = np.nan
    run["status"].loc[{"gain": 1.5, "optimizer": "sgd"}] = ""
    run["change_norm"][...] = np.inf
    draw(sweep(run), layout=False)
    for labels in ({}, {"gain": [0.9]}, {"optimizer": ["adam", "sgd"]}, {"batch": list(range(1, 40))}):
        draw(sweep(made_up(labels)), layout=False)
    # Without convergence, all samples count.
    short = made_up({"gain": [0.0, 1.0]}, converged=False)
    assert line_with(sweep(short).axes[0], short["functional_rank"].mean("sample"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "gian"}, "x must be one of .*did you mean 'gain'"),
        ({"x": "gain", "color": "gain"}, "must be different labels"),
        ({"show": ["rank"]}, "show must be one of .*'functional_rank'"),
        ({"show": []}, "show must name a scalar"),
    ],
)
def test_impossible_choices_are_refused(options, message):
    with pytest.raises(rs.InputError, match=message):
        sweep(made_up(), **options)


def test_too_many_labels_or_values_are_refused():
    with pytest.raises(rs.InputError, match=r"at most three labels besides sample, .*--select \w+=VALUE"):
        sweep(made_up(LABELS | {"size": [1, 2]}))
    with pytest.raises(rs.InputError, match="at most 12 colors, got 20 values of size"):
        sweep(made_up({"gain": [0.0, 1.0], "size": list(range(20))}), x="gain")
