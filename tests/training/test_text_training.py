"""Training a text classifier: it learns, is repeatable, goes on bit for bit, and says so when it diverges."""

import numpy as np
import pytest
import torch

from rankscope.errors import InputError
from rankscope.networks.text import TextClassifier
from rankscope.tasks.sentiment.batches import in_order
from rankscope.training.text import evaluate, train_classifier


@pytest.fixture
def new(sentiment_data):
    def make(**options):
        return TextClassifier(sentiment_data.vectors, **{"hidden_size": 8, "rng": 0, **options})

    return make


def weights_of(network):
    return torch.cat([w.detach().ravel() for w in network.parameters()])


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_it_learns(new, sentiment_data, cell):
    network = new(cell=cell, dropout=0.1)
    history = train_classifier(network, sentiment_data, 15, learning_rate=0.02)
    assert history.validation_accuracies[-1] > 0.8
    assert history.losses[-1] < 0.7 * history.losses[0]
    assert history.status == "finished"
    loss, accuracy = evaluate(network, in_order(sentiment_data.validation, 7))
    assert accuracy == history.validation_accuracies[-1]
    assert loss == pytest.approx(history.validation_losses[-1], rel=1e-6)
    assert np.array_equal(network.vectors.detach(), sentiment_data.vectors)


def test_the_default_learning_rate_is_the_papers(new, sentiment_data):
    assert train_classifier(new(), sentiment_data, 1).learning_rate == 0.01 / 8


def test_a_seed_repeats_whatever_torchs_generator_does(new, sentiment_data):
    runs = []
    for state, seed in ((1, 0), (2, 0), (1, 3)):
        torch.manual_seed(state)
        network = new()
        losses = train_classifier(network, sentiment_data, 2, seed).losses
        assert torch.initial_seed() == state
        runs.append((losses, weights_of(network)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][1], runs[2][1])


def test_it_goes_on_bit_for_bit(new, sentiment_data, tmp_path):
    whole = new(train_vectors=True)
    expected = train_classifier(whole, sentiment_data, 6)
    path = tmp_path / "checkpoint"

    class StoppedError(Exception):
        pass

    def stop(done, total, loss):
        if done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_classifier(
            new(train_vectors=True), sentiment_data, 4, checkpoint=path, checkpoint_seconds=0, progress=stop
        )
    train_classifier(new(train_vectors=True), sentiment_data, 4, checkpoint=path)
    network, reports = new(train_vectors=True), []
    history = train_classifier(
        network, sentiment_data, 6, checkpoint=path, progress=lambda *report: reports.append(report)
    )
    assert [report[:2] for report in reports] == [(5, 6), (6, 6)]
    assert history.losses == expected.losses
    assert history.validation_losses == expected.validation_losses
    assert torch.equal(weights_of(network), weights_of(whole))
    done = train_classifier(new(train_vectors=True), sentiment_data, 6, checkpoint=path)
    assert done.losses == expected.losses


@pytest.mark.parametrize(
    ("options", "other", "message"),
    [
        ({"seed": 1}, {}, "with seed = 0, not 1"),
        ({"batch_size": 32}, {}, "with batch_size = 64, not 32"),
        ({}, {"cell": "gru"}, "with cell = 'lstm', not 'gru'"),
        ({}, {"hidden_size": 9}, "with learning_rate"),
        ({}, {"layers": 1}, "with weights"),
        ({"epochs": 1}, {}, "epochs must be >= 2"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(new, sentiment_data, tmp_path, options, other, message):
    train_classifier(new(), sentiment_data, 2, checkpoint=tmp_path / "c")
    with pytest.raises(InputError, match=message):
        train_classifier(new(**other), sentiment_data, **{"epochs": 2, "checkpoint": tmp_path / "c", **options})


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_checkpoint_is_refused(new, sentiment_data, tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint .*c is not"):
        train_classifier(new(), sentiment_data, 2, checkpoint=tmp_path / "c")


def test_a_divergence_is_recorded_and_leaves_finite_weights(new, sentiment_data, tmp_path):
    network = new()
    with torch.no_grad():
        network.readout.weight.fill_(1e38)
    history = train_classifier(network, sentiment_data, 5, checkpoint=tmp_path / "c")
    assert history.status == "diverged"
    assert len(history.losses) == 1
    assert torch.isfinite(weights_of(network)).all()
    again = train_classifier(network, sentiment_data, 5, checkpoint=tmp_path / "c")
    assert again.status == "diverged"
    assert len(again.losses) == 1


@pytest.mark.parametrize(
    "options", [{"epochs": 0}, {"seed": -1}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": np.nan}]
)
def test_what_cannot_be(new, sentiment_data, options):
    with pytest.raises(InputError, match=f"{next(iter(options))} must be"):
        train_classifier(new(), sentiment_data, **options)
