"""Readers of sweep files, run folders and results."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

import rankscope as rs
import reader_seeds as made
from fuzz_mutations import Bundle
from rankscope.errors import InputError
from rankscope.explore.live import LiveRun, encoded, update
from rankscope.sweep import Job, RunFolder, Sweep, locks
from reader import Reader, one_file


def _read_sweep(folder: Path) -> object:
    return Sweep.from_yaml(folder / "sweep.yaml").jobs()


KEYS = (
    "task",
    "network",
    "training",
    "measurements",
    "seed",
    "labels",
    "grid",
    "samples",
    "gain",
    "epochs",
    "optimizer",
)
SWEEP_KEYS = tuple(b"\n%s: " % key.encode() for key in KEYS)


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
    keys = st.sampled_from([*KEYS, "duration", "dt", "name"])
    usual = st.dictionaries(keys, values, max_size=5).map(lambda d: {"task": "flipflop"} | d)
    grids = st.dictionaries(keys, st.one_of(values, st.lists(scalars, min_size=1, max_size=3)), max_size=3)
    files = st.builds(lambda d, grid: d | {"grid": grid}, usual, grids)
    # JSON is YAML; YAML written as YAML is what the mutations begin with.
    return files.map(lambda d: {"sweep.yaml": json.dumps(d).encode()})


def _run_seeds() -> list[Bundle]:
    files = made.run_folder()
    return [{name: content for name, content in files.items() if not name.startswith("jobs")}]


def _read_run(folder: Path) -> object:
    run = RunFolder(folder)
    run.failures()
    names = [path.name for path in (folder / "locks").iterdir()]
    for name in names:
        locks.owner(run.lock_path(name))
        locks.is_held(run.lock_path(name))
    manifest = run.manifest()
    run.counts()
    live = LiveRun(folder)
    live.title()
    encoded(update(live.snapshot(), {}))
    for described in list(manifest.jobs.values())[:2]:
        with suppress(InputError):
            Job.from_json(json.dumps(described))
    run.prepare([Job(task="flipflop")])
    return run.manifest()


@cache
def _run_json() -> bytes:
    return made.run_folder()["run.json"]


MEASUREMENTS = "measurements.safetensors"


def _result_seeds(every: bool = False) -> list[Bundle]:
    """Return a result with a variable or two of each kind, which is read several times as fast; or one with all."""
    files = made.run_folder()
    name = min(name for name in files if name.endswith(MEASUREMENTS))
    content = files[name] if every else made.fewer_variables(files[name])
    return [{name: content, "run.json": files["run.json"]}]


def _read_result(folder: Path) -> object:
    run = RunFolder(folder)
    (digest,) = run.done()
    run.is_done(digest)
    # Different readers fail differently, so each is tried.
    wrong = None
    live = LiveRun(folder)
    try:
        encoded(update(live.snapshot(), {}))
        if digest in live.snapshot().networks:
            with suppress(OSError):  # an error of the page
                encoded(live.detail(digest))
        rs.open_run(folder).load()
    except InputError as error:
        wrong = error
    try:
        run.result(digest).load()
    except InputError as error:
        wrong = error
    if wrong is not None:
        raise wrong
    return None


def _read_forged(folder: Path) -> object:
    """Compute the checksums of the spoiled file again, as an attacker would."""
    (path,) = (folder / "jobs").glob(f"*/{MEASUREMENTS}")
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    if length <= len(content) - 8:
        text, data = bytes(content[8 : 8 + length]), bytes(content[8 + length :])
        for name, checked in ((b"data_sha256", data), (b"header_sha256", None)):
            at = text.find(b'"' + name + b'":"') + len(name) + 4
            if at > len(name) + 3:
                text = text[:at] + b"0" * 64 + text[at + 64 :] if checked is None else text
                digest = hashlib.sha256(text if checked is None else checked).hexdigest().encode()
                text = text[:at] + digest + text[at + 64 :]
        path.write_bytes(bytes(content[:8]) + text + data)
    return _read_result(folder)


WORDS = (
    b"data_offsets",
    b"dtype",
    b"shape",
    b"F64",
    b"BF16",
    b"__metadata__",
    b"structure",
    b"values",
    b"digest",
    b"dims",
)


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
        "run.json, records of failures, locks",
        _run_seeds,
        _read_run,
        (
            b"digest",
            b"description",
            b"jobs",
            b"labels",
            b"format",
            b"rankscope.run.2",
            b"host",
            b"pid",
            b"../x",
        ),
    ),
    Reader(
        "result",
        "measurements of a job",
        _result_seeds,
        _read_result,
        once=lambda: _result_seeds(every=True),
        words=WORDS,
    ),
    Reader(
        "forged",
        "measurements of a job, spoiled and with new checksums",
        _result_seeds,
        _read_forged,
        once=lambda: _result_seeds(every=True),
        words=WORDS,
    ),
)
