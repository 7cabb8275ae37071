"""Table of training options: each works for every kind of network, in a job, and resumes exactly."""

import contextlib
import copy
import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import rankscope as rs
from rankscope.errors import InputError

HERE = str(Path(__file__).resolve())
TASK = {"name": "flipflop", "duration": 8}


class Own(nn.Module):
    """A rate network by hand that returns (outputs, rates)."""

    def __init__(self, rng):
        super().__init__()
        for name, shape in {"take": (5, 2), "core": (5, 5), "give": (2, 5)}.items():
            setattr(self, name, nn.Parameter(torch.tensor(rng.normal(0, 0.4, shape), dtype=torch.float32)))

    def forward(self, inputs):
        r, rates = inputs.new_zeros(len(inputs), 5), []
        for u in inputs.unbind(1):
            r = torch.tanh(r @ self.core.T + u @ self.take.T)
            rates.append(r)
        return torch.stack(rates, 1) @ self.give.T, torch.stack(rates, 1)


def make(task, rng):
    return Own(rng)


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def halved(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)


def small_mean_rate(network, rates):
    return rates.mean().square()


NETWORKS = {
    "rate": {"hidden_size": 5},
    "gru": {"kind": "gru", "hidden_size": 5},
    "own": {"kind": f"{HERE}:make"},
}
OPTIONS = {
    "optimizer by name": {"optimizer": "Adagrad"},
    "optimizer with options": {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}},
    "optimizer by function": {"optimizer": f"{HERE}:momentum"},
    "schedule by name": {"schedule": {"name": "CosineAnnealingWarmRestarts", "T_0": 2}},
    "schedule on the validation loss": {
        "schedule": {"name": "ReduceLROnPlateau", "patience": 0, "factor": 0.5},
        "validation_trials": 4,
        "learning_rate": 2.0,
    },
    "schedule by function": {"schedule": f"{HERE}:halved"},
    "learning rates of parameters": {"learning_rates": {"[crl]*": 0.3}},
    "weight decay": {"optimizer": "adamw", "weight_decay": 0.1},
    "clipping": {"clip_norm": 0.01},
    "gradient noise": {"gradient_noise": 0.01},
    "penalty on rates": {"penalties": {"rates_l2": 0.1}},
    "penalties on weights": {"penalties": {"weights_l1": 0.01, "weights_l2": 0.01, "weights_nuclear": 0.01}},
    "own penalty": {"penalties": {f"{HERE}:small_mean_rate": 0.5}},
    "best weights of validation": {"validation_trials": 6, "keep_best": True, "learning_rate": 0.5},
    "early stop on validation": {"validation_trials": 6, "patience": 1, "learning_rate": 0.5},
    "double precision": {"dtype": "float64"},
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("option", OPTIONS)
def test_option_trains_in_a_job_and_resumes_exactly(option, kind, tmp_path):
    options = {"epochs": 6, "batch_size": 4, "learning_rate": 0.02, "recorded_epochs": 2} | OPTIONS[option]
    job = rs.Job(task=TASK, network=NETWORKS[kind], training=options, seed=3, measurements=())
    assert rs.Job.from_json(job.to_json()).digest == job.digest
    network = job.initial_network()
    plain, _, resumed = (copy.deepcopy(network) for _ in range(3))
    task, rng = job.make_task(), job.random_streams()[1]
    whole = rs.train(network, task, rng=copy.deepcopy(rng), config=job.training)
    bare = {"epochs": 6, "batch_size": 4, "learning_rate": options["learning_rate"], "recorded_epochs": 2}
    rs.train(plain, task, rng=copy.deepcopy(rng), **bare)
    same = all(torch.equal(a, b) for a, b in zip(network.parameters(), plain.parameters(), strict=True))
    assert not same or whole.epochs < 6 or option == "best weights of validation"
    done = job.run()
    np.testing.assert_array_equal(done.history.losses, whole.losses)

    def stop(count, total, loss):
        if count == 3:
            raise KeyboardInterrupt

    path = tmp_path / "state"
    with contextlib.suppress(KeyboardInterrupt):
        rs.train(
            copy.deepcopy(resumed), task, rng=copy.deepcopy(rng), config=job.training, checkpoint=path, progress=stop
        )
    found = rs.train(resumed, task, rng=copy.deepcopy(rng), config=job.training, checkpoint=path)
    np.testing.assert_array_equal(found.losses, whole.losses)
    np.testing.assert_array_equal(found.validation_losses, whole.validation_losses)
    for name, weights in network.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def network():
    return rs.RateRNN.initialize(rs.tasks.make(TASK), 6, rng=0)


def test_the_best_weights_are_kept_and_the_training_goes_on_from_the_last(tmp_path):
    task, options = rs.tasks.make(TASK), {"learning_rate": 0.5, "validation_trials": 16, "keep_best": True}
    losses, states = [], []

    def watch(state):
        losses.append(state.validation_loss)
        states.append(state.network.recurrent_weights.detach().clone())
        assert state.loss == state.records.losses[-1]
        assert math.isfinite(state.gradient_norm)

    net = network()
    history = rs.train(net, task, 8, 0, callbacks=[watch], checkpoint=tmp_path / "state", **options)
    best = int(np.argmin(losses))
    np.testing.assert_array_equal(history.validation_losses, losses)
    assert best < 7
    assert torch.equal(net.recurrent_weights, states[best])
    longer, whole = rs.train(net, task, 12, 0, checkpoint=tmp_path / "state", **options), network()
    np.testing.assert_array_equal(longer.losses, rs.train(whole, task, 12, 0, **options).losses)
    assert torch.equal(net.recurrent_weights, whole.recurrent_weights)


def test_options_of_adam_are_those_of_torch():
    nets = [network() for _ in range(3)]
    task, options = rs.tasks.make(TASK), {"weight_decay": 5.0, "learning_rate": 0.05}
    rs.train(nets[0], task, 5, 0, optimizer={"name": "adam", "decoupled_weight_decay": True}, **options)
    rs.train(nets[1], task, 5, 0, optimizer="adamw", **options)
    rs.train(nets[2], task, 5, 0, optimizer="adam", **options)
    torch.testing.assert_close(nets[0].recurrent_weights, nets[1].recurrent_weights)
    assert not torch.allclose(nets[0].recurrent_weights, nets[2].recurrent_weights, rtol=0.01)


def test_learning_rates_of_parameters():
    net = rs.RateRNN.initialize(rs.tasks.make(TASK), 6, rng=0, rank=2, rank_spread=(0.1, 1.0))
    before = copy.deepcopy(net)
    trials = rs.tasks.make(TASK).sample(4, rng=0)
    rs.squared_loss(before(trials.inputs), trials.targets, trials.mask).backward()
    rates = {"recurrent_weights": 0.5, "input*": 0.2}
    rs.train(net, [trials], optimizer="sgd", learning_rate=0.1, learning_rates=rates)
    for name, old in before.named_parameters():
        rate = 0.5 if "parametrizations" in name else {"input_weights": 0.2, "output_weights": 0.1}[name]
        torch.testing.assert_close(dict(net.named_parameters())[name], old - rate * old.grad, rtol=1e-5, atol=1e-7)


def test_penalties_are_what_they_are_called():
    task = rs.tasks.make(TASK)
    trials = task.sample(4, rng=0)
    for penalties, value in (
        ({"rates_l2": 2.0}, lambda net, r: 2 * r.square().mean()),
        ({"weights_l1": 2.0}, lambda net, r: 2 * net.recurrent_weights.abs().sum()),
        ({"weights_l2": 2.0}, lambda net, r: 2 * net.recurrent_weights.square().sum()),
        ({"weights_nuclear": 2.0}, lambda net, r: 2 * torch.linalg.svdvals(net.recurrent_weights).sum()),
        ({small_mean_rate: 2.0}, lambda net, r: 2 * r.mean().square()),
    ):
        ours, theirs = network(), network()
        history = rs.train(ours, [trials], optimizer="sgd", learning_rate=0.1, penalties=penalties)
        outputs, states = theirs(trials.inputs, return_states=True)
        loss = rs.squared_loss(outputs, trials.targets, trials.mask)
        (loss + value(theirs, torch.tanh(states))).backward()
        assert history.losses[0] == pytest.approx(loss.item())
        expected = theirs.recurrent_weights - 0.1 * theirs.recurrent_weights.grad
        torch.testing.assert_close(ours.recurrent_weights, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "Adagrda"}, "did you mean 'adagrad'"),
        ({"optimizer": "LBFGS"}, "optimizer must be one of"),
        ({"optimizer": {"name": "sgd", "momentun": 0.9}}, "option of sgd must be one of .*did you mean 'momentum'"),
        ({"optimizer": {"name": "sgd", "momentum": -1}}, "optimizer sgd cannot be used with"),
        ({"optimizer": "Rprop", "weight_decay": 0.1}, "weight_decay must be 0 for rprop, which has none, got 0.1"),
        (
            {"schedule": {"name": "CyclicLR", "base_lr": 1, "max_lr": 2, "mode": "?"}},
            "schedule CyclicLR cannot be used",
        ),
        ({"penalties": {"weight_l1": 1}}, "did you mean 'weights_l1'"),
        ({"penalties": {"weights_l1": -1}}, "penalties.weights_l1 must be a finite number >= 0"),
        ({"penalties": "weights_l1"}, "penalties must be a mapping"),
        ({"keep_best": True}, "validation_trials must be a number, such as 256, for keep_best=True"),
        ({"patience": 3}, "validation_trials must be a number, such as 256, for patience=3"),
        ({"dtype": "float16"}, "dtype must be one of 'float32', 'float64', got 'float16'"),
        ({"learning_rates": {"recurrent": 0.1}}, "learning_rates must name trained parameters, of .*'recurrent'"),
        ({"learning_rates": {"*": 0.1}, "optimizer": f"{HERE}:momentum"}, "learning_rates must not be given beside"),
        ({"gradient_noise": -1}, "gradient_noise must be a finite number >= 0"),
    ],
)
def test_mistakes_are_named_before_training(options, message):
    with pytest.raises(InputError, match=message):
        rs.train(network(), rs.tasks.make(TASK), 2, 0, **options)


def test_rates_are_penalized_only_where_they_are_known():
    net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    with pytest.raises(InputError, match=r"does not return its rates; return \(outputs, rates\)"):
        rs.train(net, rs.tasks.make(TASK), 2, 0, penalties={"rates_l2": 1.0})


def test_trials_of_different_length_count_up_to_their_length():
    task = rs.tasks.make(TASK)
    short, long = task.sample(3, rng=0), task.sample(2, rng=1)
    short = rs.Trials(short.inputs[:, :14], short.targets[:, :14], short.mask[:, :14])
    batch = rs.Trials.padded([*(short[i : i + 1] for i in range(3)), long])
    assert (batch.batch_size, batch.steps, batch.lengths.tolist()) == (5, 16, [14, 14, 14, 16, 16])
    net = network()
    weights = [trials.mask.sum() for trials in (short, long)]
    parts = [rs.evaluate(net, trials) for trials in (short, long)]
    assert rs.evaluate(net, batch) == pytest.approx(np.average(parts, weights=weights), rel=1e-5)
    for kind in (net, rs.GatedRNN.initialize(task, "gru", 5, rng=0)):
        assert rs.train(kind, [batch, batch], penalties={"rates_l2": 0.1}).status == "finished"


def test_a_callback_of_each_epoch_writes_csv(tmp_path):
    path = tmp_path / "log.csv"

    def log(state):
        with path.open("a", newline="") as file:
            csv.writer(file).writerow([state.epoch, state.loss, state.validation_loss])

    history = rs.train(network(), rs.tasks.make(TASK), 3, 0, callbacks=[log], validation_trials=4)
    rows = np.loadtxt(path, delimiter=",")
    np.testing.assert_array_equal(rows, np.stack([[1, 2, 3], history.losses, history.validation_losses], 1))


def test_a_config_prints_itself():
    config = rs.TrainingConfig(epochs=5, loss=small_mean_rate)
    assert repr(config) == "TrainingConfig(epochs=5, loss=small_mean_rate)"
    assert "* epochs:            5\n  batch_size:        32\n" in str(config)
