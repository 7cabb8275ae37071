"""The text classifier: initial weights as in the paper; the same outputs packed, one by one, and by the equation."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from rankscope.errors import InputError
from rankscope.networks.text import CELLS, GATES, TextClassifier
from rankscope.tasks.sentiment.batches import pack

VECTORS = np.random.default_rng(0).normal(size=(41, 6)).astype(np.float32)


def classifier(**options):
    return TextClassifier(VECTORS, **{"hidden_size": 16, "rng": 0, **options})


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_packed_is_one_by_one(sentiment_data, cell, layers):
    network = classifier(cell=cell, layers=layers).eval()
    split = sentiment_data.train
    indices = np.arange(30)
    together = network(pack(split, indices).words)
    order = indices[np.argsort(-split.lengths[indices], kind="stable")]
    alone = torch.cat([network(pack(split, np.array([index])).words) for index in order])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_sentences_may_come_in_any_order(cell):
    network = classifier(cell=cell).eval()
    sentences = [torch.arange(length) + 3 for length in (2, 5, 1, 5, 3)]
    together = network(pack_sequence(sentences, enforce_sorted=False))
    alone = torch.cat([network(pack_sequence([sentence])) for sentence in sentences])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_outputs_and_gradients_are_those_of_torchs_packed_layers(sentiment_data, cell):
    network = classifier(cell=cell, train_vectors=True, dropout=0.0)
    batch = pack(sentiment_data.train, np.arange(40))
    outputs = network(batch.words)
    outputs.square().sum().backward()
    ours = [weights.grad.clone() for weights in network.parameters()]
    network.zero_grad()
    seen = PackedSequence(nn.functional.embedding(batch.words.data, network.vectors), batch.words.batch_sizes)
    states = network.layers(seen)[1]
    expected = network.readout((states[0] if cell == "lstm" else states)[-1]).squeeze(1)
    torch.testing.assert_close(outputs, expected)
    expected.square().sum().backward()
    for found, weights in zip(ours, network.parameters(), strict=True):
        torch.testing.assert_close(found, weights.grad, atol=1e-5, rtol=1e-4)


def test_the_lstm_is_its_equation():
    network = classifier().eval()
    words = torch.tensor([3, 0, 7, 7])
    x = network.vectors[words]
    w = dict(network.layers.named_parameters())
    for layer in range(2):
        h, c, states = torch.zeros(16), torch.zeros(16), []
        for row in x:
            drive = w[f"weight_ih_l{layer}"] @ row + w[f"weight_hh_l{layer}"] @ h
            i, f, g, o = (drive + w[f"bias_ih_l{layer}"] + w[f"bias_hh_l{layer}"]).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        x = torch.stack(states)
    expected = network.readout.weight[0] @ x[-1] + network.readout.bias[0]
    packed = PackedSequence(words, torch.ones(4, dtype=torch.int64))
    assert network(packed).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_initial_weights_are_uniform_within_the_bounds_of_the_paper(cell):
    network = TextClassifier(VECTORS, 100, cell, rng=0)
    bounds = {"weight_ih_l0": 1 / np.sqrt(6)}
    named = dict(network.layers.named_parameters()) | {"readout": network.readout.weight}
    for name, weights in named.items():
        bound = bounds.get(name, 0.1)
        assert weights.abs().max() <= bound
        assert weights.abs().max() > 0.9 * bound
        if weights.numel() > 1000:
            assert weights.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert named["weight_ih_l0"].shape == (len(GATES[cell]) * 100, 6)


def test_a_seed_repeats_and_torchs_own_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, again, other = classifier(), classifier(), classifier(rng=1)
    assert torch.rand(1) == expected
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.readout.weight, other.readout.weight)


def test_the_inner_weights_and_what_learns():
    network = classifier(layers=3)
    assert list(network.inner_weights()) == [
        "weight_hh_l0",
        "weight_hh_l1",
        "weight_hh_l2",
        "weight_ih_l1",
        "weight_ih_l2",
    ]
    assert {tuple(w.shape) for w in network.inner_weights().values()} == {(64, 16)}
    assert not network.vectors.requires_grad
    assert classifier(train_vectors=True).vectors.requires_grad


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_is_for_training(layers):
    network = classifier(dropout=0.5, layers=layers)
    packed = PackedSequence(torch.tensor([1, 2]), torch.tensor([1, 1]))
    assert network.train()(packed) != network(packed)
    assert network.eval()(packed) == network(packed)


def test_word_vectors_have_a_dropout_of_their_own():
    network = classifier(dropout=0.0, vector_dropout=0.5, layers=1)
    packed = PackedSequence(torch.tensor([1, 2]), torch.tensor([1, 1]))
    assert network.train()(packed) != network(packed)
    assert network.eval()(packed) == classifier(dropout=0.0, layers=1).eval()(packed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "ltsm"}, "did you mean 'lstm'"),
        ({"hidden_size": 0}, "hidden_size must be a whole number >= 1"),
        ({"layers": 0}, "layers must be"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"vector_dropout": -0.1}, "vector_dropout must be"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        classifier(**options)


def test_vectors_must_be_finite_numbers():
    with pytest.raises(InputError, match="vectors must be finite numbers"):
        TextClassifier(np.full((3, 2), np.nan, dtype=np.float32))
    with pytest.raises(InputError, match="vectors must be finite numbers"):
        TextClassifier(np.zeros(3, dtype=np.float32))
