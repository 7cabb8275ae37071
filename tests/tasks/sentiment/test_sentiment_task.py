"""Sentences as trials."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope import tasks
from rankscope.tasks.sentiment.data import save_data


def sentences(trials):
    """Return the words and the label of each trial."""
    words = [trials.inputs[i, : trials.lengths[i], 0].long().tolist() for i in range(len(trials))]
    return list(zip(map(tuple, words), trials.targets.flatten().long().tolist(), strict=True))


def all_sentences(split):
    words = np.split(split.words, np.cumsum(split.lengths)[:-1])
    return [(tuple(row.tolist()), label) for row, label in zip(words, split.labels.tolist(), strict=True)]


def test_a_pass_has_every_sentence_once_in_batches_of_similar_length(sentiment_cache, sentiment_data):
    task = tasks.make("sentiment")
    batches = task.batches(16, rng=0)
    found = [sentence for batch in batches for sentence in sentences(batch)]
    assert sorted(found) == sorted(all_sentences(sentiment_data.train))
    assert max(int(batch.lengths.max() - batch.lengths.min()) for batch in batches) <= 2
    assert all(batch.steps == batch.lengths[0] for batch in batches)
    again, other = (task.batches(16, rng=seed) for seed in (0, 1))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(batches, again, strict=True))
    assert {frozenset(sentences(b)) for b in other} != {frozenset(sentences(b)) for b in batches}


def test_evaluation_uses_the_held_out_sentences(sentiment_cache, sentiment_data):
    task = tasks.make("sentiment")
    held_out = all_sentences(sentiment_data.validation)
    assert sorted(s for batch in task.validation() for s in sentences(batch)) == sorted(held_out)
    assert set(sentences(task.fresh().sample(40, rng=0))) <= set(held_out)
    assert set(sentences(task.sample(40, rng=0))) <= set(all_sentences(sentiment_data.train))
    np.testing.assert_array_equal(task.embedding, sentiment_data.vectors)


def test_padding_is_zero_and_lengths_follow_slices(sentiment_cache):
    trials = tasks.make("sentiment").sample(30, rng=1)
    beyond = torch.arange(trials.steps) >= trials.lengths[:, None]
    assert beyond.any()
    assert (trials.inputs[beyond] == 0).all()
    assert torch.equal(trials[3:5].lengths, trials.lengths[3:5])
    assert torch.equal(trials.to(torch.float64).lengths, trials.lengths)


def test_a_task_is_described_without_its_data(sentiment_cache):
    task = tasks.make("sentiment")
    task.sample(1, rng=0)
    assert tasks.make(tasks.describe(task)) == task
    assert len(pickle.dumps(task)) < 500
    assert tasks.Sentiment("treebank").fingerprint == ""  # not prepared here


def test_other_data_than_described_is_refused(sentiment_cache, sentiment_data):
    path = sentiment_cache / "sentiment-treebank.safetensors"
    save_data(replace(sentiment_data, name="treebank"), path)
    task = tasks.make("sentiment", data="treebank")
    assert task.fingerprint == sentiment_data.fingerprint
    task.example()
    with pytest.raises(rs.InputError, match="prepared again since"):
        tasks.make({**tasks.describe(task), "fingerprint": "0" * 16}).example()
