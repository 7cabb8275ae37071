"""Readers of checkpoints, one for each format."""

from __future__ import annotations

import io
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import scipy.io
import torch
import torch.distributed.checkpoint

import reader_seeds as made
from fuzz_mutations import Bundle
from rankscope.checkpoints import inspect, open_checkpoint
from rankscope.checkpoints.adapters import Adapter
from rankscope.checkpoints.source import Unreadable
from rankscope.errors import InputError
from reader import Reader, one_file

TENSORS = (*(name.encode() for name in made.state_dict()), b"initial.x", b"base_model.model.x.lora_A.weight")
PICKLE = (b"cos\nsystem\n", b"\x8c\x05torch\x93", b"\x94", b"K\x7f", b"J\xff\xff\xff\x7f", b"2", b"h\x00", b"}", b"(")


def _read_checkpoint(path: Path) -> object:
    source = open_checkpoint(path)
    for name in source.entries:
        with suppress(Unreadable):
            if isinstance(source, Adapter) and source.is_update(name):
                source.factors(name, expert=0 if source.experts(name) else None)
            else:
                source.tensor(name)
    source.release()
    if isinstance(source, Adapter):
        with suppress(InputError):
            inspect(made.state_dict() | {"m.a": torch.ones(3, 4, 3), "m.b": torch.ones(3, 3, 4)}, path)
    try:
        found = inspect(path)
    except InputError:
        found = inspect(made.state_dict(), path, heads=2)
    found.to_dataframe()
    return found.write_csv(path.parent / "out" / "table.csv")


def _arrays() -> dict[str, Any]:
    return {name: value.float().numpy() for name, value in made.state_dict(0.1).items()}


def _read_folder(folder: Path) -> object:
    return _read_checkpoint(next(iter(sorted(folder.glob("*.index.json"))), folder))


def _with_objects() -> dict[str, Any]:
    """Return the file of a training: objects of other classes, and two state dicts."""
    rest = {"rng": np.random.default_rng(0), "best": np.float32(1), "path": Path("x"), "names": {"a"}}
    return rest | {"state_dict": made.state_dict(0.1), "ema": made.state_dict(0.2), "net": torch.nn.Linear(3, 2)}


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def _scripted() -> bytes:
    model = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(2, 3, 2), rnn=torch.nn.Linear(4, 2)))
    return _written(lambda path: torch.jit.script(model).save(str(path)))


def _hdf5(path: Path, **options: Any) -> None:
    with h5py.File(path, "w", **options) as file:
        for name, array in _arrays().items():
            file[name.replace(".", "/")] = array
        file.create_dataset("packed", data=np.eye(9), compression="gzip", chunks=(3, 3), shuffle=True)
        file["alias"] = h5py.SoftLink("/packed")
        file["other"] = h5py.ExternalLink("other.h5", "w")
        file["texts"] = ["a", "b"]


def _keras(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        for name, shapes in {
            "dense": [(3, 4), (4,)],
            "conv2d": [(3, 3, 2, 4), (4,)],
            "gru/cell": [(2, 6), (2, 6)],
        }.items():
            for number, shape in enumerate(shapes):
                file[f"layers/{name}/vars/{number}"] = np.ones(shape, np.float32)


def _matlab(path: Path, compressed: bool) -> None:
    other = {"net": {"w": np.eye(2)}, "z": 1j * np.eye(2), "text": "text", "flags": np.eye(2) > 0}
    arrays = {name.replace(".", "_"): array for name, array in _arrays().items()}
    scipy.io.savemat(path, arrays | other, do_compression=compressed, appendmat=False)


def _onnx(**options: Any) -> Bundle:
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in _arrays().items()]
    tensors.append(onnx.helper.make_tensor("half", onnx.TensorProto.BFLOAT16, [2, 2], [1.0, 2.0, 3.0, 4.0]))
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, str(Path(folder) / "after.onnx"), **options)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _distributed() -> Bundle:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = {"model": made.state_dict(0.1), "ema": made.state_dict(0.2), "epoch": 3}
        torch.distributed.checkpoint.save(state, checkpoint_id=folder, no_dist=True)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _keras_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", _written(_keras))
    return file.getvalue()


def _read_groups(path: Path) -> object:
    with suppress(InputError):
        open_checkpoint(path, key="ema")
    with suppress(InputError):
        open_checkpoint(path, key="nte.x")
    return _read_checkpoint(path)


READERS = (
    Reader(
        "safetensors",
        "any state dict as safetensors",
        lambda: one_file("after.safetensors", (made.safetensors(0.1), next(made.network_files()))),
        lambda folder: _read_checkpoint(folder / "after.safetensors"),
        (*made.NAMES, *TENSORS),
    ),
    Reader(
        "torch",
        "any state dict by torch.save",
        lambda: one_file(
            "after.pt", map(made.torch_file, (made.state_dict(0.1), {"epoch": 3, "model": made.state_dict(0.1)}))
        ),
        lambda folder: _read_checkpoint(folder / "after.pt"),
        (*TENSORS, *PICKLE),
    ),
    Reader(
        "torch-legacy",
        "any state dict in the format before torch 1.6",
        lambda: one_file("after.pth", [made.legacy_file(made.state_dict(0.1))]),
        lambda folder: _read_checkpoint(folder / "after.pth"),
        (*TENSORS, *PICKLE),
    ),
    Reader(
        "numpy",
        "arrays of numpy, one or several",
        lambda: one_file(
            "after",
            [
                made.numpy_file(np.savez, **_arrays()),
                made.numpy_file(np.savez_compressed, **_arrays()),
                made.numpy_file(np.save, _arrays()["conv.weight"]),
            ],
        ),
        lambda folder: _read_checkpoint(folder / "after"),
        (*made.NAMES, b"descr", b"<f8", b"fortran_order", b"shape", b"(9, 9)", b"|O"),
    ),
    Reader(
        "shards",
        "a checkpoint in several files with an index",
        lambda: [made.shards(made.save, "safetensors"), made.shards(made.torch_file, "bin")],
        _read_folder,
        (*made.NAMES, *TENSORS, b"weight_map", b"model-1.bin", b"../model-1.bin", b".", b".."),
    ),
    Reader(
        "adapter",
        "the folder of a LoRA adapter",
        lambda: [
            made.adapter("safetensors", made.save, alpha_pattern={"k_proj": 8}, target_parameters=["a.b"]),
            made.adapter("bin", made.torch_file, use_rslora=True, fan_in_fan_out=True),
            *made.adapters(),
        ],
        _read_folder,
        (
            *(*made.NAMES, *TENSORS, b"peft_type", b"lora_alpha", b"alpha_pattern", b"lora_magnitude_vector"),
            *(b"(a+)+$", b".*.*", b"[", b"LOKR", b"LOHA", b"ADALORA", b"pissa", b"use_dora", b".base_layer"),
        ),
    ),
    Reader(
        "factors",
        "factors without a configuration, of kohya and diffusers",
        lambda: one_file("after.safetensors", made.factors()),
        lambda folder: _read_checkpoint(folder / "after.safetensors"),
        (b".lora_down.weight", b".lokr_w2_a", b".hada_w1_a", b".diff", b".alpha", b"unet.r", b"lora_unet_", b"text_"),
    ),
    Reader(
        "own-factors",
        "factors of matrices that PEFT cannot hold",
        lambda: [made.own_factors()],
        _read_folder,
        (*TENSORS, b"rankscope factors 1", b"[expert 1].A", b"[expert 1000000].A", b"shapes", b"[999999999, 3, 4]"),
    ),
    Reader(
        "torch-objects",
        "the file of a training by torch.save, with objects of many classes",
        lambda: one_file("after.ckpt", [made.torch_file(_with_objects()), made.legacy_file(_with_objects())]),
        lambda folder: _read_groups(folder / "after.ckpt"),
        (*TENSORS, *PICKLE, b"_parameters", b"_modules", b"_buffers", b"R", b"b", b"\x81"),
    ),
    Reader(
        "torchscript",
        "a module by torch.jit.save",
        lambda: one_file("after.pt", [_scripted()]),
        lambda folder: _read_checkpoint(folder / "after.pt"),
        (*PICKLE, b"__torch__", b"__parameters__ = [", b"class X(Module):\n", b"constants.pkl", b"byteorder", b"big"),
    ),
    Reader(
        "hdf5",
        "HDF5 files, of h5py, Keras and MATLAB 7.3",
        lambda: one_file(
            "after.h5",
            [
                _written(_hdf5),
                _written(lambda path: _hdf5(path, libver="latest")),
                _written(_keras),
                _keras_archive(),
                b"MATLAB 7.3 MAT-file".ljust(512, b"\0") + _written(lambda path: _hdf5(path, userblock_size=512))[512:],
            ],
        ),
        lambda folder: _read_checkpoint(folder / "after.h5"),
        (b"TREE", b"HEAP", b"SNOD", b"OHDR", b"OCHK", b"\x89HDF\r\n\x1a\n", b"GCOL", b"BTHD", b"FRHP"),
    ),
    Reader(
        "matlab",
        "MATLAB files of version 5",
        lambda: one_file("after.mat", [_written(lambda path, c=c: _matlab(path, c)) for c in (False, True)]),  # type: ignore[misc]
        lambda folder: _read_checkpoint(folder / "after.mat"),
        (b"MATLAB 5.0", b"IM", b"MI", b"\x0e\0\0\0", b"\x0f\0\0\0", b"\x06\0\0\0\x08\0\0\0", b"conv_weight"),
    ),
    Reader(
        "onnx",
        "ONNX models, one with its data in another file",
        lambda: [_onnx(), _onnx(save_as_external_data=True, location="data", size_threshold=0)],
        lambda folder: _read_checkpoint(folder / "after.onnx"),
        (*made.NAMES, b"location", b"offset", b"length", b"../data", b"/etc/passwd", b"data", b"*", b"B", b"\x08\x01"),
    ),
    Reader(
        "distributed",
        "checkpoints of torch.distributed",
        lambda: [_distributed()],
        _read_groups,
        (*TENSORS, *PICKLE, b"__0_0.distcp", b"../x.distcp", b"relative_path", b"chunks", b"sizes", b"planner_data"),
    ),
)
