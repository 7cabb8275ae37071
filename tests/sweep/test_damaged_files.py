"""Files of a run folder with other content than we wrote: refused or set aside, whatever the libraries raise."""

import json

import numpy as np
import pytest
import xarray as xr
from sweep_cases import changing, content, seal_again

from rankscope.errors import InputError
from rankscope.sweep import RunFolder, claims, open_run
from rankscope.sweep.integrity import LENGTH
from rankscope.sweep.netcdf import read_netcdf

FIELDS = ("error", "message", "traceback", "host", "time")


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare([("one", {"n": 1})])
    folder.save("one", content(1))
    return folder


@pytest.mark.parametrize("text", ["[" * 60_000, '{"a":' * 30_000, "\ud800", '{"format": ' + "1" * 5000 + "}"])
def test_a_run_json_that_no_parser_survives_is_refused(folder, text):
    (folder.path / "run.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"run\.json must be a sweep's run\.json") as error:
        folder.manifest()
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("digest", ["../../etc/passwd", "x" * 70_000, "a\0b", ""])
def test_a_run_json_cannot_name_files_elsewhere(folder, digest):
    manifest = json.loads((folder.path / "run.json").read_text())
    manifest["cells"][0]["digest"] = digest
    (folder.path / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="a cell is called") as error:
        folder.counts()
    assert len(str(error.value)) < 600


def test_descriptions_too_deep_to_be_written_are_refused(folder):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="must be JSON values"):
        folder.prepare([("two", {"n": deep})])


def collections_of_words(content):
    """Yield where the lengths of what the collections hold are, and the index of each object."""
    begin = content.find(b"GCOL")
    while begin >= 0:
        at, end = begin + 16, begin + int.from_bytes(content[begin + 8 : begin + 16], "little")
        while at + 16 <= end:
            index = int.from_bytes(content[at : at + 2], "little")
            size = int.from_bytes(content[at + 8 : at + 16], "little")
            yield at + 8, index
            at += 16 + (size + 7) // 8 * 8 if index else size
        begin = content.find(b"GCOL", begin + 4)


@pytest.mark.parametrize("size", [0, 3, 2**63, 2**64 - 1])
def test_lengths_that_hdf5_would_walk_along_for_ever_are_damage(folder, size):
    """Found by fuzzing: a length of 0 holds the library in a loop that no signal interrupts."""
    path = folder.path_of("one")
    whole = path.read_bytes()[:-LENGTH]
    places = list(collections_of_words(whole))
    assert {index == 0 for _, index in places} == {True, False}
    (free,) = [at for at, index in places if index == 0][:1]
    path.write_bytes(whole[:free] + size.to_bytes(8, "little") + whole[free + 8 :])
    seal_again(path)  # else it would not come that far
    with pytest.raises(ValueError, match="the words at byte"):
        read_netcdf(path)
    with pytest.raises(InputError, match="the words at byte"):
        open_run(folder.path)


@pytest.mark.parametrize("shape", [(10**10,), (10**6, 10**6), (2**60,)])
def test_a_variable_that_promises_more_than_the_file_can_hold_is_not_read(folder, shape):
    with changing(folder.path_of("one")) as file:
        file.create_dataset("huge", shape, "f8", chunks=True)
    with pytest.raises(ValueError, match="its variables are to have"):
        read_netcdf(folder.path_of("one"))
    with pytest.raises(InputError, match=r"one\.nc is damaged .its variables are to have"):
        folder.read("one")


@pytest.mark.parametrize("length", [5 * 10**6, 2 * 10**7])
def test_many_equal_numbers_are_not_taken_for_a_promise(folder, length):
    """Nor is a dimension, which has a length without numbers."""
    zeros = np.zeros(length, np.int8 if length > 10**7 else np.float64)
    path = folder.save("one", xr.Dataset({"zeros": ("x", zeros)}))
    assert path.stat().st_size * 300 < (4 + zeros.itemsize) * length
    assert folder.read("one")["zeros"].size == length


@pytest.mark.parametrize(("name", "value"), [("scale_factor", "x" * 100), ("units", "days since 1-1-1")])
def test_attributes_that_xarray_stumbles_over_are_damage(folder, name, value):
    with changing(folder.path_of("one")) as file:
        file["values"].attrs[name] = value
        file["number"].attrs[name] = value
    with pytest.raises(InputError, match=r"one\.nc is damaged"):
        folder.read("one")


def test_variables_are_not_filled_up_to_a_dimension_that_is_longer_than_all_of_them(folder):
    path = folder.path_of("one")
    with changing(path) as file:
        name = file["a"].attrs["NAME"]
        assert name.startswith(b"This is a netCDF dimension but not a netCDF variable")
        del file["a"]
        file.create_dataset("a", (10**8,), "f4", chunks=True)
        file["a"].make_scale()
        file["a"].attrs["NAME"] = name
    with pytest.raises(ValueError, match="its dimension '/a' is of 100000000, its variables of up to 40"):
        read_netcdf(path)


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"[" * 60_000, b'{"pid": "1\\u0000", "host": "", "born": "", "token": ""}']
)
def test_a_claim_of_any_bytes_is_one_without_an_owner(folder, text):
    path = folder.claim_path("one")
    path.write_bytes(text)
    assert claims.owner(path) is None
    assert claims.is_held(path) in (True, False)
    folder.tidy()


@pytest.mark.parametrize("text", ["[" * 60_000, json.dumps(dict.fromkeys(FIELDS, 1)), json.dumps({"error": "x"})])
def test_a_record_of_a_failure_of_any_bytes_says_that_it_is_damaged(folder, text):
    (folder.path / "failed" / "two.json").write_text(text)
    assert folder.failure("two").message == "the record of this failure is damaged"
    assert folder.failures()["two"].error == "unknown"


@pytest.mark.parametrize("name", ["gain", "number"])
def test_a_label_or_a_number_that_is_a_pair_is_refused(folder, name):
    """Found by fuzzing: a compound type comes back from the file as a tuple."""
    pair = np.zeros((), np.dtype([("a", "f4"), ("b", "f4")]))
    with changing(folder.path_of("one")) as file:
        assert name in file
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = pair
        for attribute, value in attributes.items():
            file[name].attrs[attribute] = value
    with pytest.raises(InputError, match=f"{name} must be a number or a word|must be a whole netCDF file"):
        open_run(folder.path)
