"""The loop: schedules, callbacks, and passes over finite data, all of which resume exactly."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import rankscope as rs
from rankscope.io.tensor_file import read_file, write_tensors

TASK = rs.tasks.FlipFlop(duration=12)


def network(**options):
    return rs.RateRNN.initialize(TASK, hidden_size=8, rng=0, **options)


class Finite:
    """32 trials in batches, 8 more for validation; interrupted before one of the batches."""

    loss = "squared"

    def __init__(self, stop_at=None):
        self._trials = TASK.sample(32, 0)
        self.left = stop_at

    def sample(self, batch_size, rng):
        return self._trials[:batch_size]

    def batches(self, batch_size, rng):
        for start in rng.permutation(range(0, 32, batch_size)):
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
            yield self._trials[start : start + batch_size]

    def validation(self):
        return [TASK.sample(6, 1), TASK.sample(2, 2)]


def finite_run(path=None, task=None, epochs=4, **options):
    net = network()
    history = rs.train(
        net, task or Finite(), epochs, 0, batch_size=8, checkpoint=path, checkpoint_seconds=999, **options
    )
    return net, history


def test_an_epoch_of_finite_data_is_one_pass():
    steps, losses, net = [], [], network()
    net_twin = network()
    optimizer = torch.optim.Adam([p for p in net_twin.parameters() if p.requires_grad], lr=0.05 / 8)
    rng = np.random.default_rng(0)
    for trials in Finite().batches(8, rng):
        optimizer.zero_grad()
        loss = rs.squared_loss(net_twin(trials.inputs), trials.targets, trials.mask)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    history = rs.train(net, Finite(), 1, 0, batch_size=8, callbacks=[lambda state: steps.append(state.epoch)])
    assert steps == [1]
    np.testing.assert_allclose(history.losses, [np.mean(losses)], rtol=1e-5)
    torch.testing.assert_close(net.recurrent_weights, net_twin.recurrent_weights, rtol=0, atol=1e-5)
    validation = TASK.sample(6, 1), TASK.sample(2, 2)
    expected = np.average([rs.evaluate(net, trials) for trials in validation], weights=[6, 2])
    np.testing.assert_allclose(history.validation_losses, [expected], rtol=1e-6)
    assert {"validation_loss", "validation_accuracy", "loss"} <= set(history.to_dataset())


@pytest.mark.parametrize("stop_at", [0, 1, 5, 11, 15])
def test_an_interrupted_pass_is_repeated_from_its_beginning(tmp_path, stop_at):
    expected_net, expected = finite_run()
    with pytest.raises(KeyboardInterrupt):
        finite_run(tmp_path / "state", Finite(stop_at))
    assert read_file(tmp_path / "state").metadata["epoch"] == str(stop_at // 4)
    net, history = finite_run(tmp_path / "state")
    np.testing.assert_array_equal(history.losses, expected.losses)
    np.testing.assert_array_equal(history.validation_losses, expected.validation_losses)
    assert torch.equal(net.recurrent_weights, expected_net.recurrent_weights)


def test_validation_every_second_epoch():
    _, history = finite_run(epochs=5, validation_every=2)
    assert np.isfinite(history.validation_losses).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "StepLR", "step_size": 2, "gamma": 0.5},
        {"name": "MultiStepLR", "milestones": [2, 5], "gamma": 0.5},
        {"name": "CosineAnnealingLR", "T_max": 6},
        {"name": "OneCycleLR", "max_lr": 0.02, "total_steps": 7},
        {"name": "ReduceLROnPlateau", "patience": 0, "threshold": 0.5},
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.8**epoch),
    ],
)
def test_a_schedule_resumes_exactly(tmp_path, schedule):
    rates = []

    def run(epochs, path=None):
        net = network()
        rs.train(
            net, TASK, epochs, 0, schedule=schedule, batch_size=4, recorded_epochs=2, checkpoint=path,
            callbacks=[lambda state: rates.append(state.optimizer.param_groups[0]["lr"])],
        )  # fmt: skip
        return net

    whole = run(6)
    expected, rates[:] = list(rates), []
    run(3, tmp_path / "state")
    resumed = run(6, tmp_path / "state")
    assert rates == expected
    assert len(set(rates)) > 1
    assert torch.equal(whole.recurrent_weights, resumed.recurrent_weights)


def test_a_callback_that_returns_true_ends_the_training():
    seen = []

    def stop(state):
        seen.append(state.records.losses[-1])
        return state.epoch == 3

    history = rs.train(network(), TASK, 10, 0, callbacks=[stop, lambda state: None])
    assert (history.epochs, history.status) == (3, "stopped")
    assert seen == history.losses.tolist()


class Halved(nn.Module):
    def forward(self, weights):
        return weights / 2


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.readout = nn.RNN(2, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, inputs):
        return self.readout(self.rnn(inputs)[0])


def test_the_effective_matrix_is_recorded():
    net = Own()
    parametrize.register_parametrization(net.rnn, "weight_hh_l0", Halved())
    before = net.rnn.weight_hh_l0.detach().clone()
    history = rs.train(net, TASK, 5, 0, recorded_epochs=[0, 4], record_weights=True)
    assert list(history.matrices) == ["rnn.weight_hh_l0"]
    np.testing.assert_array_equal(history.weights[0], before)
    change = history.weights[1].astype(float) - before.numpy()
    np.testing.assert_allclose(history.singular_values[1], np.linalg.svdvals(change), atol=1e-6)


def test_a_parametrized_network_resumes_exactly(tmp_path):
    def run(epochs, path=None):
        net = Own()
        parametrize.register_parametrization(net.rnn, "weight_hh_l0", Halved())
        return rs.train(net, TASK, epochs, 0, checkpoint=path).losses

    run(3, tmp_path / "state")
    np.testing.assert_array_equal(run(6, tmp_path / "state"), run(6))


def test_sentences_of_different_lengths(sentiment_cache, tmp_path):
    task = rs.tasks.make("sentiment")

    def run(epochs, path=None):
        net = rs.GatedRNN.initialize(
            task, "gru", 8, num_layers=2, rng=0, dropout=0.2, embedding=task.embedding, readout="last"
        )
        kept = [epoch for epoch in (1, 2, 4) if epoch <= epochs]
        return net, rs.train(net, task, epochs, 0, learning_rate=0.02, checkpoint=path, kept_epochs=kept)

    run(2, tmp_path / "state")
    (net, history), (other, resumed) = run(5), run(5, tmp_path / "state")
    assert history.losses[-1] < history.losses[0] / 2
    assert history.validation_accuracies[-1] > 0.8
    np.testing.assert_array_equal(resumed.losses, history.losses)
    np.testing.assert_array_equal(resumed.validation_losses, history.validation_losses)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters(), strict=True))
    assert list(history.kept) == list(resumed.kept) == [1, 2, 4]
    for epoch, weights in history.kept.items():
        assert all(torch.equal(weights[name], value) for name, value in resumed.kept[epoch].items())
    then, _ = run(2)
    torch.testing.assert_close(dict(history.kept[2]), dict(then.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"gamma": [0.1]}, False),
        ({"step_size": 0}, False),
        ({"last_epoch": 10**400}, True),
        ({"_last_lr": ["0.1"]}, True),
        ({"other": 1}, True),
    ],
)
def test_a_schedule_keeps_its_options_and_refuses_other_state(tmp_path, change, refused):
    path, options = tmp_path / "state", {"schedule": {"name": "StepLR", "step_size": 2}, "batch_size": 4}
    rs.train(network(), TASK, 3, 0, checkpoint=path, **options)
    saved = read_file(path)
    tensors, metadata = saved.tensors(), dict(saved.metadata)
    schedule = json.loads(metadata["schedule"])
    schedule["scheduler"] |= change
    write_tensors(path, tensors, metadata | {"schedule": json.dumps(schedule)})
    if refused:
        with pytest.raises(rs.InputError, match="its schedule cannot be used"):
            rs.train(network(), TASK, 5, 0, checkpoint=path, **options)
    else:
        resumed, whole = (rs.train(network(), TASK, 5, 0, checkpoint=state, **options) for state in (path, None))
        assert np.array_equal(resumed.losses, whole.losses)
