"""The seal of a result: any change is seen before HDF5 sees the file, and nobody else minds that it is there."""

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from rankscope.sweep.integrity import LENGTH, check_seal, read_seal, sealed
from rankscope.sweep.netcdf import encode

DATASET = xr.Dataset({"loss": ("epoch", np.linspace(1, 0, 50))}, attrs={"digest": "abc"})


@pytest.fixture(scope="module")
def content():
    return sealed(encode(DATASET), "abc")


def test_a_seal_says_whose_file_it_is_and_how_long(tmp_path, content):
    (tmp_path / "a.nc").write_bytes(content)
    seal = read_seal(tmp_path / "a.nc")
    assert (seal.digest, seal.content_length) == ("abc", len(content) - LENGTH)
    assert check_seal(tmp_path / "a.nc") == seal


def test_other_programs_read_the_file_as_ever(tmp_path, content):
    (tmp_path / "a.nc").write_bytes(content)
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "a.nc", engine="h5netcdf"), DATASET)
    with h5py.File(tmp_path / "a.nc") as file:
        assert file.attrs["digest"] == "abc"


@given(data=st.data())
def test_any_changed_byte_is_seen(tmp_path_factory, content, data):
    at = data.draw(st.integers(0, len(content) - LENGTH - 1))
    flipped = data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("sealed") / "a.nc"
    path.write_bytes(content[:at] + bytes([content[at] ^ flipped]) + content[at + 1 :])
    with pytest.raises(ValueError, match="checksum"):
        check_seal(path)


@pytest.mark.parametrize("change", [lambda c: c[:100] + c[101:], lambda c: c[:100] + b"x" + c[100:]])
def test_a_byte_more_or_less_is_seen_without_reading_all(tmp_path, content, change):
    (tmp_path / "a.nc").write_bytes(change(content))
    with pytest.raises(ValueError, match="before its seal"):
        read_seal(tmp_path / "a.nc")


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c[:-100], lambda c: c[:-40] + b"x" + c[-39:]])
def test_a_damaged_seal_is_seen(tmp_path, content, change):
    (tmp_path / "a.nc").write_bytes(change(content))
    with pytest.raises(ValueError, match="seal is damaged"):
        read_seal(tmp_path / "a.nc")


@pytest.mark.parametrize("unsealed", [b"", b"short", bytes(1000)])
def test_a_file_without_a_seal_is_no_result(tmp_path, unsealed):
    (tmp_path / "a.nc").write_bytes(unsealed)
    with pytest.raises(ValueError, match="ends without a seal"):
        read_seal(tmp_path / "a.nc")


def test_a_file_that_is_gone_is_gone(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_seal(tmp_path / "a.nc")
