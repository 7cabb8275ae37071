"""One cell: everything measured, labelled, reproducible, and consistent with the analysis called by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import rankscope as rs
from rankscope.experiments import Cell, demo_cells, run, run_demo, store
from rankscope.experiments.cell import run_stored, summary

CELL = Cell(rs.tasks.FlipFlop(), gain=0.9, hidden_size=24, epochs=30, seed=5)


@pytest.fixture(scope="module")
def outcome():
    return run(CELL)


def test_scalars_agree_with_the_analysis_called_by_hand(outcome):
    measured = outcome.measurements
    change = rs.lowrank.change(outcome.before, outcome.after)
    assert measured["change_norm"].item() == change.norm
    np.testing.assert_array_equal(measured["singular_value"].sel(matrix="change"), change.singular_values)
    assert measured["loss"].sizes["epoch"] == 30
    assert measured["initial_loss"].item() == measured["loss"].values[0]
    # Rank N is the whole change, so that the curve ends at the loss of the trained network.
    assert measured["rank"].values.tolist() == list(range(25))
    assert measured["truncation_loss"].values[-1] == pytest.approx(measured["evaluation_loss"].item(), rel=1e-4)


def test_the_change_at_the_last_record_is_the_final_change_but_for_one_step(outcome):
    measured = outcome.measurements
    assert measured["recorded_epoch"].values[-1] == 29
    last = measured["singular_value_history"].values[-1]
    final = measured["singular_value"].sel(matrix="change").values
    assert np.abs(last - final).max() < 0.2 * final[0]
    assert np.all(measured["singular_value_history"].values[0] == 0)


def test_every_variable_says_what_it_is(outcome):
    for name, variable in outcome.measurements.data_vars.items():
        assert variable.attrs.get("long_name"), name
    assert json.loads(outcome.measurements.attrs["cell"])["task_parameters"]["duration"] == 50.0


def test_a_cell_is_repeated_exactly_and_its_seed_matters(outcome):
    again = run(CELL).measurements.drop_attrs()
    xr.testing.assert_identical(outcome.measurements.drop_attrs(), again)
    other = run(replace(CELL, seed=6)).measurements
    assert not np.array_equal(other["loss"], again["loss"])


def test_the_digest_tells_cells_apart():
    cells = [CELL, replace(CELL, gain=0.8), replace(CELL, task=rs.tasks.FlipFlop(pulse=2.0)), replace(CELL, seed=6)]
    assert len({cell.digest for cell in cells}) == len(cells)
    assert replace(CELL).digest == CELL.digest


def test_digests_of_cells_from_before_there_was_a_choice_of_measurements_stay():
    assert CELL.digest == "1667daf74fa1"
    assert "measurements" not in CELL.describe()
    assert replace(CELL, measurements=("truncation",)).digest != CELL.digest


def test_only_what_is_asked_for_is_measured(outcome):
    bare = run(replace(CELL, measurements=())).measurements
    dear = {"truncation_loss", "rank", "singular_value", "eigenvalue_real", "singular_index", "example_output", "step"}
    everything = set(outcome.measurements.variables) | set(outcome.measurements.dims)
    assert dear <= everything
    assert not dear & (set(bare.variables) | set(bare.dims))
    for name in ("change_norm", "shuffled_loss", "convergence_epoch", "average_gradient", "initial_loss"):
        np.testing.assert_array_equal(bare[name], outcome.measurements[name], err_msg=name)
    assert summary(bare)["functional_rank"] is None
    with_outlier = run(replace(CELL, measurements=("outlier",)))
    W = with_outlier.after.recurrent_weights.detach().double().numpy()
    assert with_outlier.measurements["outlier"].item() == pytest.approx(np.linalg.eigvals(W).real.max())
    assert np.isnan(outcome.measurements["outlier"])


def test_an_unknown_measurement_is_refused_before_any_work():
    with pytest.raises(rs.InputError, match=r"measurements must be one of .* got 'spectrum' \(did you mean 'spectra'"):
        replace(CELL, measurements=("spectrum",))


@pytest.mark.parametrize(("noise_std", "trials"), [(0.0, 1), (0.1, 512)])
def test_one_trial_serves_where_all_are_equal(noise_std, trials, monkeypatch):
    task = rs.tasks.FixedPoint(duration=4.0)
    asked = []
    sample = type(task).sample
    monkeypatch.setattr(type(task), "sample", lambda self, n, rng=None: asked.append(n) or sample(self, n, rng))
    run(Cell(task, hidden_size=8, epochs=2, network={"noise_std": noise_std}, measurements=("truncation",)))
    assert max(n for n in asked if n != 32) == trials


def test_the_average_gradient_is_that_of_the_epochs_before_convergence(outcome):
    assert np.isnan(outcome.measurements["average_gradient"])
    cell = Cell(rs.tasks.FixedPoint(duration=10.0), hidden_size=16, epochs=400, training={"learning_rate": 0.01})
    measured = run(cell).measurements
    until = int(measured["convergence_epoch"])
    assert 0 < until < 400
    expected = (measured["gradient_norm"][:until] * 0.01).sum() / (0.01 * until)
    assert measured["average_gradient"].item() == pytest.approx(expected.item())
    assert measured["learning_rate"].item() == 0.01


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 1e6), ("sgd", 1e36), ("adam", 1e35)])
def test_a_diverged_cell_is_a_result(optimizer, rate):
    cell = replace(CELL, network={"nonlinearity": "identity"}, training={"optimizer": optimizer, "learning_rate": rate})
    measured = run(cell).measurements
    row = summary(measured)
    assert row["status"] == "diverged"
    assert row["convergence_epoch"] is None


def test_what_is_stored_comes_back(outcome, tmp_path):
    measurements, network = store(outcome, tmp_path / "deep" / "folder")
    with xr.open_dataset(measurements, engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), outcome.measurements)
    for initial, ours in ((False, outcome.after), (True, outcome.before)):
        theirs = rs.RateRNN.load(network, initial=initial)
        assert theirs.architecture() == ours.architecture()
        for name, tensor in ours.state_dict().items():
            assert tensor.equal(theirs.state_dict()[name])


def test_a_stored_run_leaves_no_checkpoint_and_refuses_to_replace_results(tmp_path):
    run_stored(CELL, tmp_path)
    assert not list(tmp_path.glob("checkpoint*"))
    with pytest.raises(rs.InputError, match="--overwrite"):
        run_stored(CELL, tmp_path)


@pytest.mark.usefixtures("forked_workers")
def test_the_demo_puts_its_cells_along_gain(tmp_path):
    cells = demo_cells(hidden_size=16, epochs=10)
    measured = run_demo(cells, tmp_path, workers=2)
    assert measured["gain"].values.tolist() == [0.0, 0.9]
    for index, cell in enumerate(cells):
        np.testing.assert_array_equal(measured["loss"].isel(gain=index), run(cell).measurements["loss"])
    # Without W0 nothing is lost by shuffling it.
    assert measured["shuffled_loss"].sel(gain=0.0).item() == pytest.approx(
        (measured["evaluation_loss"] / measured["initial_loss"]).sel(gain=0.0).item(), rel=1e-5
    )
