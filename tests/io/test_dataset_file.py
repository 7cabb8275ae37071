"""Datasets in files: what is written is read, and forged content is refused."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from rankscope.errors import InputError
from rankscope.io.dataset_file import open_dataset, write_dataset
from rankscope.io.tensor_file import write_tensors

DATASET = xr.Dataset(
    {
        "matrix": (("row", "column"), np.arange(6.0).reshape(2, 3), {"long_name": "matrix", "range": [0.0, 5.0]}),
        "small": ("row", np.array([1.5, np.nan], dtype=np.float32)),
        "flags": ("row", np.array([True, False])),
        "words": (("row", "letter"), np.array([["a", "é"], ["", "b"]], dtype=object)),
        "empty": ("nothing", np.zeros(0)),
        "nan": np.nan,
        "infinite": -np.inf,
        "single": np.float32(0.1),
        "whole": 3,
        "flag": True,
        "word": "x",
    },
    {"column": [1, 2, 4], "gain": 0.9, "kind": "rate"},
    {"version": "1", "epochs": np.int64(3), "list": np.array([1, 2])},
)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "dataset.safetensors"
    write_dataset(path, DATASET, {"digest": "abc"})
    stored = open_dataset(path, verify=True)
    assert stored.metadata["digest"] == "abc"
    assert stored.load().drop_attrs().identical(DATASET.drop_attrs())
    assert stored.load().attrs == {"version": "1", "epochs": 3, "list": [1, 2]}
    for name, variable in DATASET.variables.items():
        assert stored.variables[name].dims == variable.dims
        assert stored.variables[name].shape == variable.shape
        if variable.dtype.kind not in "OU":
            assert stored.load()[name].dtype == variable.dtype
    assert stored.values["gain"] == 0.9
    np.testing.assert_array_equal(stored.array("matrix"), DATASET["matrix"])


@given(st.lists(st.integers(-(2**40), 2**40), max_size=30) | st.builds(range, st.integers(0, 9), st.integers(0, 50)))
def test_coordinates_are_in_the_header(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("coordinates") / "dataset.safetensors"
    write_dataset(path, xr.Dataset(coords={"rank": np.array(numbers, dtype=np.int64)}), {})
    stored = open_dataset(path)
    np.testing.assert_array_equal(stored.variables["rank"].coordinate, list(numbers))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (xr.Dataset({"x": ("y", np.array([1j]))}), "x must have one of the dtypes"),
        (xr.Dataset({"x": np.datetime64("2020-01-01", "ns")}), "x must be of one of the types"),
        (xr.Dataset({"x": ("y", np.array([{}, "a"], dtype=object))}), "x must hold numbers or text"),
        (xr.Dataset(attrs={"x": object()}), "attrs must be text, finite numbers or lists"),
        (xr.Dataset({"x": ("y", [1.0], {"range": np.nan})}), "attrs of x must be text"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path, dataset, message):
    with pytest.raises(InputError, match=message):
        write_dataset(tmp_path / "x", dataset, {})
    assert list(tmp_path.iterdir()) == []


X = {"dims": ["y"], "dtype": "float64", "shape": [3], "attrs": {}}
WORDS = {"dims": ["y"], "dtype": "str", "shape": [1], "attrs": {}}
WHOLE = {"dims": [], "dtype": "int64", "shape": [], "attrs": {}}


def metadata(values=None, coordinates=(), **variables):
    structure = {"coordinates": list(coordinates), "variables": variables}
    return {"structure": json.dumps(structure), "values": json.dumps({"attrs": {}, "values": values or {}})}


FORGED = {
    "nothing": {},
    "no JSON": metadata(x=X) | {"structure": "{"},
    "deep": metadata(x=X) | {"values": "[" * 100_000},
    "a list": metadata(x=X) | {"structure": "[]"},
    "unknown coordinate": metadata(x=X, coordinates=["z"]),
    "attributes": metadata(x=X) | {"values": '{"attrs": 3, "values": {}}'},
    "attributes of a variable": metadata(x=X | {"attrs": []}),
    "no tensor": metadata(z=X),
    "a huge coordinate": metadata(y=X | {"dtype": "int64", "runs": [[0, 1, 10**15]]}),
    "a short coordinate": metadata(y=X | {"dtype": "int64", "runs": [[0, 1, 2]]}),
    "no runs": metadata(y=X | {"dtype": "int64", "runs": [3]}),
    "another shape": metadata(x=X | {"shape": [10**15]}),
    "another type": metadata(x=X | {"dtype": "int64"}),
    "too few dimensions": metadata(x=X | {"dims": []}),
    "a dimension twice": metadata(x=X | {"dims": ["y", "y"], "shape": [3, 3]}),
    "a number as dimension": metadata(x=X | {"dims": [3]}),
    "many words": metadata(w=WORDS | {"shape": [10**15]}, values={"w": []}),
    "a negative shape": metadata(w=WORDS | {"shape": [-1]}, values={"w": []}),
    "numbers as words": metadata(w=WORDS, values={"w": [3]}),
    "a pair as scalar": metadata(w=WHOLE, values={"w": [1, 2]}),
    "a number as word": metadata(w=WHOLE | {"dtype": "str"}, values={"w": 1}),
    "a word as number": metadata(w=WHOLE | {"dtype": "float64"}, values={"w": "x"}),
    "a missing value": metadata(w=WHOLE),
    "an unknown type": metadata(w=WHOLE | {"dtype": "object"}, values={"w": 1}),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_forged_content_is_refused(tmp_path, forged):
    """Checksums are no protection from somebody who computes them."""
    write_tensors(tmp_path / "forged", {"x": np.arange(3.0)}, forged)
    with pytest.raises(InputError, match="must hold a stored Dataset"):
        open_dataset(tmp_path / "forged")


def test_variables_that_do_not_fit_together_are_refused(tmp_path):
    tensors = {"x": np.arange(3.0), "z": np.arange(4.0)}
    write_tensors(tmp_path / "forged", tensors, metadata(x=X, z=X | {"shape": [4]}))
    with pytest.raises(InputError, match="do not fit together"):
        open_dataset(tmp_path / "forged").load()
