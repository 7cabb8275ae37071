"""What a sentiment classifier is trained on: sentences as numbers of words, in two parts, and a vector for each word.

Two sets are known by name, "snippets" (the public one) and "treebank" (from files that the user has). A set is prepared
once, by `rankscope data sentiment`, into one file of a few megabytes in the user's cache folder; nothing else reads the
sources. Which sentences validate is drawn with a fixed seed, except that the treebank says it itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import platformdirs
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rankscope.errors import InputError
from rankscope.io.atomic import replacing
from rankscope.tasks.sentiment import public
from rankscope.tasks.sentiment.glove import WordVectors, read_glove
from rankscope.tasks.sentiment.sentences import Labelled
from rankscope.tasks.sentiment.treebank import read_treebank
from rankscope.validation import choice

FORMAT = "rankscope.sentiment.v1"
SETS = ("snippets", "treebank")
VALIDATION_SENTENCES = 1000
SPLIT_SEED = 2006_11036
COMMAND = "rankscope data sentiment"
REMEDY = {"snippets": COMMAND, "treebank": f"{COMMAND} --treebank PATH --vectors FILE"}


@dataclass(frozen=True, eq=False)
class Split:
    """Sentences as numbers.

    Attributes
    ----------
    words
        (all words,) of one sentence after the other: rows of the vectors.
    lengths
        (sentences,) words of each, at least 1.
    labels
        (sentences,) 0 for negative, 1 for positive.
    """

    words: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(sentences,) index into `words` of the first word of each sentence."""
        return np.cumsum(self.lengths) - self.lengths


@dataclass(frozen=True, eq=False)
class SentimentData:
    """A prepared set.

    Attributes
    ----------
    name
        Of the set.
    vectors
        (vocabulary, size), single precision. Row 0, all zeros, serves every word without a vector.
    train, validation
        The sentences.
    coverage
        The fraction of all words, repetitions counted, that have a vector.
    vocabulary_coverage
        The fraction of the different words that have one.
    fingerprint
        SHA-256 of all of the above numbers, shortened to 16 digits.
    """

    name: str
    vectors: NDArray[np.float32]
    train: Split
    validation: Split
    coverage: float
    vocabulary_coverage: float
    fingerprint: str

    def summary(self) -> dict[str, object]:
        """Return what the set is, as plain values."""
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
    """Return where prepared data is kept: $RANKSCOPE_CACHE, or the system's folder for caches."""
    named = os.environ.get("RANKSCOPE_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("rankscope")


def prepare_snippets(folder: Path) -> SentimentData:
    """Return the public set, fetched and prepared in `folder` unless it is there.

    Raises
    ------
    InputError
        If it cannot be fetched, or the folder cannot be written to.
    """
    path = _path(folder, "snippets")
    if not path.exists():
        sdist, wheel = (public.fetch(one, folder / "downloads") for one in (public.SENTENCES, public.VECTORS))
        train, validation = split(public.sentences_of(sdist))
        save_data(prepare("snippets", train, validation, public.vectors_of(wheel)), path)
    return read_data(path)


def prepare_treebank(folder: Path, treebank: Path, vectors: Path) -> SentimentData:
    """Return the Stanford Sentiment Treebank with vectors of the user's, prepared in `folder` anew.

    Parameters
    ----------
    treebank, vectors
        As in `read_treebank` and `read_glove`.

    Raises
    ------
    InputError
        If a file is not what it should be, or the folder cannot be written to.
    """
    parts = read_treebank(treebank)
    wanted = {word for part in (parts["train"], parts["dev"]) for words in part.sentences for word in words}
    data = prepare("treebank", parts["train"], parts["dev"], read_glove(vectors, wanted))
    save_data(data, _path(folder, "treebank"))
    return data


def load_data(name: str, folder: Path | None = None) -> SentimentData:
    """Return a prepared set.

    Raises
    ------
    InputError
        If there is no such set, it has not been prepared (the message names the command), or its file is damaged.
    """
    path = _path(cache_folder() if folder is None else folder, choice("data", name, SETS))
    if not path.is_file():
        raise InputError(f"the data {name!r} is not in {path.parent}; fetch it with: {REMEDY[name]}")
    return read_data(path)


def fingerprint_of(name: str) -> str:
    """Return the fingerprint of a prepared set of the user's own, or "" if there is none."""
    path = _path(cache_folder(), name)
    return read_data(path).fingerprint if path.is_file() else ""


def split(labelled: Labelled, validation: int = VALIDATION_SENTENCES) -> tuple[Labelled, Labelled]:
    """Return the sentences in two parts, drawn with a fixed seed; the second has `validation` of them.

    Raises
    ------
    InputError
        If there are not more than that.
    """
    count = len(labelled.labels)
    if count <= validation:
        raise InputError(f"there must be more than {validation} sentences, to validate on so many, got {count}")
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    parts = (np.sort(order[validation:]), np.sort(order[:validation]))
    train, held_out = (
        Labelled(tuple(labelled.sentences[i] for i in part), tuple(labelled.labels[i] for i in part)) for part in parts
    )
    return train, held_out


def prepare(name: str, train: Labelled, validation: Labelled, vectors: WordVectors) -> SentimentData:
    """Return sentences as numbers, with the vectors of the words that occur in them.

    Raises
    ------
    InputError
        If no word has a vector.
    """
    everything = [word for part in (train, validation) for words in part.sentences for word in words]
    different = set(everything)
    known = vectors.only(different)
    if not known.words:
        raise InputError(
            "vectors must have some of the words of the sentences, got none; are they of another language?"
        )
    number = {word: index for index, word in enumerate(known.words, start=1)}
    table = np.concatenate([np.zeros((1, known.vectors.shape[1]), np.float32), known.vectors])
    parts = [_numbered(part, number) for part in (train, validation)]
    return SentimentData(
        name,
        table,
        parts[0],
        parts[1],
        coverage=sum(word in number for word in everything) / len(everything),
        vocabulary_coverage=len(number) / len(different),
        fingerprint=_fingerprint(table, parts),
    )


def save_data(data: SentimentData, path: Path) -> None:
    """Write a set to a file, atomically.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    """
    tensors: dict[str, Tensor] = {"vectors": torch.from_numpy(data.vectors)}
    for part in ("train", "validation"):
        for field in ("words", "lengths", "labels"):
            tensors[f"{part}.{field}"] = torch.from_numpy(getattr(getattr(data, part), field))
    values = {key: getattr(data, key) for key in ("name", "coverage", "vocabulary_coverage", "fingerprint")}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": FORMAT, "values": json.dumps(values)})


def read_data(path: Path) -> SentimentData:
    """Return the set in a file that `save_data` wrote.

    Raises
    ------
    InputError
        If the file is damaged or is something else.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            parts = [
                Split(*(arrays[f"{part}.{field}"] for field in ("words", "lengths", "labels")))
                for part in ("train", "validation")
            ]
            data = SentimentData(
                vectors=arrays["vectors"], train=parts[0], validation=parts[1], **json.loads(metadata["values"])
            )
        _check_content(data)
        if _fingerprint(data.vectors, parts) != data.fingerprint:
            raise ValueError("its content is not what was written")
    # AttributeError: safetensors knows types of numbers that numpy does not.
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error}); remove it and prepare the data again with: {COMMAND}"
        ) from error
    return data


def _check_content(data: SentimentData) -> None:
    """Raise ValueError unless a training can go through the set: what is wrong with it would show there only."""
    values = (data.name, data.fingerprint, data.coverage, data.vocabulary_coverage)
    for value, kind in zip(values, (str, str, float, float), strict=True):
        if type(value) is not kind:
            raise ValueError(f"it says {value!r:.40} where there should be a {kind.__name__}")
    if data.vectors.dtype != np.float32 or data.vectors.ndim != 2 or 0 in data.vectors.shape:
        raise ValueError(f"its vectors are {data.vectors.dtype}{data.vectors.shape}")
    for part in (data.train, data.validation):
        for row in (part.words, part.lengths, part.labels):
            if row.dtype != np.int64 or row.ndim != 1 or not row.size:
                raise ValueError(f"its sentences have numbers of {row.dtype}{row.shape}")
        lengths_fit = part.lengths.min() >= 1 and part.lengths.max() <= len(part.words)
        if not lengths_fit or part.lengths.sum() != len(part.words) or len(part.lengths) != len(part.labels):
            raise ValueError("its sentences are not as long as they should be")
        if part.words.min() < 0 or part.words.max() >= len(data.vectors) or not np.isin(part.labels, (0, 1)).all():
            raise ValueError("its sentences have words or labels that there are none of")


def _path(folder: Path, name: str) -> Path:
    return folder / f"sentiment-{name}.safetensors"


def _numbered(part: Labelled, number: dict[str, int]) -> Split:
    words = [number.get(word, 0) for words in part.sentences for word in words]
    lengths = [len(words) for words in part.sentences]
    return Split(np.array(words, np.int64), np.array(lengths, np.int64), np.array(part.labels, np.int64))


def _fingerprint(vectors: NDArray[np.float32], parts: Iterable[Split]) -> str:
    digest = hashlib.sha256(vectors.tobytes())
    for part in parts:
        for array in (part.words, part.lengths, part.labels):
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]
