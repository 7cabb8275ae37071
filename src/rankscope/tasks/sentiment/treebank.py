r"""The Stanford Sentiment Treebank: sentences of film reviews as trees, each node with a sentiment from 0 to 4.

A line is a tree such as ``(3 (2 It) (4 (2 's) (4 good)))``; the first label is that of the sentence. 0 and 1 are
negative, 3 and 4 positive. Neutral sentences (2) are dropped, which leaves 6,920 for training, 872 for development and
1,821 for tests. The archive is trainDevTestTrees_PTB.zip.

References
----------
Socher et al., "Recursive deep models for semantic compositionality over a sentiment treebank", EMNLP 2013.
"""

from __future__ import annotations

import os
import re
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from rankscope.errors import InputError
from rankscope.tasks.sentiment.archives import from_zip, names_in_zip
from rankscope.tasks.sentiment.lines import numbered_lines
from rankscope.tasks.sentiment.sentences import Labelled, Words

SPLITS = ("train", "dev", "test")
NEUTRAL = 2
_TOKEN = re.compile(r"[()]|[^\s()]+")
_ESCAPED = {"-lrb-": "(", "-rrb-": ")", "\\/": "/", "\\*": "*"}


def read_treebank(path: str | os.PathLike[str]) -> dict[str, Labelled]:
    """Read the sentences that are not neutral, by split: "train", "dev", "test".

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
    if root.is_dir():
        files = {split: _in_folder(root, f"{split}.txt") for split in SPLITS}
        return {split: _read(file.open("rb"), str(file)) for split, file in files.items()}
    if not root.is_file():
        raise InputError(
            f"treebank must be the folder or zip trainDevTestTrees_PTB, got {str(root)!r}, which does not exist"
        )
    members = {split: _in_zip(root, f"{split}.txt") for split in SPLITS}
    return {split: _read(BytesIO(from_zip(root, member)), f"{root}, {member}") for split, member in members.items()}


def parse_tree(text: str) -> tuple[int, Words]:
    """Return the label of a tree, 0 to 4, and its words in lower case. Trees may be of any depth.

    Raises
    ------
    InputError
        If `text` is not one complete tree.
    """
    words: list[str] = []
    label: int | None = None
    open_nodes: list[str] = []  # content so far of each: "", "label", "word" or "nodes"
    for match in _TOKEN.finditer(text):
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


def _read(file: BinaryIO, name: str) -> Labelled:
    sentences, labels = [], []
    with file:
        for number, line in numbered_lines(file, name):
            try:
                label, words = parse_tree(line)
            except InputError as error:
                raise InputError(f"{name}, line {number}: {error}") from None
            if label != NEUTRAL:
                sentences.append(words)
                labels.append(int(label > NEUTRAL))
    if not sentences:
        raise InputError(f"{name} must contain trees, one a line, that are not all neutral, got none")
    return Labelled(tuple(sentences), tuple(labels))


def _in_folder(root: Path, name: str) -> Path:
    for path in (root / name, root / "trees" / name):
        if path.is_file():
            return path
    raise InputError(f"treebank must hold {name} or trees/{name}, got {str(root)!r} without it")


def _in_zip(path: Path, name: str) -> str:
    found = [
        member
        for member in names_in_zip(path)
        if member in (name, f"trees/{name}") or member.endswith(f"/trees/{name}")
    ]
    if not found:
        raise InputError(f"treebank must hold trees/{name}, got {str(path)!r} without it")
    return min(found, key=len)
