"""Sentences of film reviews with the mean of twenty people's ratings, from -4 (very negative) to 4 (very positive).

The sentences are those of Rotten Tomatoes on which the treebank is based, with new ratings. A line holds number, mean
rating and text, separated by tabs. The label is the sign of the rating. As in the treebank, the middle fifth of the
scale (-0.8 to 0.8) is neutral and dropped, which leaves 9,565 of 10,605 sentences.

References
----------
Hutto, Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social media text", ICWSM
2014.
"""

from __future__ import annotations

import math
from typing import BinaryIO

from rankscope.errors import InputError
from rankscope.tasks.sentiment.lines import numbered_lines
from rankscope.tasks.sentiment.sentences import Labelled, tokenize

NEUTRAL = 0.8
LARGEST = 4.0


def read_snippets(file: BinaryIO, name: str) -> Labelled:
    """Read the sentences that are not neutral.

    Parameters
    ----------
    name
        Name of the file in error messages.

    Raises
    ------
    InputError
        If a line is not a number, a rating within -4 and 4, and a text; the message names it.
    """
    sentences, labels = [], []
    for number, line in numbered_lines(file, name):
        where = f"{name}, line {number}"
        parts = line.split("\t")
        if len(parts) != 3:
            raise InputError(f"{where}: must be number, rating and text between tabs, got {len(parts)} fields")
        rating, words = _rating(parts[1], where), tokenize(parts[2])
        if not words:
            raise InputError(f"{where}: must have a text, got none")
        if abs(rating) > NEUTRAL:
            sentences.append(words)
            labels.append(int(rating > 0))
    if not sentences:
        raise InputError(f"{name} must contain rated sentences that are not all neutral, got none")
    return Labelled(tuple(sentences), tuple(labels))


def _rating(text: str, where: str) -> float:
    try:
        rating = float(text)
    except ValueError:
        rating = math.nan
    if not abs(rating) <= LARGEST:
        raise InputError(f"{where}: the rating must be a number from -4 to 4, got {text[:20]!r}")
    return rating
