"""The weights of every network of a run for other programs: one .npz a network, and a table of labels."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import numpy as np

from rankscope.errors import InputError
from rankscope.io.atomic import make_folder, replacing
from rankscope.networks.protocol import computed_matrices, effective_state
from rankscope.sweep.results import description_of, labels_of, read_results
from rankscope.sweep.store import RunFolder

INDEX = "networks.csv"


def export_weights(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[Path]:
    """Write the weights of every network of a run.

    Parameters
    ----------
    folder
        Folder of a run.
    out
        Folder, empty or missing, for one .npz a network, named by the labels that vary, and networks.csv, a row a
        file. The arrays "before.NAME" and "after.NAME" are the effective weights before and after training, among
        them the matrices that a module of your own computes.

    Returns
    -------
    The paths of the files.

    Raises
    ------
    InputError
        If the folder holds no finished job, the networks were not kept, a file is damaged, or `out` holds files.
    """
    store, target = RunFolder(folder), Path(out)
    results, unreadable = read_results(folder)
    for digest, reason in unreadable.items():
        raise InputError(f"job {digest} must have an undamaged result: {reason}")
    if not results:
        raise store.without_results()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"out must be an empty folder for --weights, got {str(target)!r}")
    make_folder(target)
    described = [labels_of(result) for result in results]
    vary = [name for name in described[0] if name != "seed" and len({str(one.get(name)) for one in described}) > 1]
    rows: list[dict[str, object]] = []
    paths: list[Path] = []
    for result, labels in zip(results, described, strict=True):
        digest = result.metadata["digest"]
        before, after = store.networks(digest)
        names = description_of(result).get("training", {}).get("matrices")
        arrays = {
            f"{when}.{name}": tensor.detach().cpu().numpy()
            for when, network in (("before", before), ("after", after))
            for name, tensor in {**effective_state(network), **computed_matrices(network, names)}.items()
        }
        named = "_".join(f"{name}={labels.get(name)}" for name in vary)
        path = target / f"{re.sub(r'[^A-Za-z0-9=._+-]', '-', named) or digest}.npz"
        path = path if path not in paths else target / f"{digest}.npz"
        with replacing(path) as temporary, Path(temporary).open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        paths.append(path)
        rows.append({"file": path.name, "digest": digest, **labels})
    with replacing(target / INDEX) as temporary, Path(temporary).open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return [target / INDEX, *paths]
