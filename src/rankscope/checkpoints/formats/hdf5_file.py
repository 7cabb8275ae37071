"""HDF5 files: of Keras, of MATLAB 7.3, and plain ones, by the library h5py.

Names are paths with dots, `layers.dense.kernel`. A file can refer to data in other files (external links, external
storage, virtual datasets); these are listed with the reason, and not followed. The size of a dataset is compared with
that of its data before memory is allocated, as compressed and missing chunks take none in the file.
"""

from __future__ import annotations

import math
import mmap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankscope.checkpoints.formats.keras_layout import Axes, Variable, is_keras, variables
from rankscope.checkpoints.formats.numpy_file import LARGEST_RATIO, SMALL_BYTES
from rankscope.checkpoints.formats.torch_archive import Window, span_of
from rankscope.checkpoints.source import Entry, Source, Unreadable
from rankscope.errors import InputError
from rankscope.extras import needs

HDF5 = b"\x89HDF\r\n\x1a\n"
MATLAB_HDF5 = b"MATLAB 7.3"
"""First bytes of the files."""

FILTERS = (1, 2, 3, 4, 5, 6, 32000)
"""Numbers of the compressions that are read, those of the HDF5 library and LZF: others are plug-ins."""

DEEPEST = 50
MOST_OBJECTS = 300_000
KERAS_WEIGHTS = "model.weights.h5"


class Hdf5File(Source):
    """The datasets of an HDF5 file, or of the one in a .keras archive."""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path
        self._opened: Any = None
        self._found: dict[str, Variable] = {}
        self.entries: dict[str, Entry] = {}
        with path.open("rb") as file:
            self._matlab = file.read(10) == MATLAB_HDF5
        try:
            self._describe(self._root())
        except InputError:
            raise
        except Exception as error:  # for damaged files the library raises nearly anything
            raise InputError(f"{path} is not a readable HDF5 file: {error!s:.300}") from error
        if not self.entries:
            raise InputError(f"{path} must hold datasets, got an HDF5 file without any")

    def tensor(self, name: str) -> Tensor:
        """Return a dataset as a tensor; kernels of Keras with more than two axes with the outputs first."""
        found = self._found[name]
        try:
            array = np.asarray(self._root()[found.path][()])
            array = array.view(np.int16) if self.entries[name].dtype == torch.bfloat16 else array
            array = array.T if self._matlab else found.axes.arranged(array)
            numbers = torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))
            return numbers.view(torch.bfloat16) if self.entries[name].dtype == torch.bfloat16 else numbers
        except Exception as error:
            raise Unreadable(f"cannot be read from {self.label}: {error!s:.300}") from error

    def release(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    def _root(self) -> Any:
        with needs("hdf5", f"{self._path}, an HDF5 file,"):
            import h5py
        if self._opened is None:
            self._opened = h5py.File(_weights(self._path), "r", locking=False)
        return self._opened

    def _describe(self, root: Any) -> None:
        datasets: dict[str, Any] = {}
        for path, value in _walk(root):
            if isinstance(value, str):
                self._add(Variable(path, path.replace("/", "."), Axes.AS_STORED), Entry((), value))
            else:
                datasets[path] = value
        shapes = {path: tuple(dataset.shape) for path, dataset in datasets.items() if dataset.shape is not None}
        known = variables(shapes) if is_keras(root) else {}
        for path, dataset in datasets.items():
            plain = Variable(path, path.replace("/", "."), Axes.AS_STORED)
            variable = known.get(path, plain)
            entry = entry_of_dataset(dataset)
            if isinstance(entry.dtype, torch.dtype):
                shape = entry.shape[::-1] if self._matlab else variable.axes.shape(entry.shape)
                entry = Entry(shape, variable.reason or entry.dtype)
            self._add(variable, entry)

    def _add(self, variable: Variable, entry: Entry) -> None:
        # A name with a dot can be that of another path.
        name = variable.path if variable.name in self.entries else variable.name
        self.entries[name], self._found[name] = entry, variable


def _weights(path: Path) -> Any:
    """Return the path of an HDF5 file, or the one in a .keras archive as a file."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return path
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    window = Window(content, 0, len(content))
    item = zipfile.ZipFile(window).getinfo(KERAS_WEIGHTS)
    if item.compress_type != zipfile.ZIP_STORED:
        raise InputError(f"{path} must hold its weights uncompressed, as Keras writes them")
    span = span_of(window, item)
    return Window(content, span.start, span.size)


def is_keras_archive(path: Path) -> bool:
    """Return whether a zip archive holds weights of Keras."""
    try:
        with zipfile.ZipFile(path) as archive:
            return KERAS_WEIGHTS in archive.namelist()
    except Exception:  # what is no archive is not told by one kind of error
        return False


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield paths and datasets, or the reason why there is none, from groups that are linked inside the file."""
    import h5py

    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    groups: set[Any] = set()
    count = 0
    while waiting:
        path, group, depth = waiting.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in groups:  # a cycle, or a second name
            continue
        groups.add(place)
        inner = []
        for name in group:
            if (count := count + 1) > MOST_OBJECTS or depth > DEEPEST:
                raise InputError(f"it has more than {MOST_OBJECTS} objects, or more than {DEEPEST} levels")
            link, full = group.get(name, getlink=True), f"{path}{name}"
            if isinstance(link, h5py.ExternalLink):
                yield full, "a link to another file, which is not followed"
            elif isinstance(link, h5py.SoftLink):
                yield full, "a soft link, which is not followed"
            elif full not in ("#refs#", "#subsystem#"):
                kind = group.get(name, getclass=True)
                if kind is h5py.Dataset:
                    yield full, group[name]
                elif kind is h5py.Group:
                    inner.append((f"{full}/", group[name], depth + 1))
        waiting += reversed(inner)


def entry_of_dataset(dataset: Any) -> Entry:
    """Return the entry of a dataset, with the reason if it is not an array of numbers in the file itself."""
    shape, dtype = dataset.shape, dataset.dtype
    if shape is None:
        return Entry((), "without values")
    shape = tuple(map(int, shape))
    if dataset.external:
        return Entry(shape, "stored in another file, which is not opened")
    if dataset.is_virtual:
        return Entry(shape, "a virtual dataset, composed of others")
    try:
        # Keras stores bfloat16 as two bytes without a type, and names the type beside.
        brief = dtype == np.dtype("V2") and dataset.attrs.get("dtype") == "bfloat16"
        kind = torch.bfloat16 if brief else torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype
    except TypeError:
        what = "references to other objects" if dtype.hasobject else f"type {dtype!s:.100}"
        return Entry(shape, f"of {what}, which are not read" if dtype.hasobject else f"of {what}, which is not read")
    plan = dataset.id.get_create_plist()
    unknown = [plan.get_filter(i)[0] for i in range(plan.get_nfilters()) if plan.get_filter(i)[0] not in FILTERS]
    if unknown:
        return Entry(shape, f"compressed with a plug-in (filter {unknown[0]}), which is not read")
    stored = dataset.id.get_storage_size()
    needed = max(math.prod(shape), math.prod(dataset.chunks or ())) * dtype.itemsize
    if needed > max(SMALL_BYTES, LARGEST_RATIO * stored):
        return Entry(shape, "of less than 1 % of its size in the file")
    return Entry(shape, kind)
