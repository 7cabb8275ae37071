"""Initializers of ONNX models, by the library onnx. The graph is not run.

The data of a large model are in other files, whose names are in the model. As it may come from an untrusted source,
they must be in its folder, and sizes are compared with the data before memory is allocated.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankscope.checkpoints.source import Entry, Source, Unreadable, in_order
from rankscope.errors import InputError
from rankscope.extras import needs

DTYPES = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    "FLOAT16": torch.float16,
    "BFLOAT16": torch.bfloat16,
    "FLOAT8E4M3FN": torch.float8_e4m3fn,
    "FLOAT8E5M2": torch.float8_e5m2,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "BOOL": torch.bool,
}


class OnnxFile(Source):
    """The initializers of an ONNX model."""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._folder = path.parent
        with needs("onnx", f"{path}, an ONNX model,"):
            import onnx
        try:
            graph = onnx.load(str(path), load_external_data=False).graph
            self._names = onnx.TensorProto.DataType.Name
            self._external = onnx.TensorProto.EXTERNAL
            self._found = {_text(tensor.name): tensor for tensor in graph.initializer}
            self._sparse = [_text(tensor.values.name) for tensor in graph.sparse_initializer]
        except Exception as error:  # the library does not document what it raises for a damaged file
            raise InputError(f"{path} is not a readable ONNX model: {error!s:.300}") from error
        if len(self._found) < len(graph.initializer):
            raise InputError(f"{path} must name each initializer differently")
        self.entries = {name: self._entry(self._found[name]) for name in in_order(self._found)}
        self.entries |= {name: Entry((), "sparse, not a plain tensor") for name in self._sparse}
        if not self.entries:
            raise InputError(f"{path} must hold initializers, got an ONNX model without any")

    def tensor(self, name: str) -> Tensor:
        """Return an initializer."""
        import onnx

        entry = self.entries[name]
        try:
            if isinstance(entry.dtype, str):
                raise ValueError(entry.dtype)
            found = self._found[name]
            if found.data_location == self._external:
                path, offset, size = self._place(found)
                with path.open("rb") as file:
                    file.seek(offset)
                    data = bytearray(file.read(size))
            elif found.raw_data:
                data = bytearray(found.raw_data)
            else:
                array = onnx.numpy_helper.to_array(found)
                data = bytearray(array.tobytes())
            if len(data) != math.prod(entry.shape) * entry.dtype.itemsize:
                raise ValueError(f"it has {len(data)} bytes, which do not fit its shape {entry.shape}")
            if not data:
                return torch.empty(entry.shape, dtype=entry.dtype)
            return torch.frombuffer(data, dtype=entry.dtype).reshape(entry.shape)
        except Exception as error:
            raise Unreadable(f"cannot be read from {self.label}: {error!s:.300}") from error

    def _entry(self, tensor: Any) -> Entry:
        """Return shape and type, or the reason why an initializer cannot be read."""
        shape = tuple(tensor.dims)
        try:
            name = self._names(tensor.data_type)
        except ValueError:
            name = str(tensor.data_type)
        dtype = DTYPES.get(name)
        if dtype is None:
            return Entry(shape, f"of type {name}, which is not read")
        if any(size < 0 for size in shape) or len(shape) > 64:
            return Entry((), "of a shape that is not possible")
        needed = math.prod(shape) * dtype.itemsize
        if tensor.data_location == self._external:
            try:
                _, _, there = self._place(tensor)
            except (ValueError, OSError) as error:
                return Entry(shape, f"in another file: {error!s:.200}")
        elif tensor.raw_data:
            there = len(tensor.raw_data)
        else:
            numbers = (tensor.float_data, tensor.double_data, tensor.int32_data, tensor.int64_data, tensor.uint64_data)
            there = dtype.itemsize * max(map(len, numbers))
        if there != needed:
            return Entry(shape, f"damaged: its shape needs {needed} bytes, and there are {there}")
        return Entry(shape, dtype)

    def _place(self, tensor: Any) -> tuple[Path, int, int]:
        """Return the file with the data of an initializer, the offset and the number of bytes in it.

        Raises
        ------
        ValueError, OSError
            If it is not a file in the folder of the model, or is too short.
        """
        given = {_text(item.key): _text(item.value) for item in tensor.external_data}
        location = given.get("location", "")
        plain = location.removeprefix("./")
        if not plain or Path(plain).name != plain or "\\" in plain or "\0" in plain or plain == "..":
            raise ValueError(f"{location[:100]!r} is not in the folder of the model")
        path = self._folder / plain
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"{location[:100]!r} is not a file in the folder of the model")
        offset = int(given.get("offset", "0")[:20])
        size = int(given.get("length", str(path.stat().st_size - offset))[:20])
        if offset < 0 or size < 0 or offset + size > path.stat().st_size:
            raise ValueError(f"{location[:100]!r} ends before the data")
        return path, offset, size


def _text(given: str | bytes) -> str:
    """Return a text of a model, which is bytes if it is not valid UTF-8."""
    return given if isinstance(given, str) else given.decode("utf-8", "backslashreplace")
