"""All results of a run as one Dataset: labels become dimensions, what is missing is NaN, damage is never silent."""

import itertools

import numpy as np
import pytest
import xarray as xr
from sweep_cases import job, jobs

import rankscope as rs
from rankscope.errors import InputError
from rankscope.io.dataset_file import open_dataset, write_dataset
from rankscope.sweep import RunFolder
from rankscope.sweep.results import assemble, read_results


def stored(folder, labels, epochs=3, **variables):
    """Write one made-up result."""
    number = len(list(folder.iterdir()))
    losses = np.arange(epochs) + 100.0 * number
    dataset = xr.Dataset(
        {"loss": ("epoch", losses, {"long_name": "loss"}), "final": losses[-1], "status": "finished", **variables},
        {"epoch": np.arange(epochs), "seed": number, **labels},
        {"version": "1", "number": number, "list": [1, 2]},
    )
    path = folder / f"{number}.safetensors"
    write_dataset(path, dataset, {})
    return open_dataset(path)


def test_labels_that_vary_become_dimensions_and_gaps_are_missing(tmp_path):
    places = [("a", 0.5, 3), ("a", 1.0, 5), ("b", 0.5, 3)]
    results = [stored(tmp_path, {"task": task, "gain": gain, "size": 8}, epochs) for task, gain, epochs in places]
    lazy, loaded = assemble(results), assemble(results, in_memory=True)
    assert loaded.identical(lazy.load())
    assert dict(loaded.sizes) == {"task": 2, "gain": 2, "epoch": 5}
    assert loaded["size"].item() == 8
    np.testing.assert_array_equal(loaded["loss"].sel(task="a", gain=0.5), [0, 1, 2, np.nan, np.nan])
    np.testing.assert_array_equal(loaded["loss"].sel(task="a", gain=1.0), 100 + np.arange(5))
    assert np.isnan(loaded["loss"].sel(task="b", gain=1.0)).all()
    np.testing.assert_array_equal(loaded["final"], [[2, 104], [202, np.nan]])
    np.testing.assert_array_equal(loaded["status"], [["finished"] * 2, ["finished", ""]])
    assert "seed" in loaded.coords
    assert loaded.attrs == {"version": "1", "list": [1, 2]}
    assert loaded["loss"].attrs == {"long_name": "loss"}


def test_one_result_has_no_dimension_of_labels(tmp_path):
    dataset = assemble([stored(tmp_path, {"gain": 0.5})])
    assert dataset["loss"].dims == ("epoch",)
    assert dataset["final"].item() == 2


def test_labels_may_be_numbers_and_text_or_of_many_names(tmp_path):
    results = [stored(tmp_path, {"rate": rate, "sample": 0}) for rate in (0.1, "default", 0.01)]
    assert list(assemble(results)["rate"].values) == ["0.01", "0.1", "default"]


def test_variables_that_few_results_have(tmp_path):
    results = [stored(tmp_path, {"gain": 0.1}), stored(tmp_path, {"gain": 0.2}, rank=3, words=("w", ["x", "y"]))]
    dataset = assemble(results).load()
    np.testing.assert_array_equal(dataset["rank"], [np.nan, 3])
    np.testing.assert_array_equal(dataset["words"], [["", ""], ["x", "y"]])


def test_coordinates_that_differ_are_never_mixed(tmp_path):
    def curve(folder, gain, ranks):
        folder.mkdir()
        return stored(folder, {"gain": gain, "rank": ("rank", ranks)}, curve=("rank", np.ones(len(ranks))))

    same = [curve(tmp_path / "a", 0.1, [0, 1, 2, 4]), curve(tmp_path / "b", 0.2, [0, 1])]
    assert list(assemble(same)["rank"].values) == [0, 1, 2, 4]
    with pytest.raises(InputError, match="rank must have the same values in all results"):
        assemble([*same, curve(tmp_path / "c", 0.3, [0, 2])])


def test_equal_labels_and_too_many_combinations_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"different labels, got two with {'gain': 0.1"):
        assemble([stored(tmp_path, {"gain": 0.1}) for _ in range(2)])
    one = stored(tmp_path, dict.fromkeys("abcdefgh", 0))
    other = [stored(tmp_path, dict.fromkeys("abcdefgh", number)) for number in range(1, 9)]
    with pytest.raises(InputError, match="at most 10000000 combinations"):
        assemble([one, *other])


def test_sparse_grids_stay_lazy(tmp_path):
    results = [stored(tmp_path, {"x": number, "y": number}) for number in range(9)]
    assert assemble(results, in_memory=True)["loss"].chunks is not None
    assert assemble(results[:3], in_memory=True)["loss"].chunks is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of three networks, of which one is at another gain."""
    store = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    some = [*jobs(2), job(0, network={"hidden_size": 5, "gain": 0.5})]
    store.prepare(some)
    for one in some:
        store.save(one.run())
    return store.path


def test_scalars_are_in_memory_and_arrays_are_read_when_needed(folder):
    run = rs.open_run(folder)
    assert run["change_norm"].chunks is None
    assert run["loss"].chunks is not None
    expected = job(0).run().measurements
    np.testing.assert_array_equal(run["loss"].sel(gain=0.9, sample=0), expected["loss"])
    assert np.isnan(run["loss"].sel(gain=0.5, sample=1)).all()
    assert rs.open_run(folder, in_memory=True).identical(run.load())
    assert "loss" not in rs.open_run(folder, without=["loss"])


def test_networks_are_selected_by_their_labels(folder):
    done = job(1).run()
    before, after = rs.load_networks(folder, gain=0.9, sample=1)
    assert before.recurrent_weights.equal(done.before.recurrent_weights)
    assert after.recurrent_weights.equal(done.after.recurrent_weights)
    assert rs.load_networks(folder, gain=0.5)[0].hidden_size == 5
    for labels, message in (
        ({}, "fits 3; they differ in .*gain"),
        ({"sample": 7}, "fits 0, of 3"),
        ({"gian": 0.9}, "did you mean 'gain'"),
    ):
        with pytest.raises(InputError, match=message):
            rs.load_networks(folder, **labels)


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy of the run, and the path of one of its results to damage."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    return copy, copy / "jobs" / job(1).digest / "measurements.safetensors"


def test_a_changed_number_is_never_returned(damaged):
    copy, path = damaged
    run = rs.open_run(copy)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    for read in (run["loss"].load, rs.open_run(copy).load, lambda: rs.open_run(copy, in_memory=True)):
        with pytest.raises(InputError, match="has changed since it was written"):
            read()
    results, unreadable = read_results(copy, verify=True)
    assert (len(results), list(unreadable)) == (2, [job(1).digest])


def test_a_damaged_header_is_named_and_a_missing_result_is_left_out(damaged):
    copy, path = damaged
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=f"job {job(1).digest} must have an undamaged result"):
        rs.open_run(copy)
    path.unlink()
    assert rs.open_run(copy).sizes["gain"] == 2


def test_a_run_continues_while_it_is_open(damaged):
    copy, _ = damaged
    run = rs.open_run(copy)
    RunFolder(copy).add_measurements(job(1), ["spectra"])
    np.testing.assert_array_equal(run["loss"].values, rs.open_run(copy)["loss"].values)


def test_folders_without_results_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="must hold finished jobs"):
            rs.open_run(path)


def test_exports(folder, tmp_path):
    run = rs.open_run(folder).load()
    rs.export_run(folder, tmp_path / "run.csv", "csv")
    rows = (tmp_path / "run.csv").read_text().splitlines()
    assert len(rows) == 4
    assert {"gain", "sample", "seed", "change_norm", "status"} <= set(rows[0].split(","))
    with pytest.raises(InputError, match="did you mean 'csv'"):
        rs.export_run(folder, tmp_path / "x", "csvs")
    pytest.importorskip("h5netcdf")
    rs.export_run(folder, tmp_path / "run.nc", "nc")
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as exported:
        np.testing.assert_array_equal(exported["loss"], run["loss"])


def test_optional_formats_name_their_extra(folder, tmp_path):
    for kind, module in (("zarr", "zarr"), ("parquet", "arro3.io")):
        try:
            __import__(module)
        except ImportError:
            with pytest.raises(InputError, match=rf"pip install 'rankscope\[{kind}\]'"):
                rs.export_run(folder, tmp_path / "out", kind)


def test_every_combination_of_kinds_of_labels(tmp_path):
    results = [stored(tmp_path, {"flag": flag, "n": n}) for flag, n in itertools.product((False, True), (1, 2))]
    dataset = assemble(results, in_memory=True)
    assert dataset["flag"].dtype == bool
    assert dataset["n"].dtype.kind == "i"
