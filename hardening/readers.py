"""Every reader of files that rankscope has: what it is called, small valid inputs, and how it is called on a folder.

The contract of a reader: for any bytes it returns or raises `InputError`, or what else its module documents. `read`
goes on as a user would with what was returned: it measures the matrices, runs the network, draws the values.
"""

from __future__ import annotations

import asyncio
import io
import json
import urllib.parse
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hypothesis import strategies as st

import rankscope as rs
import readers_seeds as made
from fuzz_mutations import Bundle
from rankscope.checkpoints import inspect, open_checkpoint
from rankscope.checkpoints.adapter import Adapter
from rankscope.checkpoints.source import Unreadable
from rankscope.errors import InputError
from rankscope.experiments.user_sweep import read_sweep
from rankscope.explore.live import LiveRun, encoded, message
from rankscope.explore.server import application
from rankscope.networks.gated import GatedRNN
from rankscope.sweep import RunFolder, claims
from rankscope.text.data import prepare_treebank, read_data
from rankscope.text.glove import read_glove
from rankscope.text.public import sentences_of, vectors_of
from rankscope.text.snippets import read_snippets
from rankscope.text.treebank import read_treebank
from rankscope.training.text import train_classifier

Allowed = tuple[type[Exception], ...]


@dataclass(frozen=True)
class Reader:
    """A reader, or several that are given the same files.

    Attributes
    ----------
    name, about
        What it is called, and which files it reads.
    seeds
        Returns valid inputs.
    read
        Reads the files in a folder as a user would.
    words
        Of its formats, to be put anywhere.
    once
        Returns inputs that are to be read once and as they are, such as archives that unpack to very much.
    texts
        For a format of text: a hypothesis strategy of whole inputs; None for others.
    allowed
        What `read` may raise.
    """

    name: str
    about: str
    seeds: Callable[[], list[Bundle]]
    read: Callable[[Path], object]
    words: tuple[bytes, ...] = ()
    texts: Callable[[], st.SearchStrategy[Bundle]] | None = None
    once: Callable[[], list[Bundle]] = list
    allowed: Allowed = (InputError,)


def attempt(reader: Reader, folder: Path) -> str:
    """Return "" if the reader returned, or the name of what it raised that it may raise."""
    try:
        reader.read(folder)
    except reader.allowed as error:
        return place_of(error)
    return ""


def place_of(error: BaseException) -> str:
    """Return the line of rankscope that raised an error, or else what it says: what tells one refusal from another."""
    places = [str(error)[:60]]
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if "/rankscope/" in code.co_filename:
            places.append(f"{code.co_filename.rpartition('/rankscope/')[2]}:{step.tb_lineno}")
        step = step.tb_next
    return places[-1]


def _one_file(name: str, contents: Iterable[bytes]) -> list[Bundle]:
    return [{name: content} for content in contents]


# Sweeps -------------------------------------------------------------------------------------------------------------


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
    encoded(message(live.look(), {}))
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
        encoded(message(live.look(), {}))
        if digest in live.look().cells:
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


# Networks, trainings, checkpoints -----------------------------------------------------------------------------------


def _read_network(folder: Path) -> object:
    path = folder / "network.safetensors"
    loaded: list[Any] = []
    wrong = None
    for kind in (rs.RateRNN, GatedRNN):
        for initial in (False, True):
            try:
                loaded.append(kind.load(path, initial=initial))
            except InputError as error:
                wrong = error
    for network in loaded:
        weights = next(network.parameters())
        size = network.rnn.input_size if isinstance(network, GatedRNN) else weights.shape[1]
        network(torch.ones(1, 3, size, dtype=weights.dtype))
    if wrong is not None and not loaded:
        raise wrong
    return loaded


def _read_training(folder: Path) -> object:
    network, options = made.new_training()
    return rs.train(network, made.TASK, checkpoint=folder / "checkpoint.safetensors", **options)


def _read_text_training(folder: Path) -> object:
    network, data = made.new_text_training()
    return train_classifier(network, data, 2, checkpoint=folder / "checkpoint.safetensors")


def _read_checkpoint(path: Path) -> object:
    source = open_checkpoint(path)
    for name in source.entries:
        with suppress(Unreadable):
            if isinstance(source, Adapter) and name not in source.replaced:
                source.factors(name)
            else:
                source.rows(name)
    source.release()
    try:
        found = inspect(path)
    except InputError:
        found = inspect(made.state_dict(), path, heads=2)
    found.to_frame()
    return found.write_csv(path.parent / "out" / "table.csv")


def _read_folder(folder: Path) -> object:
    return _read_checkpoint(next(iter(sorted(folder.glob("*.index.json"))), folder))


# Sentences ----------------------------------------------------------------------------------------------------------


def _treebank_seeds() -> list[Bundle]:
    names = [f"{split}.txt" for split in ("train", "dev", "test")]
    archive = made.zipped({f"trees/{name}": made.TREES for name in names})
    return [dict.fromkeys(names, made.TREES), {"treebank.zip": archive}]


def _read_treebank(folder: Path) -> object:
    archive = folder / "treebank.zip"
    path = archive if archive.is_file() else folder
    read_treebank(path)
    glove = folder / "out" / "glove.txt"
    glove.parent.mkdir(exist_ok=True)
    glove.write_bytes(made.GLOVE)
    return prepare_treebank(folder / "out", path, glove)


def _trees() -> st.SearchStrategy[Bundle]:
    words = st.text(min_size=1, max_size=5)
    labels = st.one_of(st.integers(0, 4).map(str), st.text(max_size=2))
    leaves = st.builds("({} {})".format, labels, words)
    trees = st.recursive(leaves, lambda inner: st.builds("({} {} {})".format, labels, inner, inner), max_leaves=12)
    files = st.lists(trees, max_size=4).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))
    return st.builds(lambda one, other: {"train.txt": one, "dev.txt": other, "test.txt": made.TREES}, files, files)


def _read_glove(folder: Path) -> object:
    read_glove(folder / "glove.txt", {"good", "."})
    return read_glove(folder / "glove.txt")


def _glove_texts() -> st.SearchStrategy[Bundle]:
    numbers = st.one_of(st.floats().map(repr), st.integers().map(str), st.text(max_size=4))
    lines = st.builds(lambda word, row: " ".join([word, *row]), st.text(max_size=6), st.lists(numbers, max_size=4))
    return st.lists(lines, max_size=5).map(lambda rows: {"glove.txt": "\n".join(rows).encode("utf-8", "surrogatepass")})


def _archive_seeds() -> list[Bundle]:
    inner = made.tar_gz({"hutto_ICWSM_2014/other.txt": b"x", made.RATED: made.SNIPPETS})
    sdist = made.tar_gz({"vaderSentiment-3.3.2/setup.py": b"import os", made.SDIST: inner})
    return [{"snippets.txt": made.SNIPPETS}, {"sdist.tar.gz": sdist}, {"vectors.whl": made.wheel()}]


def _bombs() -> list[Bundle]:
    return [
        {file: made.bomb(kind, name, size)}
        for file, kind, name in (
            ("sdist.tar.gz", "tar", made.SDIST),
            ("vectors.whl", "zip", made.NUMBERS),
            ("vectors.whl", "zip", "other"),
        )
        for size in made.BOMBS
    ]


def _read_archive(folder: Path) -> object:
    path = next(iter(sorted(path for path in folder.iterdir() if path.is_file())))
    if path.name == "snippets.txt":
        return read_snippets(io.BytesIO(path.read_bytes()), path.name)
    return sentences_of(path) if path.name == "sdist.tar.gz" else vectors_of(path)


def _snippet_texts() -> st.SearchStrategy[Bundle]:
    ratings = st.one_of(st.floats(-5, 5).map(repr), st.text(max_size=4))
    lines = st.builds(lambda rating, text: f"1\t{rating}\t{text}", ratings, st.text(max_size=12))
    return st.lists(lines, max_size=5).map(
        lambda rows: {"snippets.txt": "\n".join(rows).encode("utf-8", "surrogatepass")}
    )


def _read_sentences(folder: Path) -> object:
    data = read_data(folder / "data.safetensors")
    network = made.TextClassifier(data.vectors, hidden_size=2, rng=0)
    train_classifier(network, data, 1)
    return data.summary()


# Requests -----------------------------------------------------------------------------------------------------------

TOKEN, HOST = "token", "127.0.0.1:8000"
ADDRESSES = (
    *("/token/", "/token/static/charts.js", "/token/static/explore.js", "/token/api/curves?gain=0.6&target=2"),
    *("/token/api/networks?gain=x&target=2&units=64", "/token/run", "/token/api/run", "/token/api/run/cells/DIGEST"),
    *("/token/api/run/cells/%2e%2e%2frun.json", "/token/static/..%2f..%2fserver.py", "/other/"),
)


@cache
def _application() -> Any:
    """Return the server of a run folder of tiny networks, which is made once."""
    folder = Path(made.tempfile.mkdtemp(prefix="rankscope-fuzz-run-"))
    for name, content in made.run_folder().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    # What trains networks beside the page is a process of its own, which reads nothing.
    with mock.patch("rankscope.explore.server.Networks"):
        return application(TOKEN, [HOST], LiveRun(folder)), next((folder / "cells").iterdir()).stem


def _request_seeds() -> list[Bundle]:
    _, digest = _application()
    requests = (f"GET {address.replace('DIGEST', digest)}\nhost: {HOST}\n" for address in ADDRESSES)
    return _one_file("request", (request.encode() for request in requests))


def _read_request(folder: Path) -> object:
    """Ask as a server would hand it on: method, path and query, then headers, a line each, of any bytes."""
    app, _ = _application()
    first, *rest = (folder / "request").read_bytes().split(b"\n")
    method, _, address = first.partition(b" ")
    path, _, query = address.partition(b"?")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in rest)]
    # uvicorn takes %xx out of the path, and it decodes what is left as it can.
    plain = urllib.parse.unquote(path.decode("ascii", "replace"))
    scope = {
        **{"type": "http", "http_version": "1.1", "scheme": "http", "root_path": "", "state": {}},
        **{"method": method.decode("latin-1"), "path": plain, "raw_path": path, "query_string": query},
        **{"headers": headers, "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1)},
    }
    statuses: list[int] = []
    bodies: list[bytes] = []

    async def receive() -> dict[str, Any]:
        # Who has left at once: streams end.
        return {"type": "http.disconnect"}

    async def send(sent: dict[str, Any]) -> None:
        if sent["type"] == "http.response.start":
            statuses.append(sent["status"])
        else:
            bodies.append(sent.get("body", b""))

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    if not statuses or statuses[0] >= 500:
        raise RuntimeError(f"answered with {statuses}")
    if statuses[0] >= 400:
        raise InputError(f"answered with {statuses[0]}: {bodies[:1]!r:.40}")
    return None


def _requests() -> st.SearchStrategy[Bundle]:
    numbers = st.one_of(st.floats().map(repr), st.text(max_size=5), st.sampled_from(["0.6", "2", "64", "1e-3"]))
    queries = st.lists(st.tuples(st.sampled_from(["gain", "target", "units", "x"]), numbers), max_size=4)
    paths = st.one_of(
        st.sampled_from([address.partition("?")[0] for address in ADDRESSES if "networks" not in address]),
        st.text(max_size=12).map(lambda text: "/token/" + text),
    )
    return st.builds(
        lambda path, query: {
            "request": f"GET {urllib.parse.quote(path, safe='/%')}?{urllib.parse.urlencode(query)}\nhost: {HOST}".encode()  # noqa: E501
        },
        paths,
        queries,
    )


NAMES = tuple(f'"{name}"'.encode() for name in ("dtype", "shape", "data_offsets", "__metadata__", "F32", "BOOL"))
TENSORS = (*(name.encode() for name in made.state_dict()), b"initial.x", b"base_model.model.x.lora_A.weight")
PICKLE = (b"cos\nsystem\n", b"\x8c\x05torch\x93", b"\x94", b"K\x7f", b"J\xff\xff\xff\x7f", b"2", b"h\x00", b"}", b"(")

READERS = {
    reader.name: reader
    for reader in (
        Reader(
            "sweep",
            "a user's sweep file (YAML)",
            lambda: _one_file("sweep.yaml", (made.SWEEP.encode(), made.LONGER_SWEEP.encode())),
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
            words=(b"OHDR", b"TREE", b"SNOD", b"HEAP", b"GCOL", b"FRHP", b"FHDB", b"BTHD", b"FADB", b"OCHK", b"digest"),
        ),
        Reader(
            "training",
            "a checkpoint of a training",
            lambda: _one_file("checkpoint.safetensors", list(made.training_files())[:1]),
            _read_training,
            (
                *NAMES,
                b"network.recurrent_weights",
                b"optimiser.0.step",
                b"optimiser.9.exp_avg",
                b"losses",
                b"rng",
                b"PCG64",
            ),
        ),
        Reader(
            "text-training",
            "a checkpoint of a text classifier's training",
            lambda: _one_file("checkpoint.safetensors", list(made.training_files())[1:]),
            _read_text_training,
            (*NAMES, b"network.readout.bias", b"optimiser.0.step", b"optimiser.9.exp_avg", b"losses", b"settings"),
        ),
        Reader(
            "network",
            "saved networks, RateRNN and GatedRNN",
            lambda: _one_file("network.safetensors", made.network_files()),
            _read_network,
            (*NAMES, b"hidden_size", b"layers", b"rng", b"dtype", b"gain", b"initial.rnn.bias_hh_l0", b"initial_state"),
        ),
        Reader(
            "safetensors",
            "anybody's state dict as safetensors",
            lambda: _one_file("after.safetensors", (made.safetensors(0.1), next(iter(made.network_files())))),
            lambda folder: _read_checkpoint(folder / "after.safetensors"),
            (*NAMES, *TENSORS),
        ),
        Reader(
            "torch",
            "anybody's state dict by torch.save",
            lambda: _one_file(
                "after.pt", map(made.torch_file, (made.state_dict(0.1), {"epoch": 3, "model": made.state_dict(0.1)}))
            ),
            lambda folder: _read_checkpoint(folder / "after.pt"),
            (*TENSORS, *PICKLE),
        ),
        Reader(
            "shards",
            "a checkpoint in several files with an index",
            lambda: [made.shards(made.save, "safetensors"), made.shards(made.torch_file, "bin")],
            _read_folder,
            (*NAMES, *TENSORS, b"weight_map", b"model-1.bin", b"../model-1.bin", b".", b".."),
        ),
        Reader(
            "adapter",
            "a LoRA adapter's folder",
            lambda: [
                made.adapter("safetensors", made.save, alpha_pattern={"k_proj": 8}, target_parameters=["a.b"]),
                made.adapter("bin", made.torch_file, use_rslora=True, fan_in_fan_out=True),
            ],
            _read_folder,
            (
                *NAMES,
                *TENSORS,
                b"peft_type",
                b"lora_alpha",
                b"alpha_pattern",
                b"(a+)+$",
                b".*.*",
                b"[",
                b"lora_magnitude_vector",
            ),
        ),
        Reader(
            "treebank",
            "the treebank, as a folder and as a zip archive",
            _treebank_seeds,
            _read_treebank,
            (b"(3 ", b"(2 (2 x) ", b")", b"(" * 5000, b"trees/train.txt", b"../trees/dev.txt"),
            _trees,
            lambda: [
                {"treebank.zip": made.bomb("zip", "trees/train.txt", size, made.OTHER_TREES)} for size in made.BOMBS
            ],
        ),
        Reader(
            "glove",
            "vectors of words in GloVe's format",
            lambda: _one_file("glove.txt", (made.GLOVE,)),
            _read_glove,
            (b"good 0.1", b" 1 2 3\n", b" 1e39", "٣".encode()),
            _glove_texts,
        ),
        Reader(
            "public",
            "the public set: rated sentences, tar.gz, and vectors in a wheel",
            _archive_seeds,
            _read_archive,
            (b"PAR1", b"\x93NUMPY", b"{'descr': '<f4', ", b"'shape': (99999999999,)", b"ustar", b"4.1", b"\t"),
            _snippet_texts,
            _bombs,
        ),
        Reader(
            "sentences",
            "a prepared set of sentences",
            lambda: _one_file("data.safetensors", (made.sentiment_file(),)),
            _read_sentences,
            (*NAMES, b"vectors", b"train.words", b"values", b"coverage", b"fingerprint"),
        ),
        Reader(
            "requests",
            "requests to the page of `rankscope explore`",
            _request_seeds,
            _read_request,
            (
                b"gain=",
                b"target=",
                b"&",
                b"%00",
                b"%ff",
                b"%2e%2e%2f",
                b"api/",
                b"cells/",
                b"HEAD ",
                b"POST ",
                b"origin: x",
            ),
            _requests,
        ),
    )
}
