"""Figures `gain` and `size`: means and standard deviations are over the converged samples only."""

import numpy as np
import pytest
from made_up_run import GAINS, TASKS, bars, fail, forget, line_with, make_run

import rankscope as rs
from rankscope.cli.results_table import results_table
from rankscope.experiments import size_limit
from rankscope.experiments.averages import over_converged
from rankscope.figures import gain, size

GAIN_PANELS = ("convergence_epoch", "change_norm", "shuffled_loss", "functional_rank")
SIZE_PANELS = ("convergence_epoch", "change_norm", "trained_norm", "functional_rank")


def heights(axes):
    return np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()])


def marks_above(axes):
    """The texts above the axes that say that no sample is left."""
    return sorted(text.get_text() for text in axes.texts if text.get_text().startswith("0/"))


def test_gain_draws_means_and_deviations():
    run = make_run()
    axes = gain(run).get_axes()
    assert len(axes) == 4
    for name, ax in zip(GAIN_PANELS, axes, strict=True):
        values = run[name].isel(hidden_size=0)
        for task in TASKS:
            mean, std = values.sel(task=task).mean("sample").values, values.sel(task=task).std("sample", ddof=1).values
            assert line_with(ax, mean)
            drawn = bars(ax)
            for x, middle, spread in zip(GAINS, mean, std, strict=True):
                assert np.isclose(drawn, [x, middle - spread, middle + spread]).all(axis=1).any()
        assert ax.get_ylabel()
        assert "$g$" in ax.get_xlabel()


def test_samples_that_did_not_converge_stay_out():
    run = fail(make_run(), task="mante", gain=0.9, sample=[0, 2])
    values = run["change_norm"].sel(task="mante", gain=0.9).isel(hidden_size=0, sample=[1, 3]).values
    averages = over_converged(run.isel(hidden_size=0), "change_norm").sel(task="mante", gain=0.9)
    assert float(averages["mean"]) == pytest.approx(values.mean())
    assert float(averages["std"]) == pytest.approx(values.std(ddof=1))
    assert (int(averages["count"]), int(averages["total"])) == (2, 4)


def test_the_table_of_a_run_has_the_means_of_the_figure():
    run = fail(make_run().isel(hidden_size=0), task="mante", gain=0.9, sample=[0, 2])
    run = fail(run, task="romo", gain=0.0)
    headings, rows = results_table(run)
    norm, converged = headings.index("|dW| (mean ± std)"), headings.index("converged")
    averages = over_converged(run, "change_norm")
    for row in rows:
        one = averages.sel(task=row[0], gain=float(row[1]))
        counts = one["count"].item(), one["total"].item()
        assert (int(row[converged]), int(row[converged - 1])) == counts
        assert row[norm] == (f"{one['mean']:.3g} ± {one['std']:.2g}" if counts[0] else "-")
    assert "standard deviations over the samples that converged" in gain(run).get_supxlabel()
    never = run.assign(convergence_epoch=np.nan * run["convergence_epoch"])
    first = run["change_norm"][0, 0]
    assert results_table(never)[1][0][norm] == f"{first.mean():.3g} ± {first.std(ddof=1):.2g}"


@pytest.mark.parametrize("panel", range(4))
def test_where_no_sample_is_left_nothing_is_drawn_but_a_mark(panel):
    run = fail(make_run(), task="romo", gain=[0.0, 1.8])
    run = forget(run, task="flipflop", gain=1.8)
    ax = gain(run).get_axes()[panel]
    averages = over_converged(run.isel(hidden_size=0), GAIN_PANELS[panel])
    expected = averages["mean"].sel(task="romo").values
    assert np.isnan(expected[[0, 2]]).all()
    assert line_with(ax, expected)
    assert line_with(ax, averages["mean"].sel(task="flipflop").values[:2])  # never trained: not even a mark
    assert marks_above(ax) == ["0/4", "0/4"]
    assert (heights(ax)[np.isfinite(heights(ax))] > 0).all()


def test_a_functional_rank_that_does_not_exist_is_not_0():
    run = make_run()
    run["functional_rank"].loc[{"task": "mante", "gain": 0.0}] = np.nan
    panels = gain(run).get_axes()
    assert marks_above(panels[3]) == ["0/4"]
    assert [marks_above(ax) for ax in panels[:3]] == [[], [], []]


def test_a_diverged_network_that_had_converged_counts_where_it_has_numbers():
    run = make_run()
    where = {"task": "romo", "gain": 0.9, "sample": 1}
    run["status"].loc[where] = "diverged"
    run["shuffled_loss"].loc[where] = np.inf
    one = run.isel(hidden_size=0).sel(task="romo", gain=0.9)
    assert int(over_converged(one, "shuffled_loss")["count"]) == 3
    assert int(over_converged(one, "change_norm")["count"]) == 4
    assert np.isfinite(float(over_converged(one, "shuffled_loss")["mean"]))
    gain(run)


def test_a_note_explains_the_marks_only_if_there_are_any():
    assert gain(make_run()).get_supxlabel() == "means and standard deviations over the samples that converged"
    assert "none of n samples" in gain(fail(make_run(), task="romo", gain=0.0)).get_supxlabel()


def test_one_sample_has_no_deviation():
    run = make_run().isel(sample=0)
    axes = gain(run).get_axes()
    assert line_with(axes[1], run["change_norm"].sel(task="mante").isel(hidden_size=0))
    assert all(len(bars(ax)) == 0 for ax in axes)


def test_gain_refuses_several_sizes():
    with pytest.raises(rs.InputError, match="dataset must hold one hidden_size, got 2"):
        gain(make_run((8, 16)))


def test_size_draws_means_and_deviations():
    run = fail(make_run((8, 16, 32)), task="romo", gain=0.0, hidden_size=8)
    panels = np.reshape(size(run).get_axes(), (4, 3))
    for name, row in zip(SIZE_PANELS, panels, strict=True):
        values = run[name].where(run["convergence_epoch"].notnull())
        for task, ax in zip(TASKS, row, strict=True):
            for g in GAINS:
                one = values.sel(task=task, gain=g)
                assert line_with(ax, one.mean("sample"))
            assert len(bars(ax)) == (8 if task == "romo" else 9)
            assert marks_above(ax) == (["0/4"] if task == "romo" else [])
        assert row[0].get_ylabel()
    assert [ax.get_title() for ax in panels[0]] == ["flip-flop", "Mante", "Romo"]
    assert all("$N$" in ax.get_xlabel() for ax in panels[-1])


def test_size_shows_the_sizes_on_a_scale_of_two():
    ax = size(make_run((8, 16, 32))).get_axes()[-1]
    assert ax.get_xscale() == "log"
    assert ax.get_xticks().tolist() == [8, 16, 32]


def test_a_missing_measurement_is_named():
    with pytest.raises(rs.InputError, match="dataset must have shuffled_loss, got one without"):
        gain(make_run().drop_vars("shuffled_loss"))


def test_size_draws_the_limit_for_tasks_trained_as_in_the_experiment(monkeypatch):
    run = make_run(hidden_sizes=(16, 32))
    run["learning_rate"] = 0.05 / run["hidden_size"]
    monkeypatch.setitem(size_limit.PAPER_EPOCHS, "flipflop", run.sizes["epoch"])
    panels = dict(zip([(name, task) for name in SIZE_PANELS for task in TASKS], size(run).get_axes(), strict=True))
    for (name, task), ax in panels.items():
        limit = size_limit.limits().get((task, name))
        drawn = limit is not None and any(np.allclose(line.get_ydata(), limit.value) for line in ax.get_lines())
        assert drawn == (task == "flipflop" and name != "trained_norm")
    assert size_limit.limits()["flipflop", "change_norm"].value == pytest.approx(2.05, abs=0.02)
    other = run.assign(learning_rate=0.01 / run["hidden_size"])
    assert size_limit.limit_for(other, "flipflop", "change_norm") is None
    assert size_limit.limit_for(run.sel(gain=[0.9, 1.8]), "flipflop", "change_norm") is None
