"""Readers of sentences and word vectors: the treebank, GloVe, the archives of the public set, and prepared data."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
from pathlib import Path

from hypothesis import strategies as st

import rankscope as rs
import reader_seeds as made
from fuzz_mutations import Bundle
from rankscope.tasks.sentiment.data import prepare_treebank, read_data
from rankscope.tasks.sentiment.download import VECTORS, Download, fetch, sentences_of, vectors_of
from rankscope.tasks.sentiment.readers import read_glove, read_snippets, read_treebank
from reader import Reader, one_file

Texts = st.SearchStrategy[Bundle]


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


def _trees() -> Texts:
    words = st.text(min_size=1, max_size=5)
    labels = st.one_of(st.integers(0, 4).map(str), st.text(max_size=2))
    leaves = st.builds("({} {})".format, labels, words)
    trees = st.recursive(leaves, lambda inner: st.builds("({} {} {})".format, labels, inner, inner), max_leaves=12)
    files = st.lists(trees, max_size=4).map(_lines)
    return st.builds(lambda one, other: {"train.txt": one, "dev.txt": other, "test.txt": made.TREES}, files, files)


def _read_glove(folder: Path) -> object:
    read_glove(folder / "glove.txt", {"good", "."})
    return read_glove(folder / "glove.txt")


def _glove_texts() -> Texts:
    numbers = st.one_of(st.floats().map(repr), st.integers().map(str), st.text(max_size=4))
    lines = st.builds(lambda word, row: " ".join([word, *row]), st.text(max_size=6), st.lists(numbers, max_size=4))
    return st.lists(lines, max_size=5).map(lambda rows: {"glove.txt": _lines(rows)})


def _archive_seeds() -> list[Bundle]:
    inner = made.tar_gz({"hutto_ICWSM_2014/other.txt": b"x", made.RATED: made.SNIPPETS})
    sdist = made.tar_gz({"vaderSentiment-3.3.2/setup.py": b"import os", made.SDIST: inner})
    return [{"snippets.txt": made.SNIPPETS}, {"sdist.tar.gz": sdist}, {"vectors.whl": made.wheel()}]


def _bombs() -> list[Bundle]:
    kinds = (("sdist.tar.gz", "tar", made.SDIST), ("vectors.whl", "zip", made.NUMBERS), ("vectors.whl", "zip", "other"))
    return [{file: made.bomb(kind, name, size)} for file, kind, name in kinds for size in made.BOMBS]


def _read_archive(folder: Path) -> object:
    path = next(iter(sorted(path for path in folder.iterdir() if path.is_file())))
    if path.name == "snippets.txt":
        return read_snippets(io.BytesIO(path.read_bytes()), path.name)
    if path.name == "sdist.tar.gz":
        return sentences_of(path)
    # As in `rankscope data`, which opens no other wheel than the one with the known checksum.
    return vectors_of(fetch(_made_wheel(path.name), folder))


@functools.cache
def _made_wheel(filename: str) -> Download:
    """Return the download whose checksum is that of the wheel in the seeds."""
    return dataclasses.replace(VECTORS, filename=filename, sha256=hashlib.sha256(made.wheel()).hexdigest())


def _snippet_texts() -> Texts:
    ratings = st.one_of(st.floats(-5, 5).map(repr), st.text(max_size=4))
    lines = st.builds(lambda rating, text: f"1\t{rating}\t{text}", ratings, st.text(max_size=12))
    return st.lists(lines, max_size=5).map(lambda rows: {"snippets.txt": _lines(rows)})


def _read_sentences(folder: Path) -> object:
    data = read_data(folder / "data.safetensors")
    task = made.sentiment_task(data)
    rs.train(made.classifier(task, "rnn", 2), task, 1, 0, batch_size=64)
    return data.summary()


def _lines(rows: list[str]) -> bytes:
    return "\n".join(rows).encode("utf-8", "surrogatepass")


READERS = (
    Reader(
        "treebank",
        "the treebank, as a folder and as a zip archive",
        _treebank_seeds,
        _read_treebank,
        (b"(3 ", b"(2 (2 x) ", b")", b"(" * 5000, b"trees/train.txt", b"../trees/dev.txt"),
        _trees,
        lambda: [{"treebank.zip": made.bomb("zip", "trees/train.txt", size, made.OTHER_TREES)} for size in made.BOMBS],
    ),
    Reader(
        "glove",
        "word vectors in GloVe's format",
        lambda: one_file("glove.txt", (made.GLOVE,)),
        _read_glove,
        (b"good 0.1", b" 1 2 3\n", b" 1e39", "٣".encode()),
        _glove_texts,
    ),
    Reader(
        "archives",
        "the public set: rated sentences in tar.gz, vectors in a wheel",
        _archive_seeds,
        _read_archive,
        (b"PAR1", b"\x93NUMPY", b"{'descr': '<f4', ", b"'shape': (99999999999,)", b"ustar", b"4.1", b"\t"),
        _snippet_texts,
        _bombs,
    ),
    Reader(
        "sentences",
        "prepared sentences",
        lambda: one_file("data.safetensors", (made.sentiment_file(),)),
        _read_sentences,
        (*made.NAMES, b"vectors", b"train.words", b"values", b"coverage", b"fingerprint"),
    ),
)
