"""Files of tensors: any change of a file is noticed, and other readers of safetensors read them."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from rankscope.errors import InputError
from rankscope.io.tensor_file import read_file, read_header, write_tensors

TENSORS = {
    "weights": torch.arange(12.0).reshape(3, 4).T,
    "half": torch.ones(3, dtype=torch.bfloat16),
    "counts": np.arange(5),
    "scalar": np.float64(0.1),
    "empty": np.zeros((0, 3)),
    "flags": np.array([True, False]),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "file.safetensors"
    write_tensors(path, TENSORS, {"format": "test", "text": '"header_sha256":"é'})
    return path


def test_what_is_written_is_read_by_us_and_by_safetensors(path):
    file = read_file(path)
    assert file.metadata["text"] == '"header_sha256":"é'
    assert read_header(path).entries == file.entries
    with safe_open(path, framework="pt") as other:
        assert set(other.keys()) == set(TENSORS) == set(file.tensors())
        for name, values in TENSORS.items():
            assert torch.equal(other.get_tensor(name), torch.as_tensor(values))
            assert torch.equal(file.tensor(name), torch.as_tensor(values))
            assert file.tensor(name).dtype == torch.as_tensor(values).dtype
    np.testing.assert_array_equal(file.array("counts"), np.arange(5))


def test_any_changed_byte_and_any_cut_is_noticed(path):
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(InputError, match=r"has changed since it was written|is not a whole rankscope file"):
            read_file(path)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is not a whole rankscope file"):
            read_header(path)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_garbage_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a whole rankscope file"):
        read_file(path)


def forge(path, text):
    """Write a file whose header has a correct checksum, as an attacker can."""
    cleared = text.replace("CHECKSUM", "0" * 64)
    text = text.replace("CHECKSUM", hashlib.sha256(cleared.encode()).hexdigest()).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 8)


METADATA = '"__metadata__":{"header_sha256":"CHECKSUM","data_sha256":"0"}'


@pytest.mark.parametrize(
    "entries",
    [
        '"x":{"dtype":"F64","shape":[1000000000000],"data_offsets":[0,8000000000000]}',
        '"x":{"dtype":"F64","shape":[1000000000000],"data_offsets":[0,8]}',
        '"x":{"dtype":"F64","shape":[-1],"data_offsets":[0,-8]}',
        '"x":{"dtype":"F64","shape":[1.0],"data_offsets":[0,8]}',
        '"x":{"dtype":"F99","shape":[1],"data_offsets":[0,8]}',
        '"x":{"dtype":"F64","shape":[1]}',
        '"x":{"dtype":"F64","shape":[0],"data_offsets":[0,0]}',
        '"x":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"y":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}',
        '"x":' + "[" * 100_000,
        '"x":3',
    ],
)
def test_forged_headers_are_refused_before_memory_is_allocated(tmp_path, entries):
    path = tmp_path / "forged"
    forge(path, "{" + METADATA + "," + entries + "}")
    for read in (read_header, read_file):
        with pytest.raises(InputError, match="is not a whole rankscope file"):
            read(path)


def test_files_without_checksums_are_refused(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "plain", metadata={"format": "pt"})
    with pytest.raises(InputError, match="its header has no checksum"):
        read_file(tmp_path / "plain")
    with pytest.raises(InputError, match="cannot read"):
        read_file(tmp_path / "missing")


def test_what_cannot_be_stored_is_named(tmp_path):
    with pytest.raises(InputError, match="words must be numbers or booleans"):
        write_tensors(tmp_path / "file", {"words": np.array(["a"], dtype=object)}, {})
    with pytest.raises(InputError, match="z must have one of the dtypes"):
        write_tensors(tmp_path / "file", {"z": np.array([1j])}, {})
    assert list(tmp_path.iterdir()) == []
