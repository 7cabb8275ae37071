"""Networks of a run by their labels, or by any option of their jobs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from rankscope.errors import InputError
from rankscope.io.dataset_file import StoredDataset
from rankscope.sweep.axes import NONE, options_of
from rankscope.sweep.results import description_of, in_order, labels_of, read_results
from rankscope.sweep.store import RunFolder
from rankscope.validation import choice


def digest_of(folder: str | os.PathLike[str], labels: Mapping[str, Any]) -> str:
    """Return the digest of the one finished job with these labels; arguments and errors as in `load_networks`."""
    store = RunFolder(folder)
    results, unreadable = read_results(folder)
    if not results and not unreadable:
        raise store.without_results()
    options = {result.metadata["digest"]: _selectable(result) for result in results}
    known = dict.fromkeys(name for result in results for name in labels_of(result)) | {"digest": None}
    others = {name for one in options.values() for name in one}
    for name in labels:
        if name not in others:
            choice("label", name, known)
    found = [result for result in results if _fits(options[result.metadata["digest"]], labels)]
    if len(found) != 1:
        vary = sorted(name for name in known if len({str(labels_of(result).get(name)) for result in found}) > 1)
        hint = f"; they differ in {', '.join(vary)}" if found else f", of {len(results)}{_nearest(results, labels)}"
        raise InputError(f"labels must select one network, got {labels}, which fits {len(found)}{hint}")
    return str(found[0].metadata["digest"])


def load_networks(
    folder: str | os.PathLike[str], epoch: int | None = None, **labels: Any
) -> tuple[nn.Module, nn.Module]:
    """Return one network of a run, before and after training.

    Parameters
    ----------
    folder
        Folder of a run.
    epoch
        Return the network after this number of epochs instead of the trained one; one of `kept_epochs` of its training.
    labels
        Values of labels that select one network, for example gain=0.9, sample=0; or digest="...".

    Raises
    ------
    InputError
        If the folder holds no finished job, the labels fit no network or several, the networks were not kept, no copy
        was kept after this epoch, or a file is damaged.
    """
    return RunFolder(folder).networks(digest_of(folder, labels), epoch)


def _selectable(result: StoredDataset) -> dict[str, Any]:
    """Return the labels and the digest of a result, and the options of its job by path and by name."""
    options = options_of(description_of(result))
    by_name = {name: value for (_, name), value in options.items()}
    by_path = {f"{section}.{name}": value for (section, name), value in options.items()}
    return by_name | by_path | labels_of(result) | {"digest": result.metadata["digest"]}


def _fits(own: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    wanted = {name: NONE if value is None else value for name, value in labels.items()}
    return all(name in own and (NONE if own[name] is None else own[name]) == value for name, value in wanted.items())


def _nearest(results: Sequence[StoredDataset], labels: Mapping[str, Any]) -> str:
    """Return which values the first label has that no network has."""
    for name, value in labels.items():
        values = {labels_of(result).get(name) for result in results} - {None}
        if values and value not in values:
            return f"; {name} is {', '.join(map(str, in_order(values)))}"
    return ""
