"""Tensors in the pickles of `torch.save` and TorchScript: shape, type and place of the data, which stay in the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rankscope.checkpoints.formats.pickles import Calls, Imported, Made, as_key
from rankscope.checkpoints.source import Entry

STORAGES: Mapping[str, torch.dtype] = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}
MOST_DIMENSIONS = 64
PLAIN = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
"""Classes of tensors whose numbers are the stored ones."""


class Storage(NamedTuple):
    """Numbers in a file: their key there, type, count, and where they begin in the data of the key, in numbers."""

    key: str
    dtype: torch.dtype | str  # a text is the reason why they cannot be read
    numel: int
    start: int = 0


class Stored(NamedTuple):
    """A tensor in a file; `entry.dtype` is a text if it cannot be read, and `storage` is None then."""

    entry: Entry
    storage: Storage | None = None
    offset: int = 0
    stride: tuple[int, ...] = ()


class Span(NamedTuple):
    """A range of bytes in a file."""

    start: int
    size: int


def storage_of(identity: Any) -> Storage:
    """Return the storage that a persistent id names: ("storage", type, key, device, count[, view])."""
    _, kind, key, device, count, *view = identity
    if not isinstance(kind, Imported) or not isinstance(key, str) or type(count) is not int:
        raise TypeError("an id of data has another form")
    name = kind.name.rsplit(".", 1)[-1].removesuffix("Storage")
    dtype = STORAGES.get(name, f"of {kind.name.rsplit('.', 1)[-1][:100]}, which is not read")
    if device == "meta":
        dtype = "without values (on the meta device)"
    if view and view[0] is not None:
        _, start, count = view[0]
        return Storage(key, dtype, whole(count), whole(start))
    return Storage(key, dtype, whole(count))


def whole(number: Any) -> int:
    """Return a count that a file gives, or raise."""
    if type(number) is not int or not 0 <= number < 2**62:
        raise ValueError(f"{number!r:.30} is no count")
    return number


def shape_of(sizes: Any) -> tuple[int, ...]:
    """Return a shape that a file gives, or raise."""
    if not isinstance(sizes, (tuple, list)) or len(sizes) > MOST_DIMENSIONS:
        raise ValueError("a shape has another form")
    return tuple(map(whole, sizes))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Stored:
    """Describe a tensor of a typed storage; `more` is requires_grad, hooks and bits of a lazy conjugate or negative."""
    return _strided(storage, offset, size, stride, storage.dtype, more[2] if len(more) > 2 else None)


def _tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, kind: Any, *more: Any) -> Stored:
    return _strided(storage, offset, size, stride, dtype_of(kind), more[0] if more else None)


def _strided(storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | str, bits: Any) -> Stored:
    shape, steps, offset = shape_of(size), shape_of(stride), whole(offset)
    if len(shape) != len(steps):
        raise ValueError("a shape and its strides differ in length")
    available = storage.numel
    if isinstance(dtype, torch.dtype) and isinstance(storage.dtype, torch.dtype):
        available = storage.numel * storage.dtype.itemsize // dtype.itemsize
        if bits:
            dtype = "a conjugate or negative that was never computed"
        elif math.prod(shape) > available or (0 not in shape and offset + _extent(shape, steps) > available):
            # With strides of zero, a file of a few bytes can have any shape.
            dtype = "larger than the storage it refers to"
    if isinstance(storage.dtype, str):
        dtype = storage.dtype
    if isinstance(dtype, str):
        return Stored(Entry(shape, dtype))
    return Stored(Entry(shape, dtype), storage, offset, steps)


def _extent(shape: tuple[int, ...], steps: tuple[int, ...]) -> int:
    return 1 + sum((count - 1) * step for count, step in zip(shape, steps, strict=True))


def dtype_of(kind: Any) -> torch.dtype | str:
    """Return the type that a name such as `torch.float8_e4m3fn` stands for."""
    name = kind.name if isinstance(kind, Imported) else ""
    found = getattr(torch, name.removeprefix("torch."), None) if name.removeprefix("torch.").isidentifier() else None
    return found if isinstance(found, torch.dtype) else f"of type {name[:100]}, which is not read"


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _sparse(*_: Any) -> Stored:
    return Stored(Entry((), "sparse, not a plain tensor"))


def _quantized(storage: Any, offset: Any, size: Any, *_: Any) -> Stored:
    return Stored(Entry(shape_of(size), "quantized by torch; dequantize() it before it is saved"))


def _meta(dtype: Any, size: Any, *_: Any) -> Stored:
    return Stored(Entry(shape_of(size), "without values (on the meta device)"))


def _of_class(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """Describe a tensor of a subclass, whose numbers may mean something else."""
    made = CALLS[function.name](*arguments) if isinstance(function, Imported) and function.name in CALLS else None
    name = kind.name if isinstance(kind, Imported) else "unknown"
    if isinstance(made, Stored) and (name in PLAIN or isinstance(made.entry.dtype, str)):
        return made
    shape = made.entry.shape if isinstance(made, Stored) else ()
    return Stored(Entry(shape, f"of the class {name[:100]}; save it as a plain tensor"))


def _wrapper(kind: Any, dtype: Any, size: Any, *_: Any) -> Stored:
    name = kind.name if isinstance(kind, Imported) else "unknown"
    return Stored(Entry(shape_of(size), f"of the class {name[:100]}; save it as a plain tensor"))


def _device_tensor(data: Any, dtype: Any, *_: Any) -> Any:
    same = isinstance(data, Stored) and data.entry.dtype == dtype_of(dtype)
    return data if same else Stored(Entry((), "of another device; save it on the CPU"))


def _dictionary(*given: Any) -> dict[Any, Any]:
    """Return an OrderedDict or Counter, which Python 2 stored as a list of pairs."""
    pairs = given[0].items() if given and isinstance(given[0], dict) else given[0] if given else ()
    return {as_key(key): value for key, value in pairs}


def _default_dictionary(*_: Any) -> dict[Any, Any]:
    return {}


def _size(given: Any = ()) -> tuple[Any, ...]:
    return tuple(given)


def _instance(kind: Any, base: Any, state: Any) -> Made:
    """Return an instance in pickles of protocol 0 and 1; `state` is the list or dictionary that it extends."""
    made = Made(kind.name, ())
    made.pairs = state if isinstance(state, dict) else None
    return made


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes in pickles of protocol 2."""
    return str(text).encode("latin1" if encoding == "latin1" else "utf-8")


def _tagged(value: Any, *_: Any) -> Any:
    """Return a list or dictionary that TorchScript stores with its type."""
    return value


CALLS: Calls = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_sparse_csr_tensor": _sparse,
    "torch._utils._rebuild_nested_tensor": _sparse,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_wrapper_subclass": _wrapper,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _device_tensor,
    "torch._utils._rebuild_device_tensor_from_numpy": _device_tensor,
    "torch._tensor._rebuild_from_type": _of_class,
    "torch._tensor._rebuild_from_type_v2": _of_class,
    "torch.Size": _size,
    "torch.jit._pickle.restore_type_tag": _tagged,
    "torch.jit._pickle.build_tensorlist": _tagged,
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _dictionary,
    "collections.defaultdict": _default_dictionary,
    "builtins.dict": _dictionary,
    "__builtin__.dict": _dictionary,
    "copyreg._reconstructor": _instance,
    "copy_reg._reconstructor": _instance,
    "_codecs.encode": _encoded,
}


def placed(stored: Stored, spans: Mapping[str, Span]) -> Entry:
    """Return the entry of a tensor, with the reason if its data is not whole in the file."""
    storage = stored.storage
    if storage is None:
        return stored.entry
    span = spans.get(storage.key)
    if span is None:
        return Entry(stored.entry.shape, "without its data in the file")
    assert isinstance(storage.dtype, torch.dtype)
    if (storage.start + storage.numel) * storage.dtype.itemsize > span.size:
        return Entry(stored.entry.shape, "larger than its data in the file")
    return stored.entry


def view(file: Tensor, stored: Stored, spans: Mapping[str, Span], swapped: bool) -> Tensor:
    """Return a tensor as a view into the bytes of its file, after `placed` has found it whole.

    It is a copy where the other byte order, or an address that is no multiple of the size of a number, needs one.
    """
    storage, (shape, dtype) = stored.storage, stored.entry
    assert storage is not None
    assert isinstance(dtype, torch.dtype)
    assert isinstance(storage.dtype, torch.dtype)
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    begin = spans[storage.key].start + storage.start * storage.dtype.itemsize + stored.offset * dtype.itemsize
    data = file[begin : begin + _extent(shape, stored.stride) * dtype.itemsize]
    if swapped or begin % dtype.itemsize:
        data = data.clone()
    if swapped:
        data.untyped_storage().byteswap(dtype)  # type: ignore[no-untyped-call]
    numbers = data.view(dtype)
    return numbers.as_strided(shape, stored.stride, numbers.storage_offset())
