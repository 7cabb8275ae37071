"""GloVe's text files, and what is wrong with those that are not."""

import numpy as np
import pytest

from rankscope.errors import InputError
from rankscope.tasks.sentiment import read_glove

FILE = "the 0.5 -1 2e-3\ngood 1 2 3\n. . . 7 8 9\ncaf\u00e9 0 0 1\nthe 9 9 9\n"


def written(tmp_path, content):
    path = tmp_path / "vectors.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_words_and_vectors(tmp_path):
    read = read_glove(written(tmp_path, FILE))
    assert read.words == ("the", "good", ". . .", "café")
    np.testing.assert_array_equal(read.vectors[:3], np.float32([[0.5, -1, 2e-3], [1, 2, 3], [7, 8, 9]]))


def test_only_wanted_words(tmp_path):
    path = written(tmp_path, FILE)
    read = read_glove(path, {"café", "good", "unknown"})
    assert read.words == ("good", "café")
    assert read.vectors.shape == (2, 3)
    assert read_glove(path, {"unknown"}).vectors.shape == (0, 3)
    whole = read_glove(path).only({"good", "café"})
    assert whole.words == read.words
    np.testing.assert_array_equal(whole.vectors, read.vectors)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2\ngood 1\n", "line 2: must be a word and 2 numbers, got 1 numbers"),
        ("the 1 2\ngood 1 2 3\n", "line 2: must be a word and 2 numbers, got 3 numbers"),
        ("the 1 2\ngood 1 two\n", "line 2: must be a word and numbers, got could not convert"),
        ("the 1 nan\n", "line 1: numbers must be finite"),
        ("the 1 1e60\n", "line 1: numbers must be finite"),
        ("the\n", "line 1: must be a word and its numbers, got 0"),
        ("", "an empty file"),
        ("the 1 2\nna\u00efve 1 2\n".encode("latin-1"), "line 2: must be UTF-8, got the byte 0xef"),
        (b"PK\x03\x04\x14\x00\x00\x00\xff\xfe", "must be UTF-8"),
    ],
)
def test_other_files(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_glove(written(tmp_path, content))


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"vectors must be a text file of GloVe, got .*not there"):
        read_glove(tmp_path / "glove.txt")


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("rankscope.tasks.sentiment.readers.LONGEST_LINE", 1000)
    with pytest.raises(InputError, match="line 1: must have at most 1000 bytes"):
        read_glove(written(tmp_path, "x" * 100_000))
