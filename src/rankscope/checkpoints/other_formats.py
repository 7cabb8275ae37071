"""Recognition of files that are no checkpoint, or one in a format that is not read, by their first bytes."""

from __future__ import annotations

import re
from pathlib import Path

TENSORFLOW = "read one with tf.train.load_checkpoint(path), and pass {name: reader.get_tensor(name)} as a dict"
GRAPH = "load it with tf.saved_model.load(folder) and pass {v.name: v.numpy() for v in loaded.variables}"

ENDINGS = {
    r"\.(?:index|meta|data-\d{5}-of-\d{5})": f"a file of a TensorFlow checkpoint, which is not read; {TENSORFLOW}",
    r"\.pb": f"a graph of TensorFlow, which is not read; {GRAPH}",
    r"\.msgpack": "a file of Flax, which is not read; restore it with flax.serialization.msgpack_restore, and pass its "
    "arrays as a dict, {name: numpy.asarray(array)}",
    r"\.(?:joblib|pkl|pickle)": "a pickle (of joblib, perhaps), which can run code when it is loaded; load it where "
    "you trust it, and save its arrays with numpy.savez",
    r"\.(?:pt2|ep)": "a program of torch.export, which is not read; pass torch.export.load(path).state_dict",
}
"""Ends of file names, as regular expressions, for formats without a mark at their beginning."""

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
        rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd",
        "a compressed file; unpack it first",
    ),
    (
        rb".{257}ustar",
        "a tar archive (torch wrote such files before version 0.2); unpack it, or load it with that version",
    ),
    (
        rb".{4}TFL3",
        "a TensorFlow Lite model, which is not read; compare the checkpoints that it was converted from",
    ),
    (
        rb"model_checkpoint_path",
        f"the list of the checkpoints of TensorFlow in its folder, which are not read; {TENSORFLOW}",
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
        The first 512 bytes of the file.
    """
    if not begins:
        return "empty: it was not written or downloaded to its end"
    for pattern, what in BEGINNINGS:
        if re.match(pattern, begins, re.I | re.S):
            return what
    return next((what for end, what in ENDINGS.items() if re.search(end + "$", path.name, re.I)), None)


def other_folder(folder: Path) -> str | None:
    """Return what a folder is that is no checkpoint, and what to do; None if that is not known."""
    if (folder / "saved_model.pb").is_file():
        return f"a SavedModel of TensorFlow, which is not read; {GRAPH}"
    if any((folder / name).exists() for name in ("_CHECKPOINT_METADATA", "manifest.ocdbt", "_METADATA")):
        return "a checkpoint of Orbax (JAX), which is not read; restore it there and pass its arrays as a dict"
    if any(folder.glob("*.data-?????-of-?????")):
        return f"a folder of TensorFlow checkpoints, which are not read; {TENSORFLOW}"
    return None
