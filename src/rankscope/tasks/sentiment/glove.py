"""Word vectors in GloVe's text format: one word a line, followed by its numbers, all separated by single spaces.

References
----------
Pennington, Socher, Manning, "GloVe: global vectors for word representation", EMNLP 2014.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.tasks.sentiment.lines import numbered_lines


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and their vectors, in the same order.

    Attributes
    ----------
    words
        The words, without repetitions.
    vectors
        (words, size), single precision.
    """

    words: tuple[str, ...]
    vectors: NDArray[np.float32]

    def only(self, wanted: Collection[str]) -> WordVectors:
        """Return the words that are in `wanted`, with their vectors."""
        kept = [index for index, word in enumerate(self.words) if word in wanted]
        return WordVectors(tuple(self.words[index] for index in kept), self.vectors[kept])


def read_glove(path: str | os.PathLike[str], wanted: Collection[str] | None = None) -> WordVectors:
    """Read word vectors from a file. Only the vectors of wanted words are kept in memory.

    Parameters
    ----------
    wanted
        Words to keep; by default all.

    Raises
    ------
    InputError
        If the file is missing, is not UTF-8, or the number of values differs between lines; the message names the line.
    """
    file_path = Path(path)
    if not file_path.is_file():
        raise InputError(f"vectors must be a text file of GloVe, got {str(file_path)!r}, which is not there")
    keep = None if wanted is None else frozenset(wanted)
    found: dict[str, NDArray[np.float32]] = {}
    size = 0
    with file_path.open("rb") as file:
        for number, line in numbered_lines(file, str(file_path)):
            where = f"{file_path}, line {number}"
            size = size or line.count(" ")
            # Split from the right: some words of the larger sets contain spaces.
            word, *numbers = line.rsplit(" ", size)
            too_many = " " in word and _is_number(word.rpartition(" ")[2])
            if size == 0 or len(numbers) != size or too_many:
                raise InputError(f"{where}: must be a word and {size or 'its'} numbers, got {line.count(' ')} numbers")
            if (keep is None or word in keep) and word not in found:
                found[word] = _vector(numbers, where)
    if size == 0:
        raise InputError(f"{file_path} must hold words and their vectors, got an empty file")
    return WordVectors(tuple(found), np.array([*found.values()], dtype=np.float32).reshape(len(found), size))


def _vector(numbers: list[str], where: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # an infinite value is refused below
            vector = np.array(numbers, dtype=np.float32)
    except ValueError as error:
        raise InputError(f"{where}: must be a word and numbers, got {error}") from error
    if not np.isfinite(vector).all():
        raise InputError(f"{where}: numbers must be finite in single precision, got one that is not")
    return vector


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
