"""Rated sentences, and how text becomes words."""

import io

import pytest

from rankscope.errors import InputError
from rankscope.tasks.sentiment import read_snippets, tokenize


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It doesn't work.", "it does n't work ."),
        ("They're Sam's, I'd say; can't won't", "they 're sam 's , i 'd say ; ca n't wo n't"),
        ("''Conan''... again", "'' conan '' ... again"),
        ("Jirí\u2019s film \u2013 7/10!", "jirí 's film \u2013 7 / 10 !"),
        ("the boys' story", "the boys ' story"),
        ("  ", ""),
    ],
)
def test_words(text, words):
    assert tokenize(text) == tuple(words.split())


def read(content):
    return read_snippets(io.BytesIO(content if isinstance(content, bytes) else content.encode()), "file")


def test_labels_are_signs_without_the_middle_fifth():
    found = read("1\t2.5\tGood one\r\n2\t-0.81\tNot so\r\n3\t0.8\tMiddling\r\n4\t-0.8\tMiddling\r\n5\t0\tNone\r\n")
    assert found.sentences == (("good", "one"), ("not", "so"))
    assert found.labels == (1, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\t2.5\tGood\n2\t2.5\n", "line 2: must be number, rating and text between tabs, got 2 fields"),
        ("1\tgood\tGood\n", "line 1: the rating must be a number from -4 to 4, got 'good'"),
        ("1\t4.5\tGood\n", "from -4 to 4, got '4.5'"),
        ("1\tnan\tGood\n", "from -4 to 4, got 'nan'"),
        ("1\t2\t \n", "line 1: must have a text"),
        ("1\t0.1\tMiddling\n", "not all neutral"),
        ("", "not all neutral"),
        (b"1\t2\t\xff\n", "line 1: must be UTF-8, got the byte 0xff"),
    ],
)
def test_other_files(content, message):
    with pytest.raises(InputError, match=message):
        read(content)
