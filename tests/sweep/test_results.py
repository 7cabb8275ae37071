"""All cells of a run as one Dataset: labels become dimensions, what is missing is NaN, arrays stay in their files."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from sweep_cases import Case, work

from rankscope.errors import InputError
from rankscope.sweep import run_sweep
from rankscope.sweep.results import assemble, open_run
from rankscope.sweep.store import RunFolder


def cell(task, gain, epochs=3, **labels):
    size = 100 * gain + epochs
    return xr.Dataset(
        {
            "change_norm": ((), size, {"long_name": "norm"}),
            "status": ((), "finished"),
            "loss": ("epoch", np.arange(epochs) + size),
        },
        {"epoch": np.arange(epochs), "task": task, "gain": gain, "sample": 0, "hidden_size": 8, "seed": 7, **labels},
        {"torch_version": "2", "cell": f"{task} {gain}"},
    )


def test_labels_that_vary_become_dimensions_and_holes_are_missing():
    data = assemble([cell("a", 0.0), cell("a", 0.9), cell("b", 0.9, epochs=5)])
    assert dict(data.sizes) == {"task": 2, "gain": 2, "epoch": 5}
    assert data["sample"].item() == 0
    assert data["change_norm"].sel(task="a", gain=0.9).item() == 93
    assert np.isnan(data["change_norm"].sel(task="b", gain=0.0).item())
    assert data["status"].sel(task="b", gain=0.0).item() == ""
    np.testing.assert_array_equal(data["loss"].sel(task="a", gain=0.0), [3, 4, 5, np.nan, np.nan])
    np.testing.assert_array_equal(data["loss"].sel(task="b", gain=0.9), np.arange(5) + 95)
    assert data["epoch"].values.tolist() == [0, 1, 2, 3, 4]
    assert data["change_norm"].attrs["long_name"] == "norm"
    assert data.attrs == {"torch_version": "2"}


def test_labels_of_a_users_grid():
    data = assemble([cell("a", 0.0, nonlinearity="tanh"), cell("a", 0.0, nonlinearity="relu")])
    assert data["change_norm"].dims == ("nonlinearity",)
    assert data["nonlinearity"].values.tolist() == ["relu", "tanh"]


def test_labels_that_are_numbers_and_words():
    rates = ("none", 0.01, 0.002)
    data = assemble([cell("a", gain, learning_rate=rate) for rate, gain in zip(rates, (0.1, 0.2, 0.3), strict=True)])
    assert data["learning_rate"].values.tolist() == ["0.002", "0.01", "none"]
    assert data["change_norm"].sel(learning_rate="0.01", gain=0.2).item() == 23


def test_two_cells_in_one_place_are_refused():
    with pytest.raises(InputError, match="cells must differ in"):
        assemble([cell("a", 0.0), cell("a", 0.0)])


def test_a_run_is_read_lazily(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare()
    for gain in (0.0, 0.9):
        folder.save(f"digest{gain:g}".replace(".", "-"), cell("a", gain))
    data = open_run(tmp_path)
    assert isinstance(data["loss"].data, da.Array)
    assert isinstance(data["change_norm"].data, np.ndarray)
    np.testing.assert_array_equal(data["loss"].sel(gain=0.9), np.arange(3) + 93)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match="folder must hold finished cells"):
        open_run(tmp_path)


def test_a_run_that_is_open_can_be_read_again_and_goes_on(tmp_path):
    cases = [Case(number, log=str(tmp_path / "log")) for number in range(3)]
    run_sweep(work, cases[:2], tmp_path / "run", workers=1)
    data = open_run(tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert sorted(folder.done()) == [case.digest for case in cases[:2]]
    assert folder.read(cases[0].digest)["number"].item() == 0
    report = run_sweep(work, cases, tmp_path / "run", workers=1)
    assert report.set_aside == ()
    assert sorted(report.already_done) == [case.digest for case in cases[:2]]
    assert data["values"].values.shape[-2:] == (20, 40)
