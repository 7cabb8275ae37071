"""Formats beside safetensors and torch.save: read with the same numbers, or named for what they are."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint
from checkpoint_cases import Hostile, transformer

import rankscope as rs
from rankscope.checkpoints import open_checkpoint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_format_before_zip_holds_the_same_tensors(tmp_path, dtype):
    state = {name: value.to(dtype) for name, value in transformer().items()}
    torch.save({"state_dict": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    source = open_checkpoint(tmp_path / "old.pth")
    assert source.entries.keys() == state.keys()
    assert all(torch.equal(source.tensor(name), value) for name, value in state.items())


def test_code_in_the_format_before_zip_is_not_run(tmp_path):
    torch.save({"w": Hostile(tmp_path / "ran")}, tmp_path / "evil.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(rs.InputError, match=r"calls code \(posix\.mkdir\).*nothing of it was run"):
        open_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_of_numpy(tmp_path, write):
    arrays = {"w": np.random.default_rng(0).standard_normal((4, 3)), "b": np.asfortranarray(np.eye(3, 5))}
    write(tmp_path / "w.npz", **arrays, text=np.array(["a"]), objects=np.array([{}], dtype=object))
    source = open_checkpoint(tmp_path / "w.npz")
    assert all(np.array_equal(source.tensor(name).numpy(), value) for name, value in arrays.items())
    assert "is not read" in source.entries["text"].dtype
    assert "can run code" in source.entries["objects"].dtype
    np.save(tmp_path / "w.npy", arrays["w"])
    assert np.array_equal(open_checkpoint(tmp_path / "w.npy").tensor("array").numpy(), arrays["w"])


def test_arrays_of_numpy_that_are_larger_than_their_data_are_refused(tmp_path):
    content = io.BytesIO()
    np.save(content, np.zeros((3, 3)))
    (tmp_path / "large.npy").write_bytes(content.getvalue().replace(b"(3, 3)", b"(9, 9)"))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", content.getvalue() + bytes(110_000_000))
    for name, reason in {"large.npy": "larger than its data", "bomb.npz": "compressed to less than 1 %"}.items():
        with pytest.raises(rs.InputError, match=reason):
            open_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.gguf", b"GGUF\3\0\0\0", "a GGUF file"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
        ("a.mat", b"MATLAB 5.0 MAT-file" + bytes(109), "a MATLAB file"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX model"),
        ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", "git lfs pull"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.bin", b"\n<!DOCTYPE html><html>", "a web page"),
        ("a.pth", b"", "empty"),
        ("a.pt.gz", b"\x1f\x8b\x08", "unpack it first"),
        ("a.pkl", pickle.dumps({"w": 1}), "a bare pickle, which can run code"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(rs.InputError, match=what):
        open_checkpoint(tmp_path / name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_torchscript_and_distributed_checkpoints_are_named(tmp_path):
    torch.jit.script(torch.nn.Linear(4, 4)).save(str(tmp_path / "jit.pt"))
    torch.distributed.checkpoint.save({"w": torch.ones(2)}, checkpoint_id=tmp_path / "folder", no_dist=True)
    for name, remedy in {"jit.pt": r"torch\.jit\.load", "folder": "dcp_to_torch_save"}.items():
        with pytest.raises(rs.InputError, match=remedy):
            open_checkpoint(tmp_path / name)
