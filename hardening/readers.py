"""Every reader of files that rankscope has: runs, networks, requests to the explorer, checkpoints, sentences."""

from __future__ import annotations

import asyncio
import json
import tempfile
import urllib.parse
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hypothesis import strategies as st

import rankscope as rs
import reader_seeds as made
import readers_checkpoints
import readers_sentiment
from fuzz_mutations import Bundle
from rankscope.errors import InputError
from rankscope.explore.live import LiveRun, encoded, update
from rankscope.explore.server import application
from rankscope.networks import load_networks
from rankscope.networks.gated import GatedRNN
from rankscope.report.collect import collect
from rankscope.report.provenance import open_folder
from rankscope.report.write import render
from rankscope.sweep import Job, RunFolder, Sweep, locks
from rankscope.training import TrainingConfig
from reader import Reader, one_file

PATHS = ("network.gain", "training.learning_rate", "task.duration", "network.kind", "task.dt")
OPTIONS = (*Job.model_fields, *TrainingConfig.model_fields, *PATHS, "grid", "samples", "hidden_size", "gain", "kind",
           "duration", "name")  # fmt: skip


# Runs


def _sweep_texts() -> st.SearchStrategy[Bundle]:
    scalars = st.one_of(
        *(st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.floats(), st.text(max_size=8)),
        st.sampled_from(["flipflop", "romo", "mante", "tanh", "adam", "rate", "gru", "recurrent", "StepLR", "1e-3"]),
    )
    values = st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
        max_leaves=6,
    )
    keys = st.sampled_from(OPTIONS)
    sections = st.dictionaries(
        st.sampled_from(["network", "training", "labels"]), st.dictionaries(keys, values, max_size=3)
    )
    usual = st.dictionaries(keys, values, max_size=4).map(lambda d: {"task": "flipflop"} | d)
    grids = st.dictionaries(keys, st.one_of(values, st.lists(scalars, min_size=1, max_size=3)), max_size=3)
    files = st.builds(lambda one, other, grid: one | other | {"grid": grid}, usual, sections, grids)
    # JSON is YAML; the mutations begin with files in YAML's own style.
    return files.map(lambda d: {"sweep.yaml": json.dumps(d).encode()})


def _run_seeds() -> list[Bundle]:
    return [{name: content for name, content in made.run_folder().items() if not name.startswith("jobs")}]


def _read_run(folder: Path) -> object:
    run = RunFolder(folder)
    run.failures()
    for path in (folder / "locks").iterdir():
        locks.owner(path)
        locks.is_held(path)
    for described in run.manifest().jobs.values():
        with suppress(InputError):
            Job.from_json(json.dumps(described))
    run.counts()
    live = LiveRun(folder)
    live.title()
    encoded(update(live.snapshot(), {}))
    with suppress(InputError):  # no job is finished
        open_folder(folder)
    run.prepare([Job(task="flipflop")])
    return run.manifest()


def _job_seeds() -> list[Bundle]:
    return [{name: content for name, content in made.run_folder().items() if name.startswith(("jobs", "run.json"))}]


def _read_jobs(folder: Path) -> None:
    """Read the results of jobs in every way, each whether or not the others are refused."""
    run = RunFolder(folder)
    digests = run.done()
    ways: list[Callable[[], object]] = [
        lambda: rs.open_run(folder).load(),
        lambda: rs.open_run(folder, in_memory=True),
        lambda: _report(folder),
        lambda: _read_live(folder),
    ]
    for digest in digests:
        run.damage(digest, thorough=True)
        ways += [
            lambda digest=digest: [_use(one) for one in rs.load_networks(folder, digest=digest)],  # type: ignore[misc]
            lambda digest=digest: Job.from_json(run.result(digest).metadata["job"]),  # type: ignore[misc]
        ]
    refused = None
    for way in ways:
        try:
            way()
        except InputError as error:
            refused = error
    if refused is not None:
        raise refused


def _report(folder: Path) -> None:
    content = collect(*open_folder(folder))
    if zlib.crc32(repr(content).encode()) % 8 == 0:  # writing the page takes most of the time
        render(content)


def _read_live(folder: Path) -> None:
    live = LiveRun(folder)
    snapshot = live.snapshot()
    encoded(update(snapshot, {}))
    for digest in snapshot.networks:
        with suppress(OSError):  # the server turns it into a message
            encoded(live.detail(digest))


# Networks


def _use(network: Any) -> None:
    if isinstance(network, dict):
        return
    weights = next(network.parameters())
    size = network.rnn.input_size if isinstance(network, GatedRNN) else weights.shape[1]
    network(torch.ones(1, 3, size, dtype=weights.dtype))


def _read_network(folder: Path) -> None:
    path = folder / "network.safetensors"
    before, after = load_networks(path)
    for network in (after,) if before is None else (before, after):
        _use(network)
    for kind in (rs.RateRNN, GatedRNN):
        with suppress(InputError):
            kind.load(path, initial=True)


def _read_training(folder: Path) -> object:
    path = next(folder.iterdir())
    return made.train_rate(path, 4) if path.stem == "rate" else made.train_classifier(path, 2)


def _training_seeds() -> list[Bundle]:
    rate = made.written(lambda path: made.train_rate(path, 3), "rate.safetensors")
    finite = made.written(lambda path: made.train_classifier(path, 1), "finite.safetensors")
    return [{"rate.safetensors": rate}, {"finite.safetensors": finite}]


# Requests

TOKEN, HOST = "token", "127.0.0.1:8000"
ADDRESSES = (
    *("/token/", "/token/static/charts.js", "/token/static/explore.js", "/token/api/curves?gain=0.6&target=2"),
    *("/token/api/networks?gain=x&target=2&units=64", "/token/run", "/token/api/run", "/token/api/run/jobs/DIGEST"),
    *("/token/api/run/jobs/%2e%2e%2frun.json", "/token/static/..%2f..%2fserver.py", "/other/"),
)


@cache
def _application() -> Any:
    """Return the server of a run folder, and the digest of a job in it."""
    folder = Path(tempfile.mkdtemp(prefix="rankscope-fuzz-run-"))
    for name, content in made.run_folder().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    # Training beside the page is a separate process, which reads no files.
    with mock.patch("rankscope.explore.server.Networks"):
        return application(TOKEN, [HOST], LiveRun(folder)), RunFolder(folder).done()[0]


def _request_seeds() -> list[Bundle]:
    _, digest = _application()
    requests = (f"GET {address.replace('DIGEST', digest)}\nhost: {HOST}\n" for address in ADDRESSES)
    return one_file("request", (request.encode() for request in requests))


def _read_request(folder: Path) -> None:
    """Pass a request to the application as uvicorn does: method, path and query, then headers, a line each."""
    app, _ = _application()
    first, *rest = (folder / "request").read_bytes().split(b"\n")
    method, _, address = first.partition(b" ")
    path, _, query = address.partition(b"?")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in rest)]
    plain = urllib.parse.unquote(path.decode("ascii", "replace"))
    scope = {
        **{"type": "http", "http_version": "1.1", "scheme": "http", "root_path": "", "state": {}},
        **{"method": method.decode("latin-1"), "path": plain, "raw_path": path, "query_string": query},
        **{"headers": headers, "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1)},
    }
    statuses: list[int] = []
    bodies: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}  # ends event streams

    async def send(sent: dict[str, Any]) -> None:
        if sent["type"] == "http.response.start":
            statuses.append(sent["status"])
        else:
            bodies.append(sent.get("body", b""))

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    if not statuses or statuses[0] >= 500:
        raise RuntimeError(f"status {statuses}")
    if statuses[0] >= 400:
        raise InputError(f"status {statuses[0]}: {bodies[:1]!r:.40}")


def _requests() -> st.SearchStrategy[Bundle]:
    numbers = st.one_of(st.floats().map(repr), st.text(max_size=5), st.sampled_from(["0.6", "2", "64", "1e-3"]))
    queries = st.lists(st.tuples(st.sampled_from(["gain", "target", "units", "x"]), numbers), max_size=4)
    paths = st.one_of(
        st.sampled_from([address.partition("?")[0] for address in ADDRESSES if "networks" not in address]),
        st.text(max_size=12).map(lambda text: "/token/" + text),
    )

    def request(path: str, query: list[tuple[str, str]]) -> Bundle:
        address = f"{urllib.parse.quote(path, safe='/%')}?{urllib.parse.urlencode(query)}"
        return {"request": f"GET {address}\nhost: {HOST}".encode()}

    return st.builds(request, paths, queries)


_OURS = (
    Reader(
        "sweep",
        "a sweep file (YAML)",
        lambda: one_file("sweep.yaml", (made.SWEEP.encode(), made.LONGER_SWEEP.encode())),
        lambda folder: Sweep.from_yaml(folder / "sweep.yaml"),
        (
            *(f"\n{name}: ".encode() for name in OPTIONS),
            *(b"[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]", b"&a [*a, *a]", b"1e9", b"2020-01-01", b"? ", b"!!binary "),
        ),
        _sweep_texts,
    ),
    Reader(
        "run",
        "run.json, records of failures, locks",
        _run_seeds,
        _read_run,
        (
            *(b"digest", b"description", b"jobs", b"labels", b"format", b"rankscope.run.2", b"host", b"pid", b"../x"),
            *(b"task", b"network", b"experiment", b"gain"),
        ),
    ),
    Reader(
        "job",
        "measurements.safetensors and network.safetensors of the jobs of a run",
        _job_seeds,
        _read_jobs,
        (
            *(
                *made.NAMES,
                b"dataset",
                b"coordinates",
                b"variables",
                b"dims",
                b"values",
                b"attrs",
                b"dtype",
                b"float64",
            ),
            *(b"digest", b"job", b"class", b"architecture", b"loss", b"rank", b"matrix", b"status", b"gain", b"seed"),
        ),
    ),
    Reader(
        "network",
        "saved networks, RateRNN and GatedRNN",
        lambda: one_file("network.safetensors", made.network_files()),
        _read_network,
        (
            *(*made.NAMES, b"hidden_size", b"num_layers", b"rng", b"dtype", b"gain", b"class", b"readout"),
            *(b"initial.rnn.bias_hh_l0", b"initial_state"),
        ),
    ),
    Reader(
        "training",
        "state files of a training on drawn trials and on finite data",
        _training_seeds,
        _read_training,
        (
            *(*made.NAMES, b"network.recurrent_weights", b"network.readout.bias", b"optimizer.0.step", b"settings"),
            *(b"optimizer.9.exp_avg", b"losses", b"validation_losses", b"rng", b"PCG64", b"schedule", b"groups"),
        ),
    ),
    Reader(
        "requests",
        "requests to the server of `rankscope explore`",
        _request_seeds,
        _read_request,
        (
            *(b"gain=", b"target=", b"&", b"%00", b"%ff", b"%2e%2e%2f", b"api/", b"jobs/", b"HEAD ", b"POST "),
            b"origin: x",
        ),
        _requests,
    ),
)
READERS = {reader.name: reader for reader in (*_OURS, *readers_checkpoints.READERS, *readers_sentiment.READERS)}
