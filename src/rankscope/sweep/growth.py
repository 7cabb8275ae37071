"""Growth of a run: which results of a folder a sweep contains, continues to more epochs, or does not belong to.

More samples, grid points and axes leave the digests of finished jobs as they are. A job that differs from a finished
one only in its number of epochs continues from the training state that was kept with the result: weights, losses and
optimizer are those of a training in one go. Its records of the matrices are those of both trainings.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rankscope.errors import InputError
from rankscope.io.tensor_file import read_file, write_tensors
from rankscope.networks.network_file import INITIAL
from rankscope.sweep.axes import SOURCES, canonical, key_of, options_of
from rankscope.sweep.job import Job
from rankscope.sweep.result_file import NETWORK, TRAINING
from rankscope.sweep.store import RunFolder

SHARED = "shared"
"""Metadata entry with the tensors of a training state that the file of the networks holds."""
MOST_COMPARED = 300
LARGEST_SHOWN = 3
"""Differences named in a message."""


@dataclass(frozen=True)
class Growth:
    """What the results in a folder are to a sweep.

    Attributes
    ----------
    continued
        Digest of a job -> digest of the result that it continues to more epochs.
    anew
        Digest of a job -> why it is trained from the beginning although there is a result with fewer epochs.
    superseded
        Digest of a result -> digest of the job of the sweep that trains it longer.
    others
        Results that the sweep does not contain.
    """

    continued: Mapping[str, str]
    anew: Mapping[str, str]
    superseded: Mapping[str, str]
    others: Sequence[str]


def plan(store: RunFolder, jobs: Sequence[Job], add: bool = False) -> Growth:
    """Return what the results in a folder are to the jobs of a sweep.

    Parameters
    ----------
    add
        Accept results that the sweep does not contain.

    Raises
    ------
    InputError
        If there are such results and the sweep has other jobs to train, or if it has fewer epochs than its results.
    """
    wanted = {job.digest: job for job in jobs}
    done = {digest: _description(store, digest) for digest in store.done()} if store.path.is_dir() else {}
    stems: dict[str, list[str]] = {}
    for digest, job in done.items():
        if job:
            stems.setdefault(stem_of(job), []).append(digest)
    continued: dict[str, str] = {}
    anew: dict[str, str] = {}
    superseded: dict[str, str] = {}
    for digest, one in wanted.items():
        epochs = one.training.epochs
        if digest in done or epochs is None:
            continue
        alike = stems.get(stem_of(one.description), [])
        longer = [other for other in alike if _epochs(done[other]) > epochs and other not in wanted]
        if longer:
            raise InputError(
                f"epochs must be >= {_epochs(done[longer[0]])}, to which networks of this sweep in {store.path} are "
                f"trained, got {epochs}; choose another folder"
            )
        shorter = sorted((other for other in alike if _epochs(done[other]) < epochs), key=lambda x: _epochs(done[x]))
        superseded |= {other: digest for other in shorter if other not in wanted}
        if shorter:
            reached, every = _epochs(done[shorter[-1]]), one.training.validation_every
            if not store.training_path(shorter[-1]).exists():
                anew[digest] = "the result with fewer epochs holds no training state (keep_weights=False)"
            elif reached % every:  # its last epoch was validated
                anew[digest] = f"the result with {reached} epochs ends between two validations, every {every} epochs"
            else:
                continued[digest] = shorter[-1]
    others = [digest for digest in done if digest not in wanted and digest not in superseded]
    known = set(done) | set(_listed(store))
    new = [job for digest, job in wanted.items() if digest not in known]
    if others and new and not add:
        raise _another(store, done, others, new)
    return Growth(continued, anew, superseded, others)


def stem_of(job: Mapping[str, Any]) -> str:
    """Return a digest of all that determines a job but its number of epochs."""
    training = {name: value for name, value in job["training"].items() if name != "epochs"}
    text = json.dumps(canonical({**job, "training": training, "measurements": None}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def keep_state(state: str | os.PathLike[str], folder: Path) -> None:
    """Store the state file of a finished training in the folder of its job, without what the networks' file holds."""
    tensors, metadata = _contents(Path(state))
    kept = read_file(folder / NETWORK).tensors()
    twins = {name: _twin(name) for name in tensors}
    shared = {name: twin for name, twin in twins.items() if twin in kept and _equal(kept[twin], tensors[name])}
    rest = {name: tensor for name, tensor in tensors.items() if name not in shared}
    write_tensors(folder / TRAINING, rest, {**metadata, SHARED: json.dumps(shared)})


def begin_from(store: RunFolder, digest: str, state: Path) -> None:
    """Write the training state that was kept with a result to a state file.

    Raises
    ------
    InputError
        If a file is missing or damaged.
    """
    tensors, metadata = _contents(store.training_path(digest))
    kept = read_file(store.network_path(digest)).tensors()
    try:
        shared = json.loads(metadata.pop(SHARED))
        tensors |= {name: kept[found] for name, found in shared.items()}
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{store.training_path(digest)} must hold a training state, got {error!r:.100}") from error
    write_tensors(state, tensors, metadata)


def _contents(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    file = read_file(path)
    return file.tensors(), dict(file.metadata)


def _twin(name: str) -> str:
    """Return the name that a tensor of a training state has in the file of the networks, if it is there."""
    section, _, rest = name.partition(".")
    return {"network": rest, "initial": INITIAL + rest}.get(section, "")


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def _description(store: RunFolder, digest: str) -> dict[str, Any]:
    """Return the description of the job of a result; empty if it is damaged."""
    try:
        job = json.loads(store.result(digest).metadata["job"])
        stem_of(job)
    except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return dict(job)


def _listed(store: RunFolder) -> Sequence[str]:
    try:
        return list(store.manifest().jobs)
    except InputError:
        return []


def _epochs(job: Mapping[str, Any]) -> int:
    epochs = options_of(job)["training", "epochs"]
    return epochs if isinstance(epochs, int) else 0


def _another(
    store: RunFolder, done: Mapping[str, Mapping[str, Any]], others: Sequence[str], new: Sequence[Job]
) -> InputError:
    """Return the error of a folder with the results of another sweep: how they differ, and what can be done."""
    theirs = _flat(done[others[0]])
    ours = min((_flat(job.description) for job in new[:MOST_COMPARED]), key=lambda one: len(_differing(theirs, one)))
    differing = _differing(theirs, ours)
    named = [f"{name} = {theirs.get(name)!r:.60} there, {ours.get(name)!r:.60} here" for name in differing]
    changed = [name for name in differing if name.rpartition(".")[2] in SOURCES]
    if changed:
        section = changed[0].partition(".")[0]
        what = theirs.get(f"{section}.name", theirs.get(f"{section}.kind", theirs.get(f"{section}.file")))
        named = [f"{'the data' if changed[0].endswith('content') else 'the source'} of {what} has changed"]
    how = "; ".join(named[:LARGEST_SHOWN]) or "their seeds differ"
    return InputError(
        f"{store.path} must hold results of this sweep only, got {len(others)} of another one: {how}. Choose another "
        "folder, keep the finished values in the grid (they are not trained again), or add to the folder (--add, "
        "add=True)"
    )


def _flat(job: Mapping[str, Any]) -> dict[str, Any]:
    options = {f"{section}.{name}": value for (section, name), value in options_of(job).items()} if job else {}
    return options | {f"labels.{name}": value for name, value in job.get("labels", {}).items()}


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in {**one, **other} if key_of(one.get(name)) != key_of(other.get(name))]
