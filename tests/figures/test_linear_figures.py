"""The figures of the linear experiments: networks, and the predictions of both theories."""

import warnings

import numpy as np
import pytest
from made_up_linear_run import EPOCHS, GAINS, TARGETS, dataset_for, diverge, make_cosine_run, make_linear_run
from made_up_run import forget, line_with, make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg

import rankscope as rs
from rankscope.figures import FIGURES, cosine, divergence, linear, linear_gain, linear_log
from rankscope.theory import InfiniteWidth, ThirdOrder

ALL = ("linear", "linear-gain", "linear-log", "divergence", "cosine")


@pytest.fixture(autouse=True)
def few_points_of_theory(monkeypatch):
    monkeypatch.setattr("rankscope.experiments.linear_theory.GAIN_POINTS", 3)


def draw(figure):
    figure.set_layout_engine("none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FigureCanvasAgg(figure).draw()


def curve(ax, x, y, dashed):
    """Whether a line with this style goes along y(x), as far as it is shown."""
    for line in ax.get_lines():
        at, heights = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        known = np.isfinite(heights)
        alike = known.sum() > 2 and line.is_dashed() == dashed and line.get_linestyle() != "None"
        if alike and np.allclose(heights[known], np.interp(at[known], x, y), rtol=1e-3, atol=1e-9):
            return True
    return False


def error_bars(ax):
    """x, lower and upper end of every error bar."""
    return np.array([[s[0][0], s[0][1], s[1][1]] for c in ax.collections for s in getattr(c, "get_segments", list)()])


def along(run, gain, target):
    """Effective learning time of each epoch, and both theories at the learning rate of the run."""
    rate = float(run["learning_rate"].sel(gain=gain, target=target)[0])
    tau = rate * np.arange(EPOCHS)
    exact = InfiniteWidth(gain, target).descend(rate, EPOCHS)
    return tau / (1 - gain**2) ** 2, exact, ThirdOrder(gain, target).solve(tau)


def test_linear_draws_networks_and_both_theories():
    run = make_linear_run()
    panels = linear(run).get_axes()
    assert [ax.get_title() for ax in panels] == [r"$\hat z$ = 0.5", r"$\hat z$ = 1", r"$\hat z$ = 2", "", ""]
    assert all(r"\beta^2\tau" in ax.get_xlabel() for ax in panels)
    assert panels[0].get_ylabel() == "loss"
    for target, ax in zip(TARGETS, panels, strict=False):
        for gain in GAINS:
            x, exact, expansion = along(run, gain, target)
            assert curve(ax, x, exact["loss"], dashed=False)
            assert curve(ax, x, expansion["loss"], dashed=True)
            loss = run["loss"].sel(gain=gain, target=target)
            drawn = error_bars(ax)
            at = np.isclose(drawn[:, None, 0], x, rtol=1e-9) & np.isclose(
                drawn[:, None, 2], (loss.mean("sample") + loss.std("sample", ddof=1)).values
            )
            assert at.any(axis=1).sum() >= 10
    for index, ax in enumerate(panels[3:], start=1):
        assert f"s_{index}" in ax.get_ylabel()
        for target in TARGETS:
            for gain in GAINS:
                x, exact, expansion = along(run, gain, target)
                assert curve(ax, x, exact["singular_value"].sel(singular_index=index), dashed=False) == (gain < 0.8)
                assert curve(ax, x, expansion["singular_value"].sel(singular_index=index), dashed=True) == (gain < 0.8)


def test_the_exact_theory_takes_the_steps_of_the_networks():
    run = make_linear_run(gains=(0.6,), targets=(2.0,))
    run["learning_rate"] *= 3
    x, exact, _ = along(run, 0.6, 2.0)
    flow = InfiniteWidth(0.6, 2.0).solve(exact["tau"])
    assert abs(flow["loss"] - exact["loss"]).max() > 0.01
    assert curve(linear(run).get_axes()[0], x, exact["loss"], dashed=False)


def test_of_many_gains_and_targets_some_are_drawn():
    run = make_linear_run(gains=[round(0.1 * i, 1) for i in range(10)], targets=(0.5, 1.0, 2.0, 4.0))
    figure = linear(run)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label for label in labels if label.startswith("$g$")] == ["$g$ = 0", "$g$ = 0.6", "$g$ = 0.8"]
    assert len(figure.get_axes()) == 5


def test_diverged_networks_are_left_out_of_means_and_named():
    run = diverge(make_linear_run(), 20, gain=0.8, target=2.0, sample=1)
    for draw_run in (linear, linear_log):
        figure = draw_run(run)
        assert "1 of 3 at $g$ = 0.8" in figure.get_supxlabel()
        draw(figure)
    kept = run["loss"].sel(gain=0.8, target=2.0, sample=[0, 2])
    upper = error_bars(linear(run).get_axes()[2])[:, 2]
    assert np.isclose(upper[:, None], (kept.mean("sample") + kept.std("sample", ddof=1)).values).any(axis=1).sum() >= 10
    assert linear(make_linear_run()).get_supxlabel() == ""


def test_one_network_has_no_error_bars():
    ax = linear(make_linear_run(samples=1)).get_axes()[0]
    bars = error_bars(ax)
    assert np.array_equal(bars[:, 1], bars[:, 2])


def test_gains_without_a_fixed_point_are_left_out():
    run = make_linear_run(gains=(0.6, 1.0, 1.5))
    assert linear(run).legends[0].get_texts()[0].get_text() == "$g$ = 0.6"
    assert len(linear_log(run).get_axes()) == 3
    for name in ("linear-gain", "divergence"):
        draw(FIGURES[name](run))
    with pytest.raises(rs.InputError, match=r"gain below 1, where linear networks are stable, got 1 or more"):
        linear(run.isel(gain=[1, 2]))


def test_linear_gain_draws_everything_relative_to_g_0():
    run = make_linear_run()
    panels = linear_gain(run).get_axes()
    measured = {
        "convergence": run["convergence_epoch"] * run["learning_rate"],
        "norm": run["change_norm"],
        "gradient": run["average_gradient"],
        "shuffle": run["shuffled_loss"],
    }
    g = np.linspace(0, 0.8, 200)
    laws = ((1 - g**2) ** 2, 1 - g**2, 1 / (1 - g**2), g**4 * (2 - g**2) ** 2)
    for (word, values), law, ax in zip(measured.items(), laws, panels, strict=True):
        assert word in ax.get_ylabel()
        assert curve(ax, g, law, dashed=True)
        means = values.mean("sample")
        scaled = means if word == "shuffle" else means / means.sel(gain=0.0)
        for target in TARGETS:
            assert line_with(ax, scaled.sel(target=target))


def test_linear_gain_draws_the_exact_theory():
    run = make_linear_run(targets=(2.0,))
    panels = linear_gain(run).get_axes()
    ends = {gain: InfiniteWidth(gain, 2.0) for gain in (0.0, 0.8)}
    solved = {gain: theory.solve([np.inf]).isel(tau=-1) for gain, theory in ends.items()}
    until = {gain: theory.convergence_time() for gain, theory in ends.items()}
    gradient = {g: np.mean(ends[g].solve(np.linspace(0, until[g], 5000))["gradient_norm"].values) for g in ends}
    expected = (
        until[0.8] / until[0.0],
        float(solved[0.8]["change_norm"] / solved[0.0]["change_norm"]),
        gradient[0.8] / gradient[0.0],
        float(solved[0.8]["shuffled_loss"]),
    )
    for value, ax in zip(expected, panels, strict=True):
        solid = [line for line in ax.get_lines() if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]
        assert any(line.get_ydata()[-1] == pytest.approx(value, rel=5e-3) for line in solid)


def test_without_g_0_quantities_are_relative_to_the_theory_there_with_a_note():
    run = make_linear_run(gains=(0.6, 0.8), targets=(1.0,))
    figure = linear_gain(run)
    at_0 = float(InfiniteWidth(0.0, 1.0).solve([np.inf])["change_norm"][0])
    assert line_with(figure.get_axes()[1], run["change_norm"].sel(target=1.0).mean("sample") / at_0)
    assert r"relative to the exact theory there: $\hat z$ = 1" in figure.get_supxlabel()
    assert (
        linear_gain(make_linear_run()).get_supxlabel()
        == "means and standard deviations over the samples that converged"
    )


def test_linear_log_draws_five_singular_values_down_to_rounding():
    run = make_linear_run()
    panels = linear_log(run).get_axes()
    assert len(panels) == 6
    for ax, (gain, target) in zip(panels, [(g, z) for g in (0.0, 0.8) for z in TARGETS], strict=True):
        assert ax.get_title() == rf"$g$ = {gain:g}, $\hat z$ = {target:g}"
        assert ax.get_yscale() == "log"
        assert ax.get_ylim()[0] == np.finfo(np.float32).eps
        x, exact, expansion = along(run, gain, target)
        for index in exact["singular_index"].values[: 3 if gain else 2]:
            assert curve(ax, x, exact["singular_value"].sel(singular_index=index), dashed=False)
        for index in (1, 2):
            assert curve(ax, x, expansion["singular_value"].sel(singular_index=index), dashed=True)
        s = run["singular_value_history"].sel(gain=gain, target=target)[:, 1:]
        middle = np.exp(np.log(s).mean("sample"))
        for index in range(1, 6):
            drawn = [line for line in ax.get_lines() if line.get_marker() == "os^Dv"[index - 1]]
            heights = np.concatenate([line.get_ydata() for line in drawn])
            assert len(heights) > 8
            assert np.isclose(heights[:, None], middle.sel(leading_index=index).values).any(axis=1).all()


@pytest.mark.parametrize(("indices", "shaded"), [(22, True), (5, False), (1, False)])
def test_rounding_is_shaded_where_it_was_recorded(indices, shaded):
    ax = linear_log(make_linear_run(indices=indices)).get_axes()[0]
    assert any(c.get_facecolor()[0, 3] == 0.3 for c in ax.collections if len(c.get_facecolor())) == shaded


def test_divergence_draws_losses_above_eigenvalues():
    run = dataset_for("divergence")
    grid = np.reshape(divergence(run).get_axes(), (4, 2))
    for row, gain in enumerate((0.6, 0.8)):
        for column, target in enumerate((2.0, 4.0)):
            losses, eigenvalues = grid[2 * row, column], grid[2 * row + 1, column]
            assert losses.get_title() == rf"$g$ = {gain:g}, $\hat z$ = {target:g}"
            here = run.sel(gain=gain, target=target)
            for sample in range(3):
                assert line_with(losses, here["loss"][sample] / here["loss"][sample, 0])
                assert line_with(eigenvalues, here["eigenvalue_real_history"][sample, :, 0])
            for which in range(5):
                assert line_with(eigenvalues, here["eigenvalue_real_history"][0, :, which])
            assert line_with(eigenvalues, [1, 1])
            _, exact, expansion = along(run, gain, target)
            assert curve(losses, np.arange(EPOCHS), exact["loss"] / exact["loss"][0], dashed=False)
            for theory, dashed in ((exact, False), (expansion, True)):
                # There is none where learning has not come so far.
                if theory["outlier"].notnull().sum() > 2:
                    assert curve(eigenvalues, np.arange(EPOCHS), theory["outlier"], dashed)
            assert not crosses(losses)
            assert eigenvalues.get_ylim()[1] > 1


def crosses(ax):
    return [(float(x.get_xdata()[0]), float(x.get_ydata()[0])) for x in ax.get_lines() if x.get_marker() == "X"]


def test_divergence_marks_where_learning_failed():
    run = diverge(dataset_for("divergence"), 21, gain=0.8, target=4.0, sample=1)
    run["loss"].loc[{"gain": 0.8, "target": 4.0, "sample": 1, "epoch": 20}] = 1e9
    grid = np.reshape(divergence(run).get_axes(), (4, 2))
    (loss,), (eigenvalue,) = crosses(grid[2, 1]), crosses(grid[3, 1])
    assert loss == (20, grid[2, 1].get_ylim()[1])
    assert eigenvalue[0] == 20
    # The network that failed is the one of which all eigenvalues are shown, up to where it failed.
    real = run["eigenvalue_real_history"].sel(gain=0.8, target=4.0, sample=1).values
    kept = run["recorded_epoch"].values[0, 0, 0] <= 20
    assert all(line_with(grid[3, 1], real[kept, which]) for which in range(5))
    assert grid[3, 1].get_ylim()[1] < 1.1
    assert not any(crosses(ax) for ax in grid[:, 0])


def test_divergence_marks_where_the_theory_fails():
    run = dataset_for("divergence")
    run["learning_rate"] *= 10
    grid = np.reshape(divergence(run).get_axes(), (4, 2))
    assert np.isnan(along(run, 0.8, 4.0)[1]["loss"][-1])
    last = int(along(run, 0.8, 4.0)[1]["loss"].notnull().sum()) - 1
    assert [x for x, _ in crosses(grid[2, 1])] == [last]


def test_a_network_that_fails_at_once_is_no_line():
    run = diverge(dataset_for("divergence"), 0, gain=0.8, target=4.0)
    draw(divergence(run))


def test_cosine_draws_four_panels():
    run = make_cosine_run()
    outputs, losses, real, imaginary = cosine(run).get_axes()
    for gain in run["gain"].values:
        here = run.sel(gain=gain)
        assert line_with(outputs, here["example_output"][0, :, 0])
        for sample in range(3):
            assert line_with(losses, here["loss"][sample] / here["loss"][sample, 0])
            assert line_with(real, here["eigenvalue_real_history"][sample, :, 0])
            assert line_with(imaginary, abs(here["eigenvalue_imag_history"][sample, :, 0]))
    assert line_with(outputs, run["example_target"][0, 0, :, 0])
    assert losses.get_yscale() == "log"
    in_steps = (np.exp(2j * np.pi * 0.1 / 5) - 0.9) / 0.1
    for ax, continuous, stepped in ((real, 1, in_steps.real), (imaginary, 2 * np.pi / 5, in_steps.imag)):
        assert line_with(ax, [continuous, continuous])
        assert line_with(ax, [stepped, stepped])
        assert "leading eigenvalue" in ax.get_ylabel()
    assert "time constants" in outputs.get_xlabel()
    (shaded,) = outputs.patches
    assert shaded.get_x() + shaded.get_width() == pytest.approx(5.0)


def test_cosine_knows_a_period_that_was_swept():
    _, _, real, imaginary = cosine(make_cosine_run().assign_coords(period=4.0)).get_axes()
    assert line_with(real, [1, 1])
    assert line_with(imaginary, [np.pi / 2, np.pi / 2])


@pytest.mark.parametrize("name", ALL)
def test_a_run_of_another_experiment_is_refused(name):
    with pytest.raises(rs.InputError, match=f"dataset must be of a run of '{name}', got one without"):
        FIGURES[name](make_run())
    other = dataset_for(name).assign_coords(task="romo")
    with pytest.raises(rs.InputError, match=f"dataset must be of a run of '{name}', with the task '.*', got romo"):
        FIGURES[name](other)


@pytest.mark.parametrize("name", ALL)
def test_networks_that_differ_by_something_else_are_refused(name):
    run = dataset_for(name).expand_dims(batch_size=[1, 2])
    with pytest.raises(rs.InputError, match="dataset must hold one batch_size, got 2"):
        FIGURES[name](run)


@pytest.mark.parametrize("name", ALL)
def test_a_run_without_any_network_is_refused(name):
    run = dataset_for(name)
    with pytest.raises(rs.InputError, match=r"dataset must hold networks of the task .*, got none"):
        FIGURES[name](forget(run, gain=run["gain"].values))
