"""The sentiment figure, for any kind of gated network."""

import numpy as np
import pytest
import xarray as xr
from made_up_sentiment_run import fail_one, make_sentiment_run

from rankscope.errors import InputError
from rankscope.figures.sentiment import sentiment, weight_label


def curves(ax):
    return [line.get_ydata() for line in ax.lines if len(line.get_xdata()) > 2]


def test_two_main_panels_and_nine_further_ones():
    run = make_sentiment_run()
    axes = sentiment(run).axes
    assert [ax.get_title() for ax in axes] == [
        "layer 2, recurrent",
        "all matrices truncated",
        "training",
        "training",
        "rank within 1 % of accuracy",
        "layer 1, recurrent",
        "layer 2, input",
        "all matrices truncated",
        "layer 2, recurrent, by gate",
        "layer 1, recurrent, by gate",
        "layer 2, input, by gate",
    ]
    first = run.isel(sample=0)
    for ax, weight in ((axes[0], "weight_hh_l1"), (axes[5], "weight_hh_l0"), (axes[6], "weight_ih_l1")):
        for drawn, matrix in zip(curves(ax), ("initial", "trained", "change"), strict=True):
            np.testing.assert_array_equal(drawn, first["singular_value"].sel(weight=weight, matrix=matrix))
    for ax, name in ((axes[1], "truncation_accuracy"), (axes[7], "truncation_loss")):
        expected = [run[name].sel(truncated=kind)[sample] for kind in ("change", "trained") for sample in (1, 0)]
        np.testing.assert_array_equal(curves(ax), expected)
    losses = [run[name][sample] for name in ("loss", "validation_loss") for sample in (1, 0)]
    np.testing.assert_array_equal(curves(axes[2]), losses)
    np.testing.assert_array_equal(curves(axes[3]), run["validation_accuracy"][::-1])
    ranks = [[*run["functional_rank_along"].sel(truncated="change")[sample], 7] for sample in (1, 0)]
    np.testing.assert_array_equal(curves(axes[4])[:2], ranks)
    by_gate = first["gate_singular_value"].sel(weight="weight_hh_l1", matrix=["trained", "initial", "change"])
    np.testing.assert_array_equal(curves(axes[8]), by_gate.transpose("gate", "matrix", ...).values.reshape(12, -1))


def test_one_layer_of_a_gru_fills_fewer_panels():
    axes = sentiment(make_sentiment_run(1, gates=["reset", "update", "new"], weights=["weight_hh_l0"])).axes
    empty = [index for index, ax in enumerate(axes) if "no measurements" in [text.get_text() for text in ax.texts]]
    assert empty == [5, 6, 9, 10]


def test_without_copies_along_training_their_panel_is_empty():
    run = make_sentiment_run().drop_dims("kept_epoch")
    assert [text.get_text() for text in sentiment(run).axes[4].texts].count("no measurements") == 1


@pytest.mark.parametrize("change", [lambda run: run.isel(sample=0), fail_one], ids=["one network", "one diverged"])
def test_incomplete_runs_are_drawn(change):
    run = change(make_sentiment_run())
    good = run if "sample" not in run.dims else run.isel(sample=1)
    expected = good["singular_value"].sel(weight="weight_hh_l1", matrix="initial")
    np.testing.assert_array_equal(curves(sentiment(run).axes[0])[0], expected)


def test_all_diverged():
    axes = sentiment(fail_one(make_sentiment_run(1))).axes
    assert all("no measurements" in [text.get_text() for text in ax.texts] for ax in axes)


def test_other_runs_are_refused():
    with pytest.raises(InputError, match="must be of a run of 'sentiment', got one without singular_value"):
        sentiment(xr.Dataset({"loss": ("epoch", [1.0])}))
    with pytest.raises(InputError, match="several hidden_size"):
        sentiment(make_sentiment_run().drop_vars("hidden_size").expand_dims("hidden_size"))


def test_weights_by_their_name():
    assert weight_label("weight_hh_l0") == "layer 1, recurrent"
    assert weight_label("weight_ih_l11") == "layer 12, input"
