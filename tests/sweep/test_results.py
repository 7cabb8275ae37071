"""All cells of a run as one Dataset: labels become dimensions, what is missing is NaN, arrays stay in their files."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from reading_with_xarray import open_run_plainly
from sweep_cases import Case, changing, seal_again, work

from rankscope.errors import InputError
from rankscope.sweep import glance, run_sweep
from rankscope.sweep.integrity import LENGTH
from rankscope.sweep.results import MOST_PLACES, assemble, open_run, read_cells
from rankscope.sweep.store import RunFolder


def together(cells):
    return assemble([glance.InMemory(one) for one in cells])


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
    data = together([cell("a", 0.0), cell("a", 0.9), cell("b", 0.9, epochs=5)])
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
    data = together([cell("a", 0.0, nonlinearity="tanh"), cell("a", 0.0, nonlinearity="relu")])
    assert data["change_norm"].dims == ("nonlinearity",)
    assert data["nonlinearity"].values.tolist() == ["relu", "tanh"]


def test_labels_that_are_numbers_and_words():
    rates = ("none", 0.01, 0.002)
    data = together([cell("a", gain, learning_rate=rate) for rate, gain in zip(rates, (0.1, 0.2, 0.3), strict=True)])
    assert data["learning_rate"].values.tolist() == ["0.002", "0.01", "none"]
    assert data["change_norm"].sel(learning_rate="0.01", gain=0.2).item() == 23


def test_two_cells_in_one_place_are_refused():
    with pytest.raises(InputError, match="cells must differ in"):
        together([cell("a", 0.0), cell("a", 0.0)])


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


@pytest.mark.usefixtures("forked_workers")
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


# Read with HDF5's own functions: the same as by xarray


@pytest.fixture
def stored(tmp_path):
    """stored(cells): the folder of a run that has these cells."""

    def store(cells):
        folder = RunFolder(tmp_path / "run")
        folder.prepare()
        for number, one in enumerate(cells):
            folder.save(f"digest{number}", one)
        return folder.path

    return store


def assert_the_same_as_by_xarray(folder):
    found, expected = open_run(folder), open_run_plainly(folder)
    xr.testing.assert_identical(found, expected)
    assert list(found.variables) == list(expected.variables)
    for name, variable in expected.variables.items():
        assert found[name].dtype == variable.dtype
    return found


def words(*values):
    return "letter", np.array(values, dtype=object), {"long_name": "words"}


VARIANTS = {
    "grid": [cell(task, gain) for task in ("a", "b") for gain in (0.0, 0.9)],
    "one": [cell("a", 0.0)],
    "holes": [cell("a", 0.0), cell("b", 0.9), cell("c", 0.9, epochs=5)],
    "longer": [cell("a", 0.1 * number, epochs=2 + number % 3) for number in range(5)],
    "words": [cell("a", g).assign(letters=words("x", "y" * int(10 * g))) for g in (0.1, 0.2)],
    "words, holes": [cell("a", 0.1).assign(letters=words("é", "")), cell("b", 0.2).assign(other=words("z", "a"))],
    "booleans": [cell("a", 0.1, flag=flag).assign(up=flag, ups=("u", [flag, False])) for flag in (True, False)],
    "integers": [cell("a", g, epochs=3).assign(n=np.int8(-3), k=("i", np.arange(3, dtype="u2"))) for g in (0.1, 0.2)],
    "single": [cell("a", g).assign(x=np.float32(g), y=("i", np.float32([g, 1]))) for g in (0.1, 0.2)],
    "dates": [
        cell("a", g).assign(at=np.datetime64("2026-01-01", "ns") + np.timedelta64(int(10 * g), "D")) for g in (0.1, 0.2)
    ],
    "infinite": [cell("a", g).assign(x=np.inf, y=("i", [np.nan, -np.inf])) for g in (0.1, 0.2)],
    "bytes": [cell("a", g).assign(b=np.bytes_(b"ab")) for g in (0.1, 0.2)],
    "units": [cell("a", g).assign(d=("i", [1.0, 2.0], {"units": "m"})) for g in (0.1, 0.2)],
    "other attributes, backwards": [
        cell("a", g).assign(x=((), g, {"units": f"m{g}"}), d=("i", [g], {"units": f"m{g}"})) for g in (0.2, 0.1)
    ],
    "other attributes": [cell("a", g).assign(d=("i", [g], {"units": f"m{g}"})) for g in (0.1, 0.2)],
    "longer in two": [cell(t, 0.1).assign(d=(("i", "j"), np.eye(n))) for t, n in (("a", 2), ("b", 3))],
    "other dimensions": [cell("a", g).assign(d=((i, j), np.eye(2))) for g, i, j in ((0.1, "i", "j"), (0.2, "j", "i"))],
    "dimension without coordinate": [cell("a", g).assign(d=(("i", "epoch"), np.ones((2, 3)))) for g in (0.1, 0.2)],
    "attributes": [cell("a", g).assign_attrs(nan=np.nan, one=1, word="x", other=f"{g}") for g in (0.1, 0.2)],
    "nothing to label": [cell("a", 0.1).drop_vars("seed").assign(empty=("e", np.zeros(0)))],
}


@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_is_read_as_xarray_reads_it(stored, name):
    assert_the_same_as_by_xarray(stored(VARIANTS[name]))


def test_xarray_opens_one_file_of_each_make(stored, monkeypatch):
    opened = []
    by_xarray = glance._opened
    monkeypatch.setattr(glance, "_opened", lambda path, **options: opened.append(path) or by_xarray(path, **options))
    folder = stored([cell("a", 0.1 * number, epochs=2 + number % 3, even=number % 2 == 0) for number in range(20)])
    open_run(folder)
    # The first of all, the first of the grid for the attributes of most variables, the first of the longest.
    assert len(opened) <= 4


def test_attributes_that_are_arrays_and_variables_that_few_have(stored):
    cells = [cell("a", g).assign_attrs(same=[1, 2], other=[1, 2 * g]) for g in (0.1, 0.2)]
    cells[1] = cells[1].assign(few=("epoch", [1.0, 2.0, 3.0])).isel(epoch=slice(2))
    data = open_run(stored(cells))
    np.testing.assert_array_equal(data.attrs.pop("same"), [1, 2])
    assert data.attrs == {"torch_version": "2"}
    np.testing.assert_array_equal(data["few"], [[np.nan] * 3, [1, 2, np.nan]])
    # A date has to be decoded, and makes xarray read the file.
    cells[1] = cells[1].assign(date=np.datetime64("2026-01-01", "ns"))
    np.testing.assert_array_equal(open_run(stored(cells)).attrs["same"], [1, 2])


def test_a_damaged_file_is_named(stored):
    folder = stored([cell("a", 0.1), cell("b", 0.1)])
    path = folder / "cells" / "digest1.nc"
    whole = path.read_bytes()
    for cut, reason in ((LENGTH + 50, "it ends without a seal"), (50, "its seal is damaged")):
        path.write_bytes(whole[:-cut])
        with pytest.raises(InputError, match=rf"digest1\.nc must be a whole netCDF file: .*{reason}"):
            open_run(folder)


def test_what_is_gone_meanwhile_is_left_out(stored):
    folder = stored([cell("a", 0.1), cell("b", 0.1)])
    paths = [folder / "cells" / f"digest{number}.nc" for number in (0, 1, 2)]
    assert [part.labels["task"] for part in glance.glance(paths)] == ["a", "b"]


def test_no_file_stays_open(stored):
    folder = stored(VARIANTS["longer"])
    before = len(list(Path("/proc/self/fd").iterdir()))
    data = open_run(folder)
    data["loss"].load()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_part_of_an_array_reads_only_its_cells(stored, monkeypatch):
    data = open_run(stored(VARIANTS["longer"]))
    read = []
    array = glance.InFile.array
    monkeypatch.setattr(glance.InFile, "array", lambda part, name: read.append(name) or array(part, name))
    np.testing.assert_array_equal(data["loss"].isel(gain=[1, 3], epoch=0), data["change_norm"].isel(gain=[1, 3]))
    assert read == ["loss", "loss"]


# What a report reads: whole, and around what is damaged


def read_whole(folder, without=()):
    parts, unreadable = read_cells(RunFolder(folder), without)
    return assemble(parts), unreadable


@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_that_is_read_whole_is_that_of_open_run(stored, name):
    folder = stored(VARIANTS[name])
    data, unreadable = read_whole(folder)
    expected = open_run(folder)
    assert all(isinstance(variable.data, np.ndarray) for variable in data.variables.values())
    xr.testing.assert_identical(data, expected)
    assert [variable.dtype for variable in data.variables.values()] == [v.dtype for v in expected.variables.values()]
    assert unreadable == {}


def test_a_file_is_opened_once_to_be_read_whole(stored, monkeypatch):
    folder = stored([cell("a", 0.1 * number) for number in range(6)])
    opened = []
    file = glance.h5py.File
    monkeypatch.setattr(
        glance.h5py, "File", lambda path, *rest, **more: opened.append(path) or file(path, *rest, **more)
    )
    parts, _ = read_cells(RunFolder(folder))
    for part in parts:
        assert part.at_hand("loss")
    # xarray, which has opened the first, too, gives a string.
    assert [path for path in opened if isinstance(path, Path)] == [part.path for part in parts]


def test_variables_that_are_left_out(stored):
    folder = stored(VARIANTS["grid"])
    xr.testing.assert_identical(read_whole(folder, ["loss"])[0], open_run(folder).drop_vars("loss"))


def flip(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_what_is_damaged_is_named_and_left_out(stored):
    cells = [cell("a", 0.1 * number).assign(x=("x", np.arange(5000.0))) for number in range(5)]
    folder = stored(cells)
    paths = [folder / "cells" / f"digest{number}.nc" for number in range(5)]
    paths[0].write_bytes(paths[0].read_bytes()[:700])
    paths[1].write_bytes(paths[2].read_bytes())
    flip(paths[3], paths[3].stat().st_size // 2)
    data, unreadable = read_whole(folder)
    assert data["gain"].values.tolist() == [0.2, 0.4]
    assert {digest: reason.split(" (")[0] for digest, reason in unreadable.items()} == {
        f"digest{number}": f"{paths[number]} is damaged" for number in (0, 1, 3)
    }
    assert "it was sealed as that of 'digest2'" in unreadable["digest1"]


def test_a_changed_number_is_seen_by_whoever_reads_all(stored):
    folder = stored([cell("a", 0.1), cell("a", 0.2)])
    path = folder / "cells" / "digest1.nc"
    flip(path, path.read_bytes().index(cell("a", 0.2)["loss"].values.tobytes()))
    assert "checksum" in read_whole(folder)[1]["digest1"]


def test_a_variable_with_other_dimensions_than_names_is_damage():
    broken = cell("a", 0.1)
    broken.variables["loss"]._data = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"loss is of shape \(3, 2\)"):
        glance.InMemory(broken)


def test_variables_shorter_than_their_dimension_are_filled_up(stored):
    folder = stored([])
    paths = [folder / "cells" / f"digest{number}.nc" for number in range(2)]
    for number, path in enumerate(paths):
        one = cell("a", 0.1 * number).drop_vars("epoch").assign_attrs(digest=path.stem)
        one.to_netcdf(path, engine="h5netcdf", unlimited_dims=["epoch"])
        seal_again(path)
    # The first is read by xarray; the second looks like it but for its length.
    with changing(paths[1]) as file:
        file["epoch"].resize((5,))
    data = assert_the_same_as_by_xarray(folder)
    assert data.sizes["epoch"] == 5
    assert "its dimension '/epoch' is of 5, its variables of up to 3" in read_whole(folder)[1]["digest1"]


def test_long_names_are_those_of_the_longest(stored):
    cells = [cell("a", g, epochs=n).assign_attrs(long_name=f"{g}") for g, n in ((0.1, 2), (0.2, 3))]
    for one in cells:
        one["loss"].attrs["long_name"] = f"loss of {one.sizes['epoch']}"
    data = assert_the_same_as_by_xarray(stored(cells))
    assert data["loss"].attrs["long_name"] == "loss of 3"
    assert "long_name" not in data.attrs


def test_an_attribute_of_another_type_is_read_as_it_is(stored):
    cells = [cell("a", g).assign(d=("i", [1.0], {"units": value})) for g, value in ((0.1, "m"), (0.2, 3.0), (0.3, 3))]
    folder = stored(cells)
    # Sixteen letters take as much room as a word that is stored elsewhere, and are not read like it.
    with changing(folder / "cells" / "digest1.nc") as file:
        file["d"].attrs["units"] = np.bytes_(b"a" * 16)
    assert_the_same_as_by_xarray(folder)


def test_few_cells_at_many_combinations_stay_lazy():
    cells = [cell("a", 0.1 * n, epochs=2 + n % 2, dt=0.1 * n, learning_rate=0.1 * n) for n in range(6)]
    data = together(cells)
    assert isinstance(data["loss"].data, da.Array)
    assert data["loss"].shape == (6, 6, 6, 3)
    assert int(data["change_norm"].notnull().sum()) == 6
    one = data.sel(gain=0.1 * 3, dt=0.1 * 3, learning_rate=0.1 * 3)
    np.testing.assert_array_equal(one["loss"], cells[3]["loss"])


def test_labels_with_too_many_combinations_are_refused():
    count = round(MOST_PLACES ** (1 / 3)) + 1
    cells = [xr.Dataset({}, dict.fromkeys(("a", "b", "c"), n)) for n in range(count)]
    with pytest.raises(InputError, match=f"at most {MOST_PLACES} combinations, got {count} of a, {count} of b"):
        together(cells)
