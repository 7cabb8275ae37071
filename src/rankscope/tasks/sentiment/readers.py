r"""Readers of labelled sentences (rated snippets, treebank) and of word vectors (GloVe), from untrusted files.

* Snippets: a line holds number, mean rating of twenty people from -4 to 4, and text, separated by tabs. The sentences
  are those of Rotten Tomatoes on which the treebank is based. The label is the sign of the rating. As in the treebank,
  the middle fifth of the scale is neutral and dropped, which leaves 9,565 of 10,605 sentences (Hutto & Gilbert 2014).
* Treebank: a line is a tree such as ``(3 (2 It) (4 (2 's) (4 good)))``, each node with a sentiment from 0 to 4; the
  first is that of the sentence. Neutral sentences (2) are dropped, which leaves 6,920 for training, 872 for development
  and 1,821 for tests (Socher et al. 2013; trainDevTestTrees_PTB.zip).
* GloVe: a line is a word followed by its numbers, separated by single spaces (Pennington et al. 2014).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.tasks.sentiment.archives import from_zip, names_in_zip

Words = tuple[str, ...]

LONGEST_LINE = 1_000_000
"""Limit in bytes. The longest line of the treebank has 3,000, of GloVe's vectors 10,000."""

NEUTRAL_RATING, LARGEST_RATING = 0.8, 4.0
NEUTRAL_NODE = 2

_NOT = re.compile(r"n't\b")
_WORD = re.compile(r"n't\b|'(?:s|re|ve|ll|d|m)\b|''|``|\.\.\.|\w+|[^\w\s]")
_TREE_TOKEN = re.compile(r"[()]|[^\s()]+")
_ESCAPED = {"-lrb-": "(", "-rrb-": ")", "\\/": "/", "\\*": "*"}


@dataclass(frozen=True)
class Labelled:
    """Sentences as words, each with its label: 0 for negative, 1 for positive."""

    sentences: tuple[Words, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words without repetitions, and their vectors (words, size)."""

    words: Words
    vectors: NDArray[np.float32]

    def only(self, wanted: Collection[str]) -> WordVectors:
        """Return the words that are in `wanted`, with their vectors."""
        kept = [index for index, word in enumerate(self.words) if word in wanted]
        return WordVectors(tuple(self.words[index] for index in kept), self.vectors[kept])


def tokenize(text: str) -> Words:
    """Return the words of a sentence by the rules of GloVe's vocabulary.

    Lower case; a word is a run of letters and digits, "n't", "'s", "'re", "'ve", "'ll", "'d", "'m", an ellipsis, a pair
    of quotation marks, or any other sign by itself.
    """
    return tuple(_WORD.findall(_NOT.sub(" n't", text.lower().replace("\u2019", "'"))))


def read_snippets(file: BinaryIO, name: str) -> Labelled:
    """Return the sentences that are not neutral; `name` is that of the file in messages.

    Raises
    ------
    InputError
        If a line is not a number, a rating from -4 to 4, and a text; the message names it.
    """
    return _labelled(file, name, _parse_snippet, "rated sentences")


def read_treebank(path: str | os.PathLike[str]) -> dict[str, Labelled]:
    """Return the sentences that are not neutral, by split: "train", "dev", "test".

    Parameters
    ----------
    path
        The folder trainDevTestTrees_PTB, its folder `trees`, or the downloaded zip file.

    Raises
    ------
    InputError
        If a file is missing or is not in the treebank's format, or the zip file is damaged or unsafe.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(
            f"treebank must be the folder or zip trainDevTestTrees_PTB, got {str(root)!r}, which does not exist"
        )
    folder = root.is_dir()
    members = [] if folder else names_in_zip(root)
    splits = {}
    for split in ("train", "dev", "test"):
        file = f"{split}.txt"
        if folder:
            found = [name for name in (file, f"trees/{file}") if (root / name).is_file()]
        else:
            found = [name for name in members if name == file or f"/{name}".endswith(f"/trees/{file}")]
        if not found:
            raise InputError(f"treebank must hold {file} or trees/{file}, got {str(root)!r} without it")
        name = min(found, key=len)
        content = (root / name).read_bytes() if folder else from_zip(root, name)
        splits[split] = _labelled(BytesIO(content), f"{root}, {name}", _parse_sentence, "trees, one a line,")
    return splits


def read_glove(path: str | os.PathLike[str], wanted: Collection[str] | None = None) -> WordVectors:
    """Return the word vectors of a file; only those of the `wanted` words (by default all) are kept in memory.

    Raises
    ------
    InputError
        If the file is missing, is not UTF-8, or the number of values differs between lines; the message names the line.
    """
    file_path = Path(path)
    if not file_path.is_file():
        raise InputError(f"vectors must be a text file of GloVe, got {str(file_path)!r}, which is not there")
    found: dict[str, NDArray[np.float32]] = {}
    size = 0
    with file_path.open("rb") as file:
        for number, line in _numbered_lines(file, str(file_path)):
            where = f"{file_path}, line {number}"
            size = size or line.count(" ")
            # Split from the right: some words of the larger sets contain spaces.
            word, *numbers = line.rsplit(" ", size)
            too_many = " " in word and not math.isnan(_number(word.rpartition(" ")[2]))
            if size == 0 or len(numbers) != size or too_many:
                raise InputError(f"{where}: must be a word and {size or 'its'} numbers, got {line.count(' ')} numbers")
            if (wanted is None or word in wanted) and word not in found:
                found[word] = _vector(numbers, where)
    if size == 0:
        raise InputError(f"{file_path} must hold words and their vectors, got an empty file")
    return WordVectors(tuple(found), np.array([*found.values()], dtype=np.float32).reshape(len(found), size))


def parse_tree(text: str) -> tuple[int, Words]:
    """Return the label of a tree of any depth, 0 to 4, and its words in lower case.

    Raises
    ------
    InputError
        If `text` is not one complete tree.
    """
    words: list[str] = []
    label: int | None = None
    open_nodes: list[str] = []  # content so far of each: "", "label", "word" or "nodes"
    for match in _TREE_TOKEN.finditer(text):
        token, at = match.group(), f"at character {match.start() + 1}"
        if not open_nodes and (token != "(" or label is not None):
            raise InputError(f"must be one tree in parentheses, got {token[:20]!r} outside of it {at}")
        if token == "(":
            if open_nodes:
                if open_nodes[-1] not in ("label", "nodes"):
                    raise InputError(f"a node must have a label, then a word or nodes, got '(' {at}")
                open_nodes[-1] = "nodes"
            open_nodes.append("")
        elif token == ")":
            if open_nodes.pop() not in ("word", "nodes"):
                raise InputError(f"a node must have a label and a word or nodes, got ')' {at}")
        elif open_nodes[-1] == "":
            if token not in ("0", "1", "2", "3", "4"):
                raise InputError(f"a label must be one of 0, 1, 2, 3, 4, got {token[:20]!r} {at}")
            label = int(token) if label is None else label
            open_nodes[-1] = "label"
        elif open_nodes[-1] == "label":
            words.append(_ESCAPED.get(token.lower(), token.lower()))
            open_nodes[-1] = "word"
        else:
            raise InputError(f"a node must have one word or only nodes, got {token[:20]!r} {at}")
    if label is None or open_nodes:
        raise InputError(f"must be one tree in parentheses, got one that ends with {len(open_nodes)} of them open")
    return label, tuple(words)


def _labelled(file: BinaryIO, name: str, parse: Callable[[str], tuple[int | None, Words]], what: str) -> Labelled:
    """Return the sentences of a file whose label is not None."""
    sentences, labels = [], []
    for number, line in _numbered_lines(file, name):
        try:
            label, words = parse(line)
        except InputError as error:
            raise InputError(f"{name}, line {number}: {error}") from None
        if label is not None:
            sentences.append(words)
            labels.append(label)
    if not sentences:
        raise InputError(f"{name} must contain {what} that are not all neutral, got none")
    return Labelled(tuple(sentences), tuple(labels))


def _parse_snippet(line: str) -> tuple[int | None, Words]:
    fields = line.split("\t")
    if len(fields) != 3:
        raise InputError(f"must be number, rating and text between tabs, got {len(fields)} fields")
    rating, words = _number(fields[1]), tokenize(fields[2])
    if not abs(rating) <= LARGEST_RATING:
        raise InputError(f"the rating must be a number from -4 to 4, got {fields[1][:20]!r}")
    if not words:
        raise InputError("must have a text, got none")
    return (int(rating > 0) if abs(rating) > NEUTRAL_RATING else None), words


def _parse_sentence(line: str) -> tuple[int | None, Words]:
    label, words = parse_tree(line)
    return (int(label > NEUTRAL_NODE) if label != NEUTRAL_NODE else None), words


def _numbered_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without the end of line) of lines that are not empty."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise InputError(f"{name}, line {number}: must have at most {LONGEST_LINE} bytes, got more")
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}, line {number}: must be UTF-8, got the byte 0x{line[error.start]:02x}; convert the file"
            ) from error
        if text.strip():
            yield number, text


def _vector(numbers: list[str], where: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # an infinite value is refused below
            vector = np.array(numbers, dtype=np.float32)
    except ValueError as error:
        raise InputError(f"{where}: must be a word and numbers, got {error}") from error
    if not np.isfinite(vector).all():
        raise InputError(f"{where}: numbers must be finite in single precision, got one that is not")
    return vector


def _number(text: str) -> float:
    """Return a number, or NaN for other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan
