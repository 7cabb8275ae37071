"""The readers of sweeps: what a user writes, the run folder, and its results."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

from hypothesis import strategies as st
from rankscope.experiments.user_sweep import read_sweep
from rankscope.sweep.integrity import LENGTH, sealed

import rankscope as rs
import reader_seeds as made
from fuzz_mutations import Bundle
from rankscope.errors import InputError
from rankscope.explore.live import LiveRun, encoded, update
from rankscope.sweep import RunFolder, claims
from reader import Reader, one_file


def _read_sweep(folder: Path) -> object:
    return read_sweep(folder / "sweep.yaml")


SWEEP_KEYS = tuple(b"\n%s: " % key.encode() for key in made.SweepFile.model_fields)


def _sweep_texts() -> st.SearchStrategy[Bundle]:
    scalars = st.one_of(
        *(st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.floats(), st.text(max_size=8)),
        st.sampled_from(["flipflop", "romo", "mante", "neurogym", "tanh", "adam", "rate", "recurrent", "1e-3"]),
    )
    values = st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
        max_leaves=6,
    )
    keys = st.sampled_from([*made.SweepFile.model_fields, "duration", "dt", "name"])
    usual = st.dictionaries(keys, values, max_size=5).map(lambda d: {"task": "flipflop"} | d)
    grids = st.dictionaries(keys, st.one_of(values, st.lists(scalars, min_size=1, max_size=3)), max_size=3)
    files = st.builds(lambda d, grid: d | {"grid": grid}, usual, grids)
    # JSON is YAML; YAML written as YAML is what the mutations begin with.
    return files.map(lambda d: {"sweep.yaml": json.dumps(d).encode()})


def _run_seeds() -> list[Bundle]:
    files = made.run_folder()
    return [{name: content for name, content in files.items() if not name.startswith("cells")}]


def _read_run(folder: Path) -> object:
    run = RunFolder(folder)
    run.failures()
    names = [path.name for path in (folder / "claims").iterdir()]
    for name in names:
        claims.owner(run.claim_path(name))
        claims.is_held(run.claim_path(name))
    manifest = run.manifest()
    run.counts()
    live = LiveRun(folder)
    live.title()
    encoded(update(live.snapshot(), {}))
    digest = sorted(manifest.cells)[:1] or ["x"]
    run.prepare([(digest[0], {"task": "another"})])
    return run.manifest()


@cache
def _run_json() -> bytes:
    return made.run_folder()["run.json"]


def _cell_seeds(every: bool = False) -> list[Bundle]:
    """Return a cell with a variable or two of each kind, which is read several times as fast; or one with all."""
    files = made.run_folder()
    name = min(name for name in files if name.startswith("cells"))
    content = files[name] if every else made.fewer_variables(files[name])
    return [{name: content, "run.json": files["run.json"]}]


def _read_cell(folder: Path) -> object:
    run = RunFolder(folder)
    (digest,) = run.done()
    run.is_done(digest)
    # Whoever draws a run goes on without what cannot be read, so each is tried.
    wrong = None
    try:
        live = LiveRun(folder)
        encoded(update(live.snapshot(), {}))
        if digest in live.snapshot().networks:
            with suppress(OSError):  # which the page says in its own words
                encoded(live.detail(digest))
    except InputError as error:
        wrong = error
    try:
        run.read(digest)
    except InputError as error:
        wrong = error
    else:
        # Opening all is no other reader than reading one, and takes most of the time.
        if zlib.crc32(run.path_of(digest).read_bytes()) % 4 == 0:
            with rs.open_run(folder) as opened:
                try:
                    opened.load()
                except Exception as error:  # what is read lazily raises whatever HDF5 does
                    raise InputError(f"it was opened, and then: {error}") from error
    if wrong is not None:
        raise wrong
    return None


WORDS_OF_HDF5 = (
    *(b"OHDR", b"TREE", b"SNOD", b"HEAP", b"GCOL", b"FRHP", b"FHDB", b"BTHD", b"FADB", b"OCHK"),
    b"digest",
)


def _read_forged(folder: Path) -> object:
    """Seal the spoiled file again, as somebody might who wants HDF5 to see it."""
    (path,) = (folder / "cells").iterdir()
    path.write_bytes(sealed(path.read_bytes()[:-LENGTH], path.stem))
    return _read_cell(folder)


READERS = (
    Reader(
        "sweep",
        "a user's sweep file (YAML)",
        lambda: one_file("sweep.yaml", (made.SWEEP.encode(), made.LONGER_SWEEP.encode())),
        _read_sweep,
        (
            *SWEEP_KEYS,
            b"[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]",
            b"&a [*a, *a]",
            b"1e9",
            b"2020-01-01",
            b"? ",
            b"!!binary ",
        ),
        _sweep_texts,
    ),
    Reader(
        "run",
        "run.json, records of failures, claims",
        _run_seeds,
        _read_run,
        (
            b"digest",
            b"description",
            b"cells",
            b"labels",
            b"format",
            b"rankscope.sweep.v1",
            b"host",
            b"pid",
            b"../x",
        ),
    ),
    Reader(
        "cell",
        "a cell's netCDF file",
        _cell_seeds,
        _read_cell,
        once=lambda: _cell_seeds(every=True),
        words=WORDS_OF_HDF5,
    ),
    # HDF5 does not keep the contract for what is forged, and nothing before it can.
    Reader(
        "forged",
        "a cell's netCDF file that was spoiled and sealed again",
        _cell_seeds,
        _read_forged,
        once=lambda: _cell_seeds(every=True),
        words=WORDS_OF_HDF5,
        only_if_named=True,
    ),
)
