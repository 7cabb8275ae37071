"""The five tasks of Dubreuil et al. 2022: trials as the paper has them, drawn from a fixed set, with its loss."""

import math

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import steps_per_epoch
from rankscope.tasks.fixed_set import sign_accuracy

FIVE = {
    "perceptual_decision": (1, 51),
    "parametric_working_memory": (1, 70),
    "multisensory_decision": (4, 68),
    "context_dependent_decision": (4, 68),
    "delayed_match": (2, 255),
}


def drawn(name, count=3000, **parameters):
    trials = rs.tasks.make(name, **parameters).sample(count, rng=1)
    return trials.inputs.double().numpy(), trials.targets[..., 0].numpy(), trials.mask[..., 0].numpy()


def answers(targets, mask):
    """Return the one target of each trial; it holds wherever the mask is 1, and elsewhere the target is 0."""
    found = targets.sum(1) / mask.sum(1)
    np.testing.assert_allclose(targets, mask * found[:, None], rtol=1e-6)
    return found


@pytest.mark.parametrize(("name", "sizes"), FIVE.items())
def test_sizes_and_the_fixed_set(name, sizes):
    task = rs.tasks.make(name, trials=10, validation_trials=3, trials_seed=5)
    assert (task.input_size, task.steps, task.output_size, task.dt) == (*sizes, 1, 0.2)
    (held,) = task.validation()
    batches = [batch for seed in range(30) for batch in task.batches(3, rng=seed)]
    assert len(batches) == 30 * (10 // 3)
    known = {trial.numpy().tobytes() for batch in batches for trial in batch.inputs}
    assert len(known) == 10
    assert all(len({trial.numpy().tobytes() for trial in batch.inputs}) == 3 for batch in batches)
    assert not known & {trial.numpy().tobytes() for trial in held.inputs}
    assert torch.equal(
        held.inputs, rs.tasks.make(name, trials=10, validation_trials=3, trials_seed=5).validation()[0].inputs
    )
    assert not torch.equal(held.inputs, rs.tasks.make(name, trials=10, validation_trials=3).validation()[0].inputs)
    assert steps_per_epoch({"name": name}) == 25 * sizes[1]
    with pytest.raises(InputError, match="batch_size must be"):
        task.batches(11)


def test_one_channel_of_evidence():
    inputs, targets, mask = drawn("perceptual_decision")
    np.testing.assert_array_equal(mask.sum(1), 1)
    assert (mask[:, -1] == 1).all()
    shown = inputs[:, 5:45, 0]
    coherence = shown.mean(1) / 0.1
    nearest = np.array([-4, -2, -1, 1, 2, 4])[np.abs(coherence[:, None] - [-4, -2, -1, 1, 2, 4]).argmin(1)]
    np.testing.assert_array_equal(answers(targets, mask), np.sign(nearest))
    assert abs((shown - 0.1 * nearest[:, None]).std() - 0.1) < 0.001
    assert abs(np.r_[inputs[:, :5].ravel(), inputs[:, 45:].ravel()].std() - 0.1) < 0.002
    counts = np.unique(nearest, return_counts=True)[1]
    assert np.abs(counts - 500).max() < 100


@pytest.mark.parametrize("name", ["context_dependent_decision", "multisensory_decision"])
def test_two_channels_of_evidence(name):
    inputs, targets, mask = drawn(name, noise=0)
    np.testing.assert_array_equal(np.flatnonzero(mask.any(0)), [67])
    context = inputs[:, 5, 2:]
    np.testing.assert_allclose(inputs[:, 5:67, 2:], np.repeat(context[:, None], 62, 1))
    assert not inputs[:, :5].any()
    assert not inputs[:, 67].any()
    evidence = inputs[:, 22, :2]
    np.testing.assert_allclose(inputs[:, 22:62, :2], np.repeat(evidence[:, None], 40, 1))
    assert not inputs[:, 5:22, :2].any()
    assert not inputs[:, 62:, :2].any()
    answer, on = answers(targets, mask), context > 0.05
    np.testing.assert_allclose(context[on], 0.1, rtol=1e-6)
    for side in (0, 1):
        np.testing.assert_array_equal(answer[on[:, side]], np.sign(evidence[on[:, side], side]))
    if name == "context_dependent_decision":
        assert (on.sum(1) == 1).all()
        assert abs(np.corrcoef(evidence.T)[0, 1]) < 0.08
    else:
        kinds = np.array([on[:, 0] & on[:, 1], on[:, 0] & ~on[:, 1], on[:, 1] & ~on[:, 0]])
        assert np.abs(kinds.sum(1) - 1000).max() < 130
        np.testing.assert_array_equal(evidence != 0, on)


def test_two_frequencies():
    inputs, targets, mask = drawn("parametric_working_memory", noise=0)
    np.testing.assert_array_equal(mask.sum(1), 5)
    begin = mask.argmax(1)  # of the decision
    delay = begin - 15
    assert (delay.min(), delay.max()) == (25, 50)
    rows = np.arange(len(inputs))
    first, second = (inputs[rows, at, 0] * 24 + 22 for at in (np.full(len(rows), 5), begin - 1))
    np.testing.assert_allclose(answers(targets, mask) * 24, first - second, atol=1e-4)
    assert {round(abs(one)) for one in first - second} == {8, 16, 24}
    assert first.min() > 9.9
    assert first.max() < 34.1
    # 17, 9 and 1 pairs of frequencies have each difference.
    assert abs(np.isclose(np.abs(first - second), 8, atol=1e-3).mean() - 17 / 27) < 0.04


def test_two_stimuli():
    inputs, targets, mask = drawn("delayed_match", noise=0)
    np.testing.assert_array_equal(mask.sum(1), 50)
    begin = mask.argmax(1)
    assert (begin - 5 - 50).min() == 25
    assert (begin - 5 - 50).max() == 150
    rows = np.arange(len(inputs))
    first, second = inputs[:, 5], inputs[rows, begin - 1]
    assert (inputs.sum((1, 2)) == 50).all()
    np.testing.assert_array_equal(first.sum(1), 1)
    np.testing.assert_array_equal(answers(targets, mask), np.where((first == second).all(1), 1, -1))
    assert abs((answers(targets, mask) == 1).mean() - 0.5) < 0.05


def test_training_is_that_of_the_paper():
    """Equation, loss, noise, clipping and Adam as published, written down once more."""
    task = rs.tasks.make("context_dependent_decision", trials=12, validation_trials=4)
    network = rs.RateRNN.initialize(
        task, 8, 0.9, rng=0, exact_norms=False, noise_std=0.05 / math.sqrt(0.2), trained=("input", "recurrent")
    )
    M, W, w = (getattr(network, f"{name}_weights").detach().clone() for name in ("input", "recurrent", "output"))
    learned = [M.requires_grad_(), W.requires_grad_()]
    optimizer, rng = torch.optim.Adam(learned, lr=1e-2), np.random.default_rng(3)
    for batch in task.batches(4, rng):
        h, outputs = torch.zeros(4, 8), []
        noise = torch.from_numpy(rng.standard_normal((4, 68, 8), dtype=np.float32))
        for t in range(68):
            h = h + 0.05 * noise[:, t] + 0.2 * (-h + torch.tanh(h) @ W.T + batch.inputs[:, t] @ M.T)
            outputs.append(torch.tanh(h) @ w.T)
        squares = (batch.mask * (torch.stack(outputs, 1) - batch.targets)).square().sum((1, 2))
        loss = (squares / batch.mask.sum((1, 2))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 0.02)
        optimizer.step()
    options = {"learning_rate": 1e-2, "batch_size": 4, "optimizer": {"name": "adam", "eps": 5e-9}}
    # Our loss is half of theirs, and so are its gradients, the bound on them, and Adam's epsilon beside them.
    history = rs.train(network, task, 1, np.random.default_rng(3), config=rs.TrainingConfig(**options, clip_norm=0.01))
    torch.testing.assert_close(network.recurrent_weights.detach(), W.detach(), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(network.input_weights.detach(), M.detach(), atol=2e-5, rtol=1e-4)
    assert 0 <= history.validation_accuracies[-1] <= 1
    stopped = rs.train(network, task, 5, 0, config=rs.TrainingConfig(**options, stop_loss=10.0))
    assert (stopped.status, stopped.epochs) == ("stopped", 1)


def test_accuracy_is_that_of_signs():
    outputs = torch.tensor([[9.0, -1, -2], [-9, 3, -1], [0, -3, 1], [5, 5, 5]])[..., None]
    targets = torch.tensor([[0.0, -1, -1], [0, 1, 1], [0, 1, 1], [0, 0, 0]])[..., None]
    mask = torch.tensor([0.0, 1, 1]).expand(4, 3)[..., None]
    assert sign_accuracy(outputs, targets, mask) == pytest.approx(2 / 3)  # the last has no answer
    with pytest.raises(InputError, match="one channel"):
        sign_accuracy(outputs.expand(4, 3, 2), targets.expand(4, 3, 2), mask.expand(4, 3, 2))
    with pytest.raises(InputError, match="mean other than 0"):
        sign_accuracy(outputs[3:], targets[3:], mask[3:])


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("perceptual_decision", {"trials": 0}, "trials must be a whole number >= 1, got 0"),
        ("perceptual_decision", {"coherences": (0, 1)}, "coherences must be one or more numbers other than 0"),
        ("multisensory_decision", {"coherences": (1, 2)}, "coherences must have both signs"),
        ("context_dependent_decision", {"context": 0.1}, "dt must be at most 0.1, so that context"),
        ("parametric_working_memory", {"differences": (25,)}, "differences must be whole numbers of at most 24"),
        ("parametric_working_memory", {"frequency_min": 40}, "frequency_min must be below frequency_max = 34, got 40"),
        ("delayed_match", {"delay_min": 31}, "delay_min must be at most delay_max = 30, got 31"),
    ],
)
def test_impossible_parameters_are_refused(name, wrong, message):
    with pytest.raises(InputError, match=message):
        rs.tasks.make(name, **wrong)
