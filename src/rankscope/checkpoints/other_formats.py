"""Recognition of files that are no checkpoint, or one in a format that is not read, by their first bytes."""

from __future__ import annotations

import re
from pathlib import Path

BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (
        rb"version https://git-lfs",
        "a pointer of Git LFS, not the file itself; run `git lfs pull` in the folder it was cloned to",
    ),
    (
        rb"GGUF",
        "a GGUF file, whose weights are mostly quantized; compare the checkpoints that it was converted from",
    ),
    (
        rb"\s*<(!doctype html|html|\?xml)",
        "a web page, not a checkpoint: the download led to an error or a login; download it again",
    ),
    (
        rb"\x89HDF\r\n\x1a\n",
        "an HDF5 file (Keras, or MATLAB 7.3), which is not read; load its arrays with h5py and pass them as a dict",
    ),
    (
        rb"MATLAB 5\.0",
        "a MATLAB file, which is not read; load it with scipy.io.loadmat and pass its arrays as a dict",
    ),
    (
        rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd",
        "a compressed file; unpack it first",
    ),
    (
        rb"\x80[\x02-\x05]",
        "a bare pickle, which can run code when it is loaded; load it where you trust it, and save its state dict "
        "with torch.save or safetensors",
    ),
)


def other_format(path: Path, begins: bytes) -> str | None:
    """Return what a file is that is no checkpoint, and what to do; None if that is not known.

    Parameters
    ----------
    begins
        The first bytes of the file, a dozen or more.
    """
    if not begins:
        return "empty: it was not written or downloaded to its end"
    for pattern, what in BEGINNINGS:
        if re.match(pattern, begins, re.I):
            return what
    if path.suffix == ".onnx":
        return (
            "an ONNX model, which is not read; pass {i.name: onnx.numpy_helper.to_array(i) for i in "
            "model.graph.initializer}"
        )
    return None


def other_folder(folder: Path) -> str | None:
    """Return what a folder is that is no checkpoint, and what to do; None if that is not known."""
    if (folder / ".metadata").is_file() and any(folder.glob("*.distcp")):
        return (
            "a distributed checkpoint of PyTorch, which is not read; convert it with "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
        )
    return None
