"""TrainingConfig: options are validated, and have one canonical JSON form."""

import functools
import json
import pickle
import subprocess
import sys

import pytest
import torch

import rankscope as rs

TASK = rs.tasks.FlipFlop(duration=12)


def network():
    return rs.RateRNN.initialize(TASK, hidden_size=8, rng=0)


def slow_sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01)


def test_json_and_back():
    config = rs.TrainingConfig(
        epochs=7, recorded_epochs=[0, 3], schedule={"name": "StepLR", "step_size": 2}, loss="squared"
    )
    text = json.dumps(config.model_dump(mode="json"))
    assert rs.TrainingConfig(**json.loads(text)) == config
    assert config != rs.TrainingConfig(epochs=8)


def test_a_function_is_described_by_reference_and_source():
    described = rs.TrainingConfig(optimizer=slow_sgd).model_dump(mode="json")["optimizer"]
    assert described["function"].endswith("test_config:slow_sgd")
    assert len(described["source"]) == 12


def test_a_function_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def loss(outputs, targets, mask):\n    return ((outputs - targets) ** 2).mean()\n"
    )
    config = rs.TrainingConfig(loss=f"{tmp_path}/mine.py:loss")
    described = config.model_dump(mode="json")
    assert described["loss"]["function"] == f"{tmp_path}/mine.py:loss"
    again = rs.TrainingConfig(**described)
    assert again.loss is config.loss
    assert rs.train(network(), TASK, config=rs.TrainingConfig(epochs=2, loss=config.loss)).epochs == 2


def test_a_function_whose_source_has_changed_is_refused(tmp_path):
    file = tmp_path / "mine.py"
    text = "import torch\nSCALE = 1\ndef function(one, *others):\n    return one * SCALE\n"
    file.write_text(text)
    name = f"{file}:function"
    described = rs.TrainingConfig(optimizer=name, schedule=name, loss=name, penalties={name: 1}).model_dump(mode="json")
    for option in ("optimizer", "schedule", "loss", "penalties"):
        file.write_text(text.replace("SCALE = 1", "SCALE = 2"))
        with pytest.raises(rs.InputError, match=rf"{option} must be '.*:function' with the source .* it has changed"):
            rs.TrainingConfig(**{option: described[option]})
        file.write_text(text)
        assert rs.TrainingConfig(**{option: described[option]}).model_dump(mode="json")[option] == described[option]


def test_a_config_with_functions_from_a_file_reaches_other_processes(tmp_path):
    (tmp_path / "mine.py").write_text("def function(one, *others):\n    return one\n")
    name = f"{tmp_path}/mine.py:function"
    config = rs.TrainingConfig(loss=name, penalties={name: 0.5, "weights_l1": 1}, epochs=3)
    program = "import pickle, sys; c = pickle.load(sys.stdin.buffer); print(c.loss(5), c.epochs, *c.penalties.values())"
    options = {"input": pickle.dumps(config), "capture_output": True}
    assert subprocess.run([sys.executable, "-c", program], **options).stdout.split() == [b"5", b"3", b"0.5", b"1.0"]


def test_a_job_refuses_functions_that_its_description_cannot_tell_apart():
    def sgd(rate):
        return lambda parameters: torch.optim.SGD(parameters, lr=rate)

    for optimizer in (functools.partial(torch.optim.SGD, lr=0.1), sgd(0.1)):
        job = rs.Job(task="flipflop", training={"optimizer": optimizer})
        with pytest.raises(rs.InputError, match="optimizer must be a function at the top level of a file"):
            _ = job.digest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lerning_rate": 1}, "did you mean 'learning_rate'"),
        ({"optimizer": "adma"}, "did you mean 'ada"),
        ({"schedule": {"name": "StepLr"}}, "did you mean 'StepLR'"),
        ({"schedule": {"name": "StepLR", "stepsize": 3}}, "schedule StepLR has other options"),
        ({"schedule": "StepLR"}, "schedule must be a function or a mapping"),
        ({"loss": "no_such_module:loss"}, "that can be imported"),
        ({"weight_decay": -1}, "weight_decay must be a finite number >= 0"),
        ({"epochs": 0}, "epochs must be a whole number >= 1"),
        ({"matrices": "W"}, "matrices must be a list"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(rs.InputError, match=message):
        rs.TrainingConfig(**options)
    with pytest.raises(rs.InputError, match=message):
        rs.train(network(), TASK, **options)


def test_a_config_or_options_but_not_both():
    config = rs.TrainingConfig(epochs=3, batch_size=4)
    assert rs.train(network(), TASK, rng=0, config=config).epochs == 3
    by_options = rs.train(network(), TASK, rng=0, epochs=3, batch_size=4)
    assert by_options.losses.tolist() == rs.train(network(), TASK, rng=0, config=config).losses.tolist()
    with pytest.raises(rs.InputError, match="options must be fields of config"):
        rs.train(network(), TASK, config=config, batch_size=5)


def test_an_optimizer_of_the_user_is_the_named_one():
    nets = [network(), network()]
    rs.train(nets[0], TASK, 4, 0, optimizer=slow_sgd)
    rs.train(nets[1], TASK, 4, 0, optimizer="sgd", learning_rate=0.01)
    torch.testing.assert_close(nets[0].recurrent_weights, nets[1].recurrent_weights, rtol=1e-6, atol=1e-8)


def test_weight_decay_shrinks_the_weights():
    nets = [network(), network()]
    for net, decay in zip(nets, (0.0, 10.0), strict=True):
        rs.train(net, TASK, 4, 0, optimizer="sgd", weight_decay=decay)
    assert nets[1].recurrent_weights.norm() < nets[0].recurrent_weights.norm()
