"""Tokenized sentences with labels.

Words follow GloVe's vocabulary: lower case, "does n't" as two words, punctuation separate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Words = tuple[str, ...]

_NOT = re.compile(r"n't\b")
_WORD = re.compile(r"n't\b|'(?:s|re|ve|ll|d|m)\b|''|``|\.\.\.|\w+|[^\w\s]")


@dataclass(frozen=True)
class Labelled:
    """Sentences with their labels.

    Attributes
    ----------
    sentences
        Words of each sentence.
    labels
        0 for negative, 1 for positive.
    """

    sentences: tuple[Words, ...]
    labels: tuple[int, ...]


def tokenize(text: str) -> Words:
    """Return the words of a sentence.

    Lower case; a word is a run of letters and digits, "n't", "'s", "'re", "'ve", "'ll", "'d", "'m", an ellipsis, a pair
    of quotation marks, or any other sign by itself.
    """
    return tuple(_WORD.findall(_NOT.sub(" n't", text.lower().replace("\u2019", "'"))))
