"""Sentences of film reviews with the mean of twenty people's ratings, from -4 (very negative) to 4 (very positive).

They are the sentences of Rotten Tomatoes that the treebank was made of, rated anew. One line a sentence: number, mean
rating, text, separated by tabs. The label is the sign of the rating. As in the treebank, the middle fifth of the scale
(up to 0.8 on either side of 0) counts as neutral and is dropped, which leaves 9,565 of 10,605 sentences.

Source: Hutto, Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social media text", ICWSM
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
    """Return the sentences that are not neutral.

    Parameters
    ----------
    name
        What to call the file in messages.

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
            raise InputError(f"{where}: must be number, rating and text between tabs, got {len(parts)} parts")
        rating, words = _rating(parts[1], where), tokenize(parts[2])
        if not words:
            raise InputError(f"{where}: must have a text, got none")
        if abs(rating) > NEUTRAL:
            sentences.append(words)
            labels.append(int(rating > 0))
    if not sentences:
        raise InputError(f"{name} must hold rated sentences that are not all neutral, got none")
    return Labelled(tuple(sentences), tuple(labels))


def _rating(text: str, where: str) -> float:
    try:
        rating = float(text)
    except ValueError:
        rating = math.nan
    if not abs(rating) <= LARGEST:
        raise InputError(f"{where}: the rating must be a number from -4 to 4, got {text[:20]!r}")
    return rating
