"""Files of HDF5, Keras, MATLAB, ONNX and torch.distributed: read with the same numbers, never beyond the file."""

import os
import pickle

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
import torch.distributed.checkpoint
from checkpoint_cases import Hostile

import rankscope as rs
from rankscope.checkpoints import open_checkpoint

onnx = pytest.importorskip("onnx")


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def reasons(source):
    """Return why entries cannot be read, by name."""
    return {name: entry.dtype for name, entry in source.entries.items() if isinstance(entry.dtype, str)}


# HDF5 and Keras


def test_hdf5_names_are_paths_and_arrays_are_as_stored(tmp_path):
    arrays = {"encoder/w": draw(4, 3), "encoder/conv": draw(5, 2, 3, 3).astype(np.float32), "b": draw(3).astype(">f8")}
    brief = torch.randn(3, 2, dtype=torch.bfloat16)
    with h5py.File(tmp_path / "w.hdf5", "w") as file:
        file["brief"] = brief.view(torch.int16).numpy().view("V2")
        file["brief"].attrs["dtype"] = "bfloat16"  # as Keras does
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", chunks=True)
    source = open_checkpoint(tmp_path / "w.hdf5")
    assert set(source.entries) == {"encoder.w", "encoder.conv", "b", "brief"}
    assert torch.equal(source.tensor("brief"), brief)
    for name, array in arrays.items():
        assert np.array_equal(source.tensor(name.replace("/", ".")).numpy(), array)
        assert source.entries[name.replace("/", ".")].shape == array.shape


def test_hdf5_never_leaves_its_file_and_takes_no_memory_for_nothing(tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["w"] = draw(3, 3)
    (tmp_path / "raw").write_bytes(bytes(72))
    layout = h5py.VirtualLayout((3, 3), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "w", (3, 3))
    with h5py.File(tmp_path / "evil.h5", "w") as file:
        file["good"] = draw(2, 2)
        file["link"] = h5py.ExternalLink(str(secret), "w")
        file["alias"] = h5py.SoftLink("/good")
        file.create_dataset("external", (3, 3), "f8", external=[(str(tmp_path / "raw"), 0, 72)])
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("never written", (10**6, 10**6), "f8", chunks=(10, 10))
        file.create_dataset("chunk", (2, 2), "f8", chunks=(10**4, 10**4), maxshape=(None, None), compression="gzip")
        file["objects"] = np.array([file.ref], dtype=h5py.ref_dtype)
        file["texts"] = ["a", "b"]
        group = file.create_group("group")
        group["cycle"] = file["/"]
    found = reasons(open_checkpoint(tmp_path / "evil.h5"))
    assert {name: found.pop(name) for name in list(found) if "not followed" in found[name]}.keys() == {"link", "alias"}
    assert {name: " ".join(reason.split()[:4]) for name, reason in found.items()} == {
        "external": "stored in another file,",
        "virtual": "a virtual dataset, composed",
        "never written": "of less than 1",
        "chunk": "of less than 1",
        "objects": "of references to other",
        "texts": "of references to other",
    }
    (tmp_path / "cut.h5").write_bytes(secret.read_bytes()[:1000])
    with pytest.raises(rs.InputError, match="not a readable HDF5 file"):
        open_checkpoint(tmp_path / "cut.h5")


def keras_three(path):
    """Write weights as Keras 3.15 does, with which this was compared; Keras itself is too large for the tests."""
    shapes = {
        "layers/conv2d/vars": [(3, 3, 2, 4), (4,)],
        "layers/dense/vars": [(5, 4), (4,)],
        "layers/depthwise_conv2d/vars": [(3, 3, 4, 2), (8,)],
        "layers/embedding/vars": [(7, 4)],
        "layers/gru/cell/vars": [(4, 12), (4, 12), (2, 12)],
        "layers/multi_head_attention/query_dense/vars": [(4, 2, 3), (2, 3)],
        "layers/multi_head_attention/output_dense/vars": [(2, 3, 4), (4,)],
        "layers/einsum_dense/vars": [(4, 2, 3)],
        "optimizer/vars": [(), (5, 4)],
    }
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        for group, each in shapes.items():
            for number, shape in enumerate(each):
                file[f"{group}/{number}"] = draw(*shape).astype(np.float32)


def test_keras_variables_have_their_names_and_kernels_their_matrix(tmp_path):
    keras_three(tmp_path / "before.weights.h5")
    before = open_checkpoint(tmp_path / "before.weights.h5")
    after = {
        name: before.tensor(name) * 2 for name, entry in before.entries.items() if not isinstance(entry.dtype, str)
    }
    frame = rs.compare(tmp_path / "before.weights.h5", after)
    assert set(frame.index) == {
        *("layers.conv2d.kernel", "layers.dense.kernel", "layers.depthwise_conv2d.kernel", "layers.gru.cell.kernel"),
        *("layers.gru.cell.recurrent_kernel", "layers.multi_head_attention.query_dense.kernel"),
        "layers.multi_head_attention.output_dense.kernel",
    }
    found = reasons(before)
    assert "axes are not known" in found.pop("layers.einsum_dense.kernel")
    assert set(found.values()) == {"of the optimizer"}
    kernel = np.moveaxis(draw(3, 3, 2, 4), 3, 0).reshape(4, -1)
    expected = np.linalg.svd(kernel, compute_uv=False)
    np.testing.assert_allclose(frame.loc["layers.conv2d.kernel"].singular_values, expected, rtol=1e-6)
    expected = np.linalg.svd(draw(2, 3, 4).reshape(6, 4), compute_uv=False)
    values = frame.loc["layers.multi_head_attention.output_dense.kernel"].singular_values
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_keras_archive_is_its_weights(tmp_path):
    import zipfile

    keras_three(tmp_path / "model.weights.h5")
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / f"{kind}.keras", "w", kind) as archive:
            archive.writestr("config.json", "{}")
            archive.write(tmp_path / "model.weights.h5", "model.weights.h5")
    first, second = open_checkpoint(tmp_path / "model.weights.h5"), open_checkpoint(tmp_path / "0.keras")
    assert first.entries == second.entries
    assert torch.equal(first.tensor("layers.dense.kernel"), second.tensor("layers.dense.kernel"))
    second.release()
    with pytest.raises(rs.InputError, match="uncompressed"):
        open_checkpoint(tmp_path / "8.keras")


# MATLAB


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_matrices(tmp_path, compressed):
    arrays = {"W": draw(5, 4), "J": draw(2, 3, 4).astype(np.float32), "count": np.arange(4, dtype=np.int16)[None]}
    net = {"W": draw(3, 2), "deep": {"flags": np.eye(2) > 0}, "empty": np.zeros((0, 3)), "t": "text"}
    other = {"net": net, "cells": np.array([1, "x"], dtype=object), "S": scipy.sparse.eye_array(3).tocsc()}
    scipy.io.savemat(tmp_path / "w.mat", arrays | other | {"z": np.eye(2) * 1j}, do_compression=compressed)
    source = open_checkpoint(tmp_path / "w.mat")
    arrays |= {"net.W": net["W"], "net.deep.flags": net["deep"]["flags"], "net.empty": net["empty"]}
    for name, array in arrays.items():
        assert np.array_equal(source.tensor(name).numpy(), array)
        assert (source.tensor(name).shape, source.tensor(name).dtype) == source.entries[name]
    found = {name: reason.split(", which")[0] for name, reason in reasons(source).items()}
    assert found == {"net.t": "a text", "cells": "a cell array", "S": "a sparse matrix", "z": "of complex numbers"}


def test_a_matlab_bomb_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("rankscope.checkpoints.formats.matlab_file.SMALL_BYTES", 1000)
    scipy.io.savemat(tmp_path / "w.mat", {"W": np.zeros((400, 400))}, do_compression=True)
    assert "less than 1 %" in open_checkpoint(tmp_path / "w.mat").entries["W"].dtype


def test_matlab_73_is_read_as_matlab_shows_it(tmp_path):
    with h5py.File(tmp_path / "w.mat", "w", userblock_size=512) as file:
        file["W"] = draw(5, 4).T
        file["net/W"] = draw(2, 3).T
        file["#refs#/a"] = draw(2, 2)
    with (tmp_path / "w.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    source = open_checkpoint(tmp_path / "w.mat")
    assert source.entries.keys() == {"W", "net.W"}
    assert np.array_equal(source.tensor("W").numpy(), draw(5, 4))


# ONNX


def onnx_model(path, **options):
    tensors = [onnx.numpy_helper.from_array(draw(4, 3), "double"), onnx.helper.make_tensor("b", 16, [2], [1.0, 2.0])]
    tensors.append(onnx.numpy_helper.from_array(draw(6, 5).astype(np.float32), "float"))
    tensors.append(onnx.helper.make_tensor("half", onnx.TensorProto.FLOAT16, [2, 2], [1.0, 2.0, 3.0, 4.0]))
    tensors.append(onnx.helper.make_tensor("four", onnx.TensorProto.INT4, [2, 2], [1, 2, 3, 4]))
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), str(path), **options)


@pytest.mark.parametrize("options", [{}, {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}])
def test_onnx_initializers(tmp_path, options):
    onnx_model(tmp_path / "w.onnx", **options)
    source = open_checkpoint(tmp_path / "w.onnx")
    assert np.array_equal(source.tensor("double").numpy(), draw(4, 3))
    assert np.array_equal(source.tensor("float").numpy(), draw(6, 5).astype(np.float32))
    assert source.tensor("half").tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert source.tensor("b").dtype == torch.bfloat16
    assert source.tensor("b").tolist() == [1.0, 2.0]
    assert reasons(source) == {"four": "of type INT4, which is not read"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"location": "../secret"}, "not in the folder"),
        ({"location": "/etc/passwd"}, "not in the folder"),
        ({"location": "link"}, "not a file in the folder"),
        ({"location": "gone"}, "not a file in the folder"),
        ({"offset": "999999"}, "ends before the data"),
        ({"length": "10"}, "its shape needs 120 bytes, and there are 10"),
    ],
)
def test_data_of_onnx_outside_the_folder_or_of_another_size_are_left_out(tmp_path, changes, reason):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(9999))
    (folder / "link").symlink_to(tmp_path / "secret")
    onnx_model(folder / "w.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    model = onnx.load(folder / "w.onnx", load_external_data=False)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == "float"]
    for item in tensor.external_data:
        item.value = changes.get(item.key, item.value)
    (folder / "w.onnx").write_bytes(model.SerializeToString())
    assert reason in reasons(open_checkpoint(folder / "w.onnx"))["float"]


# torch.distributed.checkpoint


@pytest.fixture
def distributed(tmp_path):
    state = {"model": {"a.weight": torch.randn(4, 3), "b": torch.ones(2)}, "ema": {"a.weight": torch.zeros(4, 3)}}
    with pytest.warns(UserWarning, match="torch.distributed"):
        torch.distributed.checkpoint.save(state | {"epoch": 3}, checkpoint_id=tmp_path / "folder", no_dist=True)
    return tmp_path / "folder", state


def test_distributed_checkpoints(distributed):
    folder, state = distributed
    for key, expected in {None: "model", "model": "model", "ema": "ema"}.items():
        source = open_checkpoint(folder, key=key)
        assert source.entries.keys() == state[expected].keys()
        assert all(torch.equal(source.tensor(name), value) for name, value in state[expected].items())


def test_a_tensor_in_several_chunks_is_put_together(distributed):
    """As several processes write it: each half of the rows is a chunk; and halves that overlap are incomplete."""
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

    folder, _ = distributed
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    (place,) = [index for index in metadata.storage_data if index.fqn == "model.a.weight"]
    info = metadata.storage_data.pop(place)
    halves = torch.randn(4, 3).split(2)
    chunks = []
    for number, half in enumerate(halves):
        torch.save(half, folder / f"__{number + 1}_0.distcp")
        size = (folder / f"__{number + 1}_0.distcp").stat().st_size
        chunks.append(ChunkStorageMetadata(torch.Size([2 * number, 0]), half.shape))
        where = MetadataIndex("model.a.weight", chunks[-1].offsets)
        metadata.storage_data[where] = type(info)(f"__{number + 1}_0.distcp", 0, size)
    metadata.state_dict_metadata["model.a.weight"].chunks = chunks
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    assert torch.equal(open_checkpoint(folder).tensor("a.weight"), torch.cat(halves))
    metadata.state_dict_metadata["model.a.weight"].chunks = chunks[:1]
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    assert "do not cover" in reasons(open_checkpoint(folder))["a.weight"]


def test_a_distributed_checkpoint_runs_nothing_and_stays_in_its_folder(distributed, tmp_path):
    folder, _ = distributed
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = f"../{folder.name}/__0_0.distcp"
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    assert "without its data" in reasons(open_checkpoint(folder))["a.weight"]
    metadata.planner_data = Hostile(tmp_path / "ran")
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(rs.InputError, match=rf"calls code \({os.name}.*nothing of it was run"):
        open_checkpoint(folder)
    assert not (tmp_path / "ran").exists()
