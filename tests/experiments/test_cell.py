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
    change = rs.analysis.change(outcome.before, outcome.after)
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


@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 1e6), ("sgd", 1e36), ("adam", 1e35)])
def test_a_diverged_cell_is_a_result(optimiser, rate):
    cell = replace(CELL, network={"nonlinearity": "identity"}, training={"optimiser": optimiser, "learning_rate": rate})
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
