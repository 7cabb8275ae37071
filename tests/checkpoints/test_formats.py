"""Formats beside safetensors and torch.save: read with the same numbers, or named for what they are."""

import argparse
import collections
import enum
import io
import pathlib
import pickle
import random
import time
import zipfile

import numpy as np
import pytest
import torch
from checkpoint_cases import Hostile, transformer, write_shards

import rankscope as rs
from rankscope.checkpoints import open_checkpoint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_format_before_zip_holds_the_same_tensors(tmp_path, dtype):
    state = {name: value.to(dtype) for name, value in transformer().items()}
    torch.save({"state_dict": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    source = open_checkpoint(tmp_path / "old.pth")
    assert source.entries.keys() == state.keys()
    assert all(torch.equal(source.tensor(name), value) for name, value in state.items())


class Level(enum.Enum):
    HIGH = 1


class Options(dict):
    pass


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = torch.nn.LSTM(3, 4)
        self.out = self.tied = torch.nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("passing", torch.ones(2), persistent=False)


def training():
    """Return what trainings keep beside the weights, of many classes."""
    return {
        "args": argparse.Namespace(
            lr=0.1, level=Level.HIGH, path=pathlib.PurePosixPath("/x"), device=torch.device("cpu")
        ),
        "hyper_parameters": Options(units=4),
        "rng": (random.getstate(), np.random.RandomState(0), np.random.default_rng(0), torch.get_rng_state()),
        "best": np.float32(0.5),
        "history": np.ones(3),
        "seen": {1, frozenset([2])},
        "curves": collections.defaultdict(list, loss=[0.1]),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3, 3)}}},
    }


@pytest.mark.parametrize("protocol", [2, 3, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_beside_objects_of_any_class_are_read(tmp_path, zipped, protocol):
    whole = torch.randn(5, 6, dtype=torch.float64)
    state = {"w": torch.nn.Parameter(whole[1:4, ::2]), "t": whole.t(), "byte": whole.to(torch.float8_e4m3fn)}
    state |= {"empty": torch.zeros(0, 3), "number": torch.tensor(2), "flags": torch.tensor([True, False])}
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    torch.save(training() | {"state_dict": Options(state)}, tmp_path / "last.ckpt", **options)
    source = open_checkpoint(tmp_path / "last.ckpt")
    assert {name: tuple(entry) for name, entry in source.entries.items()} == {
        name: (tuple(value.shape), value.dtype) for name, value in state.items()
    }
    assert all(torch.equal(source.tensor(name), value) for name, value in state.items())
    net = Net()
    torch.save(training() | {"model": net}, tmp_path / "whole.pt", **options)
    source = open_checkpoint(tmp_path / "whole.pt")
    assert source.entries.keys() == net.state_dict().keys()
    assert all(torch.equal(source.tensor(name), value) for name, value in net.state_dict().items())


class Marked(torch.Tensor):
    pass


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_are_not_plain_numbers_are_left_out_with_the_reason(tmp_path):
    state = {
        "class": torch.ones(2, 2).as_subclass(Marked),
        "sparse": torch.eye(2).to_sparse(),
        "meta": torch.ones(2, 2, device="meta"),
        "quantized": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
        "negative": torch._neg_view(torch.ones(2, 2)),
        "larger": torch.ones(1).expand(4, 4),
        "object": argparse.Namespace(inner=torch.ones(2, 2)),
        "packed": (torch.ones(2, 2), None),
    }
    torch.save(state, tmp_path / "w.pt")
    entries = open_checkpoint(tmp_path / "w.pt").entries
    assert {name: entry.dtype.split(";")[0].split(",")[0] for name, entry in entries.items()} == {
        "class": "of the class test_formats.Marked",
        "sparse": "sparse",
        "meta": "without values (on the meta device)",
        "quantized": "quantized by torch",
        "negative": "a conjugate or negative that was never computed",
        "larger": "larger than the storage it refers to",
        "object": "an object of the class argparse.Namespace",
        "packed": "a tuple",
    }


def pickled(*instructions):
    """Return a file of torch.save whose pickle has these instructions."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x04" + b"".join(instructions) + b".")
    return file.getvalue()


@pytest.mark.parametrize(
    "called",
    [
        b"cbuiltins\neval\n(S'1'\ntR",
        b"\x8c\x08builtins\x8c\x07getattr\x93)R",
        b"\x8c\x0asubprocess\x8c\x05Popen\x93)\x81",
        b"(S'x'\nios\nsystem\n",
        b"(crunpy\nrun_path\nS'x'\no",
        b"csocket\nsocket\n",
        b"cimportlib\nimport_module\n",
    ],
)
def test_imports_that_run_code_are_refused_however_they_are_written(tmp_path, called):
    (tmp_path / "w.pt").write_bytes(pickled(b"}\x8c\x01w", called, b"s"))
    with pytest.raises(rs.InputError, match=r"calls code .*nothing of it was run"):
        open_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "instructions",
    [
        b"Nr\xff\xff\xff\x7f}",  # a place in the memo beyond 2^31
        b")" + 60 * b"2\x86" + b"}\x8c\x01w",  # nested pairs, whose hash takes 2^60 steps
        b"}" + b"".join(b"K\x01\x8a\x11" + (k * (2**61 - 1)).to_bytes(17, "little") + b"1" for k in range(1, 20_000)),
        b"}\x94" + 40 * b"h\x00q\x01}(X\x01\0\0\0ah\x01X\x01\0\0\0bh\x01uq\x00",  # each holds the one before twice
        100_000 * b"]" + 99_999 * b"a",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    ],
)
def test_a_hostile_pickle_takes_neither_time_nor_memory(tmp_path, instructions):
    (tmp_path / "w.pt").write_bytes(pickled(instructions))
    began = time.process_time()
    with pytest.raises(rs.InputError, match=r"w\.pt"):
        open_checkpoint(tmp_path / "w.pt")
    assert time.process_time() - began < 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_holds_its_state_dict(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)])
            self.layers[1].weight = self.layers[0].weight
            self.register_buffer("scale", torch.ones(2))
            self.other = torch.ones(2)

        def forward(self, x):
            return self.layers[0](x) * self.scale[0] + self.other[0]

    torch.jit.script(Tied()).save(str(tmp_path / "jit.pt"))
    expected = torch.jit.load(str(tmp_path / "jit.pt")).state_dict()
    source = open_checkpoint(tmp_path / "jit.pt")
    assert source.entries.keys() == expected.keys()
    assert all(torch.equal(source.tensor(name), value) for name, value in expected.items())
    torch.jit.freeze(torch.jit.script(Tied().eval())).save(str(tmp_path / "frozen.pt"))
    with pytest.raises(rs.InputError, match=r"before torch\.jit\.freeze"):
        open_checkpoint(tmp_path / "frozen.pt")


def test_a_group_is_taken_by_its_name(tmp_path):
    def group(number):
        return {"w.weight": torch.full((2, 2), float(number))}

    nets = {"a.b": group(3), "c": group(4)}
    content = {"state_dict": group(1), "model_ema": {"decay": 1, "module": group(2)}, "nets": nets}
    torch.save(content, tmp_path / "w.pt")
    for key, number in {None: 1, "state_dict": 1, "model_ema": 2, "nets.a.b": 3, "nets.c": 4}.items():
        assert open_checkpoint(tmp_path / "w.pt", key=key).tensor("w.weight")[0, 0] == number
    with pytest.raises(rs.InputError, match=r"did you mean 'model_ema'.*w\.pt"):
        open_checkpoint(tmp_path / "w.pt", key="model_emma")
    with pytest.raises(rs.InputError, match=r"several groups of tensors, 'nets.a.b', 'nets.c'.*--key"):
        open_checkpoint(tmp_path / "w.pt", key="nets")
    plain = tmp_path / "w.npz"
    np.savez(plain, **{"w.weight": np.zeros((2, 2))})
    assert rs.compare(plain, tmp_path / "w.pt", key="nets.c").norm.item() == pytest.approx(8)
    assert rs.compare(tmp_path / "w.pt", {"x": group(7)}, key="x").norm.item() == pytest.approx(12)
    with pytest.raises(rs.InputError, match=r"did you mean 'model_ema'"):
        rs.compare(plain, tmp_path / "w.pt", key="model_ma")
    for given in (write_shards(tmp_path, group(1) | {"b": torch.ones(2)}), torch.nn.Linear(2, 2)):
        with pytest.raises(rs.InputError, match="key must be left out"):
            open_checkpoint(given, key="ema")
    with pytest.raises(rs.InputError, match="key must be left out"):
        rs.compare(plain, group(3), key="ema")


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


def test_the_directory_of_an_archive_is_read_once_for_all_arrays(tmp_path, monkeypatch):
    np.savez(tmp_path / "w.npz", **{f"w{i}": np.eye(2) for i in range(20)})
    source = open_checkpoint(tmp_path / "w.npz")
    opened = []
    monkeypatch.setattr(zipfile, "ZipFile", lambda *given, new=zipfile.ZipFile: opened.append(1) or new(*given))
    assert all(source.tensor(name).trace() == 2 for name in source.entries)
    source.release()
    assert len(opened) == 1


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
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "not a readable HDF5 file"),
        ("a.mat", b"MATLAB 5.0 MAT-file" + bytes(119), "not a readable MATLAB file"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "without any"),
        ("a.onnx", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.tar", bytes(257) + b"ustar\0", "a tar archive"),
        ("a.tflite", b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
        ("model.ckpt.index", b"\0\0\0\0", "a file of a TensorFlow checkpoint"),
        ("checkpoint", b"model_checkpoint_path: 'x'", "the list of the checkpoints of TensorFlow"),
        ("flax_model.msgpack", b"\x81\xa1w\x01", "a file of Flax"),
        ("a.joblib", b"\x78\x9c", "of joblib"),
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


def test_folders_of_other_libraries_are_named(tmp_path):
    for name, what in {
        "saved_model.pb": "a SavedModel",
        "_METADATA": "Orbax",
        "m.data-00000-of-00001": "TensorFlow",
    }.items():
        folder = tmp_path / what
        folder.mkdir()
        (folder / name).write_bytes(b"x")
        with pytest.raises(rs.InputError, match=what):
            open_checkpoint(folder)
