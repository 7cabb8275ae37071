"""Comparison of two checkpoints, matrix by matrix: norm, ranks and singular values of each change.

One pair of tensors is read at a time. A tensor that cannot be compared (another shape, values that are not finite, a
type that cannot be read) is listed with the reason, and does not stop the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, as_completed
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

from rankscope.checkpoints.attention import head_options, is_head
from rankscope.checkpoints.comparison import Comparison
from rankscope.checkpoints.measuring import Measured, Opening, Options, measure_matrix, processes, submit_all
from rankscope.checkpoints.names import Renaming
from rankscope.checkpoints.opening import CheckpointLike
from rankscope.checkpoints.pairs import Names, Pair, select
from rankscope.errors import InputError
from rankscope.training.cuda import find_device
from rankscope.validation import integer

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int, str], None]


def compare(
    before: CheckpointLike,
    after: CheckpointLike | None = None,
    *,
    gates: bool = True,
    heads: int | Literal["auto"] | None = None,
    kv_heads: int | None = None,
    layers: Iterable[str] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    rename: Mapping[str, str] | None = None,
    exact: bool = False,
    intruders: bool = False,
    workers: int = 1,
    executor: Executor | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Return the change of each weight matrix of a model between two checkpoints, one row each.

    Parameters
    ----------
    before, after
        State dicts, modules or paths, as in `open_checkpoint`. `after` may be a LoRA adapter's folder; it may be left
        out where `before` is such a folder, or a file of ours that holds both networks.
    gates
        Also measure the gates of recurrent weights one by one.
    heads
        Number of attention heads, to measure them one by one too; "auto" takes it from the `config.json` of
        transformers beside one of the files, or from the configuration of a module.
    kv_heads
        Number of heads of keys and values, if it is not that of the configuration or of the queries.
    layers
        Keys of weights, or patterns such as ``"*.q_proj.weight"``; by default all matrices. An embedding is measured
        only if its key is here.
    key
        Name of the state dict in a file that holds several, such as "state_dict_ema" or "actor", with dots for one
        inside another. It applies to each of the two that has it.
    prefix
        Text that is removed where a name begins with it, in both checkpoints, before names are matched.
    rename
        Texts and their replacements, anywhere in the names of both, before they are matched: ``{"h.": "layers."}``.
    exact
        Compute all singular values of large matrices too; a matrix of 8192 x 8192 takes minutes.
    intruders
        Also count the intruder dimensions of each matrix: leading singular vectors of W that none of W0 resembles. It
        takes a decomposition of W0.
    workers
        Number of processes that measure matrices, with one thread each, if more than 1; both checkpoints must be
        paths then.
    executor
        Measures the matrices instead, for example that of a Dask cluster (``client.get_executor()``), whose workers
        read the same paths.
    device
        "cpu" or "cuda", where the decompositions are computed.

    Returns
    -------
    pandas.DataFrame
        Columns as in `ComparedMatrix` and `Measures`, indexed by name. `attrs["skipped"]` lists skipped tensors and
        the reasons; `attrs["note"]` says how names were matched, if they differ.

    Raises
    ------
    InputError
        If one of the two is no checkpoint, they have no names in common, a layer or the device is unknown, or other
        processes cannot open the checkpoints.
    """
    return inspect(
        before,
        after,
        gates=gates,
        heads=heads,
        kv_heads=kv_heads,
        layers=layers,
        key=key,
        prefix=prefix,
        rename=rename,
        exact=exact,
        intruders=intruders,
        workers=workers,
        executor=executor,
        device=device,
    ).to_dataframe()


def inspect(
    before: CheckpointLike,
    after: CheckpointLike | None = None,
    *,
    gates: bool = True,
    heads: int | Literal["auto"] | None = None,
    kv_heads: int | None = None,
    layers: Iterable[str] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    rename: Mapping[str, str] | None = None,
    exact: bool = False,
    intruders: bool = False,
    workers: int = 1,
    executor: Executor | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> Comparison:
    """Return what `compare` returns, as plain objects; `on_progress` gets (done, total, name) as tensors are done."""
    integer("workers", workers, minimum=1)
    place = str(find_device(device))
    Renaming.of(prefix, rename)
    opening = Opening(before, after, prefix, tuple((rename or {}).items()), key)
    elsewhere = executor is not None or workers > 1
    for name, given in (("before", before), ("after", after)):
        if elsewhere and not isinstance(given, (str, os.PathLike, type(None))):
            raise InputError(f"{name} must be a path to be read by other processes, got {type(given).__name__}")
    pair = opening.open()
    options = Options(gates, head_options(heads, kv_heads, (pair.after, pair.before)), exact, place, intruders)
    work, skipped, note = select(pair, layers)
    if elsewhere:
        pair.release()
        with nullcontext(executor) if executor is not None else processes(min(workers, max(1, len(work)))) as pool:
            measured = _measure_elsewhere(pool, opening, work, options, on_progress)
    else:
        measured = list(_measure_here(pair, work, options, on_progress))
        pair.release()
    matrices = [matrix for one in measured for matrix in one.matrices]
    skipped += [left_out for one in measured for left_out in one.skipped]
    found = any(is_head(one.block) for one in matrices) or any(one.name.endswith("[heads]") for one in skipped)
    if heads is not None and not found:
        none = "heads were asked for, but no changed weight has a name of attention that is known"
        note = none if note is None else f"{note}; {none}"
    return Comparison(tuple(matrices), tuple(skipped), note)


def _measure_here(pair: Pair, work: list[Names], options: Options, on_progress: Progress | None) -> Iterator[Measured]:
    for done, names in enumerate(work):
        if on_progress is not None:
            on_progress(done, len(work), names.label)
        yield measure_matrix(pair, names, options)


def _measure_elsewhere(
    executor: Executor, opening: Opening, work: list[Names], options: Options, on_progress: Progress | None
) -> list[Measured]:
    futures = submit_all(executor, opening, work, options)
    labels = {future: names.label for future, names in zip(futures, work, strict=True)}
    for done, future in enumerate(as_completed(futures)):
        if on_progress is not None:
            on_progress(done + 1, len(work), labels[future])
    return [future.result() for future in futures]
