"""Arrays of recorded trials in files: npz, npy, MATLAB, CSV, HDF5 and NWB. No pickles are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.extras import needs
from rankscope.validation import choice

Array = NDArray[Any]
Names = str | Sequence[str]
CHUNK = 2**24
CACHED = 2
"""Files whose arrays are kept in memory, as all jobs of a sweep read the same."""


def content_of(file: str, names: Sequence[str] = ()) -> str:
    """Return twelve hexadecimal digits of the SHA-256 of a file; of a folder, those of its arrays called `names`.

    Raises
    ------
    InputError
        If there is no such file.
    """
    path = _existing(file)
    paths = [path] if path.is_file() else [_npy(path, name) for name in names]
    return _hash(tuple(_stamp(one) for one in paths))


def read_arrays(
    file: str, inputs: Names, targets: Names, mask: Names | None, axes: tuple[str, ...], trial: str
) -> tuple[Array, Array, Array, Array | None]:
    """Return inputs, targets and mask, (trial, time, channel), and the lengths of the trials if they differ.

    Parameters
    ----------
    file, inputs, targets, mask, axes, trial
        As in `Recorded`.

    Raises
    ------
    InputError
        If an array is missing or is not of numbers, or shapes do not fit together.
    """
    path = _existing(file)
    if path.suffix == ".csv":
        u, z, m = _from_columns(path, inputs, targets, mask, trial)
    else:
        read = _reader(path)
        u = _ordered("inputs", _joined(read, inputs, axes), axes)
        z = _ordered("targets", _joined(read, targets, axes), axes)
        m = None if mask is None else _joined(read, mask, axes)
    if u.shape[:2] != z.shape[:2]:
        raise InputError(
            f"targets of {file} must have the trials and times of its inputs, {u.shape[:2]}, got {z.shape[:2]}; `axes` "
            f"is the order of the axes in the file, {list(axes)}"
        )
    finite = np.isfinite(z)
    weights = finite.astype(np.float32) if m is None else _mask(file, m, z, axes)
    # Shorter trials are padded with NaN by those who recorded them.
    inside: Any = ~np.isnan(u).all(axis=2)
    lengths = u.shape[1] - np.argmax(inside[:, ::-1], axis=1)
    if not inside.any(axis=1).all():
        empty = int(np.argmin(inside.any(axis=1)))
        raise InputError(f"inputs of {file} must have numbers in every trial, got none in trial {empty}")
    beyond = np.arange(u.shape[1]) >= lengths[:, None]
    u[beyond], weights[beyond] = 0, 0
    z = np.where(weights == 0, 0, z)
    return u, z, weights, lengths if beyond.any() else None


def _existing(file: str) -> Path:
    path = Path(file).expanduser()
    if not path.exists():
        raise InputError(f"file must be a file of recorded trials, got {file!r}, which does not exist")
    return path


def _stamp(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.resolve()), stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=64)
def _hash(stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in stamps:
        with Path(name).open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:12]


def _reader(path: Path) -> Callable[[str], Array]:
    """Return a function that returns an array of a file by its name."""
    if path.is_dir():
        return lambda name: np.load(_npy(path, name), allow_pickle=False)
    kinds: dict[str, Callable[[Path], dict[str, Any]]] = {
        ".npz": _npz,
        ".mat": _mat,
        ".h5": _hdf5,
        ".hdf5": _hdf5,
        ".nwb": _hdf5,
    }
    if path.suffix == ".npy":
        raise InputError(
            f"file must hold several arrays, got {path}; name its folder, and its files as inputs, targets"
        )
    kind = choice("type of a file of recorded trials", path.suffix, [*kinds, ".csv"])
    try:
        arrays = _arrays(kinds[kind], _stamp(path))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"file must be a readable {kind} file, got {path}: {error!s:.200}") from error
    return lambda name: np.asarray(arrays[choice(f"array of {path.name}", name.lstrip("/"), arrays)])


@lru_cache(maxsize=CACHED)
def _arrays(read: Callable[[Path], dict[str, Any]], stamp: tuple[str, int, int]) -> dict[str, Any]:
    return read(Path(stamp[0]))


def _npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        found = loadmat(path)
    except NotImplementedError:  # MATLAB 7.3 writes HDF5, with the axes reversed
        return {name: np.transpose(array) for name, array in _hdf5(path).items()}
    return {name: array for name, array in found.items() if not name.startswith("__")}


def _hdf5(path: Path) -> dict[str, Any]:
    with needs("hdf5", f"{path.name}, an HDF5 file,"):
        import h5py
    found: dict[str, Any] = {}

    def collect(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset) and entry.dtype.kind in "iufb" and entry.ndim:
            found[name] = entry[()]

    with h5py.File(path, "r") as file:
        file.visititems(collect)
    return found


def _npy(folder: Path, name: str) -> Path:
    known = sorted(path.stem for path in folder.glob("*.npy"))
    return folder / f"{choice(f'array in {folder}', name.removesuffix('.npy'), known)}.npy"


def _joined(read: Callable[[str], Array], names: Names, axes: tuple[str, ...]) -> Array:
    """Return one array, or several joined along their channels."""
    if isinstance(names, str):
        return read(names)
    arrays = [read(name) for name in names]
    channel = axes.index("channel")
    return np.concatenate([np.expand_dims(a, channel) if a.ndim == 2 else a for a in arrays], axis=channel)


def _ordered(what: str, array: Array, axes: tuple[str, ...]) -> Array:
    """Return an array as (trial, time, channel) in float32."""
    if array.dtype.kind not in "iufb":
        raise InputError(f"{what} must hold numbers, got an array of {array.dtype}")
    if array.ndim == 2:
        array = np.expand_dims(array, axes.index("channel"))
    if array.ndim != 3 or 0 in array.shape:
        hint = "; repeat what belongs to a whole trial over time, and let the mask choose the steps that count"
        raise InputError(
            f"{what} must have the axes {', '.join(axes)}, of which the channel may be missing, got shape {array.shape}"
            f"{hint if array.ndim == 1 else ''}"
        )
    order = [axes.index(name) for name in ("trial", "time", "channel")]
    return np.array(np.transpose(array, order), dtype=np.float32)


def _mask(file: str, mask: Array, targets: Array, axes: tuple[str, ...]) -> Array:
    """Return a mask with the shape of the targets; it may lack trials, and have one channel."""
    found = np.asarray(mask, dtype=np.float32)[None, :, None] if mask.ndim == 1 else _ordered("mask", mask, axes)
    try:
        wide = np.array(np.broadcast_to(found, targets.shape))
    except ValueError as error:
        raise InputError(
            f"mask of {file} must have the shape of the targets, {targets.shape}, or (trial, time), or (time,), got "
            f"{mask.shape}"
        ) from error
    if not (np.isfinite(wide) & (wide >= 0)).all():
        raise InputError(f"mask of {file} must hold weights >= 0, got {wide.min():g}")
    return wide


def _from_columns(
    path: Path, inputs: Names, targets: Names, mask: Names | None, trial: str
) -> tuple[Array, Array, Array | None]:
    """Return the arrays of a table with one row for each trial and step, padded with NaN."""
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"file must be a readable table, got {path}: {error!s:.200}") from error
    choice(f"column of {path.name}", trial, table.columns)
    groups = [rows for _, rows in table.groupby(trial, sort=True)]
    longest = max(map(len, groups))

    def padded(names: Names) -> Array:
        columns = [choice(f"column of {path.name}", n, table.columns) for n in _listed(names)]
        array = np.full((len(groups), longest, len(columns)), np.nan, dtype=np.float32)
        for number, rows in enumerate(groups):
            try:
                array[number, : len(rows)] = rows[columns].to_numpy(dtype=np.float32)
            except ValueError as error:
                raise InputError(f"columns {columns} of {path.name} must hold numbers, got {error!s:.100}") from error
        return array

    return padded(inputs), padded(targets), None if mask is None else np.nan_to_num(padded(mask))


def _listed(names: Names) -> Iterable[str]:
    return (names,) if isinstance(names, str) else names
