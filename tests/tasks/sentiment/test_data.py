"""Prepared sets."""

from dataclasses import replace

import numpy as np
import pytest

from rankscope.errors import InputError
from rankscope.tasks.sentiment import Labelled, WordVectors, load_data, prepare
from rankscope.tasks.sentiment import data as module

VECTORS = WordVectors(("good", "bad", "unused"), np.arange(6, dtype=np.float32).reshape(3, 2))
TRAIN = Labelled((("good",), ("a", "bad", "film")), (1, 0))
VALIDATION = Labelled((("good", "good"),), (1,))


def test_sentences_become_rows_of_the_vectors():
    prepared = prepare("snippets", TRAIN, VALIDATION, VECTORS)
    np.testing.assert_array_equal(prepared.vectors, [[0, 0], [0, 1], [2, 3]])
    assert prepared.train.words.tolist() == [1, 0, 2, 0]
    assert prepared.train.lengths.tolist() == [1, 3]
    assert prepared.validation.labels.tolist() == [1]
    assert prepared.coverage == pytest.approx(4 / 6)
    assert prepared.vocabulary_coverage == pytest.approx(2 / 4)


def test_vectors_of_other_words():
    with pytest.raises(InputError, match="vectors must contain some of the words"):
        prepare("snippets", TRAIN, VALIDATION, VECTORS.only({"unused"}))


def test_what_is_saved_comes_back(tmp_path, sentiment_data):
    path = tmp_path / "sentiment-snippets.safetensors"
    module.save_data(sentiment_data, path)
    back = load_data("snippets", tmp_path)
    assert back.summary() == sentiment_data.summary()
    np.testing.assert_array_equal(back.train.words, sentiment_data.train.words)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    for damaged in (bytes(content), bytes(content[:-100]), b"", b"x" * 100):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"is damaged .*rankscope data sentiment"):
            load_data("snippets", tmp_path)


def test_missing_data_names_the_command(tmp_path):
    for name, command in (("snippets", "data sentiment$"), ("treebank", "--treebank PATH --vectors FILE$")):
        with pytest.raises(InputError, match=rf"prepare it with: rankscope .*{command}"):
            load_data(name, tmp_path)
    with pytest.raises(InputError, match="did you mean 'snippets'"):
        load_data("snippet", tmp_path)


def test_the_split_is_fixed_and_whole():
    many = Labelled(tuple((str(i),) for i in range(30)), tuple(i % 2 for i in range(30)))
    train, validation = module.split(many, 10)
    assert module.split(many, 10) == (train, validation)
    assert len(validation.labels) == 10
    assert set(train.sentences) | set(validation.sentences) == set(many.sentences)
    assert not set(train.sentences) & set(validation.sentences)
    assert all(int(words[0]) % 2 == label for words, label in zip(train.sentences, train.labels, strict=True))
    with pytest.raises(InputError, match="more than 30 sentences"):
        module.split(many, 30)


def test_the_treebank_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKSCOPE_CACHE", str(tmp_path / "cache"))
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.txt").write_text("(3 (2 it) (4 good))\n(1 (2 it) (0 bad))\n")
    (tmp_path / "glove.txt").write_text("good 1 2\nbad -1 2\n")
    prepared = module.prepare_treebank(module.cache_folder(), tmp_path, tmp_path / "glove.txt")
    assert prepared.coverage == 0.5
    assert module.fingerprint_of("treebank") == prepared.fingerprint == load_data("treebank").fingerprint


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ({}, {"coverage": "1"}),
        ({}, {"name": 3}),
        ({}, {"vectors": np.zeros((3, 2))}),
        ({}, {"vectors": np.zeros((0, 2), np.float32)}),
        ({"words": np.array([1, 0, 2, 9])}, {}),
        ({"words": np.array([1, 0, 2, -1])}, {}),
        ({"words": np.array([[1, 0, 2, 0]])}, {}),
        ({"words": np.array([1, 0, 2, 0], np.uint8)}, {}),
        ({"lengths": np.array([1, 2])}, {}),
        ({"lengths": np.array([4, 0])}, {}),
        ({"lengths": np.array([-1, 5])}, {}),
        ({"labels": np.array([1])}, {}),
        ({"labels": np.array([1, 2])}, {}),
        ({"labels": np.array([0.5, 1])}, {}),
    ],
)
def test_content_that_would_make_training_fail_is_refused(tmp_path, part, change):
    """Also with a fingerprint that fits."""
    good = prepare("snippets", TRAIN, VALIDATION, VECTORS)
    changed = replace(good, train=replace(good.train, **part), **change)
    changed = replace(
        changed, fingerprint=module.content_fingerprint(changed.vectors, (changed.train, changed.validation))
    )
    module.save_data(changed, tmp_path / "set")
    with pytest.raises(InputError, match="is damaged"):
        module.read_data(tmp_path / "set")
