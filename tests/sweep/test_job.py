"""A job is data: equal descriptions mean equal networks, and whatever determines a network is in the digest."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError
from rankscope.networks.protocol import outputs_of

TINY = {"task": "flipflop", "network": {"hidden_size": 12, "gain": 0.8}, "training": {"epochs": 5}, "seed": 3}


def tiny(**changes):
    return rs.Job(**{"measurements": (), **TINY, **changes})


@dataclass(frozen=True)
class Constant:
    """A task of a user's own."""

    level: float = 1.0

    def sample(self, batch_size, rng):
        shape = (batch_size, 6, 1)
        return rs.Trials.from_arrays(rng.normal(size=shape), np.full(shape, self.level), np.ones(shape))


def test_the_networks_follow_from_the_seed_alone():
    """Weights and training draw from the first two children of the seed, whatever is measured afterwards."""
    done = tiny().run()
    weights, training = map(np.random.default_rng, np.random.SeedSequence(3).spawn(2))
    task = rs.tasks.FlipFlop()
    network = rs.RateRNN.initialize(task, hidden_size=12, gain=0.8, rng=weights)
    assert torch.equal(done.before.recurrent_weights, network.recurrent_weights)
    history = rs.train(network, task, epochs=5, rng=training)
    assert torch.equal(done.after.recurrent_weights, network.recurrent_weights)
    np.testing.assert_array_equal(done.history.losses, history.losses)
    more = tiny(measurements=("spectra", "shuffle")).run()
    assert torch.equal(more.after.recurrent_weights, network.recurrent_weights)
    assert "shuffled_loss" in more.measurements
    assert "shuffled_loss" not in done.measurements


def test_the_result_carries_its_labels():
    measured = tiny(labels={"sample": 2, "variant": "a"}).run().measurements
    labels = {name: value.item() for name, value in measured.coords.items() if value.ndim == 0}
    expected = {"task": "flipflop", "kind": "rate", "gain": 0.8, "hidden_size": 12, "seed": 3}
    assert labels == expected | {"sample": 2, "variant": "a"}


@pytest.mark.parametrize(
    "changes",
    [
        {"task": {"name": "flipflop", "channels": 3}},
        {"network": {"hidden_size": 12, "gain": 0.8, "noise_std": 0.1}},
        {"network": {"kind": "gru", "hidden_size": 12}},
        {"training": {"epochs": 6}},
        {"seed": 4},
        {"labels": {"sample": 1}},
        {"task": Constant()},
    ],
)
def test_the_digest_tells_different_networks_apart(changes):
    assert tiny(**changes).digest != tiny().digest


def test_the_digest_is_that_of_the_content():
    job = tiny()
    assert job.digest == tiny(task=rs.tasks.FlipFlop()).digest == tiny(measurements=("spectra",)).digest
    assert job.digest == tiny(training=rs.TrainingConfig(epochs=5, batch_size=32)).digest
    assert rs.Job(task="flipflop").digest == rs.Job(task="flipflop", network={"gain": 0.9, "hidden_size": 256}).digest
    assert tiny(task=Constant()).digest == tiny(task=Constant(1.0)).digest != tiny(task=Constant(2.0)).digest


@pytest.mark.parametrize("changes", [{}, {"measurements": ("norms",)}, {"labels": {"sample": 1, "on": True}}])
def test_json_describes_the_whole_job(changes):
    job = tiny(**changes)
    again = rs.Job.from_json(job.to_json())
    assert again.to_json() == job.to_json()
    assert again.digest == job.digest
    assert again.measurements == job.measurements
    assert torch.equal(again.run().after.recurrent_weights, job.run().after.recurrent_weights)


def test_a_gated_network_is_a_job_like_any_other():
    done = tiny(network={"kind": "gru", "hidden_size": 6}, measurements=("norms",)).run()
    outputs = outputs_of(done.after, rs.tasks.FlipFlop().sample(2, rng=0).inputs)
    assert outputs.shape[2] == 2
    assert done.measurements["kind"].item() == "gru"
    assert np.isfinite(done.measurements["change_norm"].item())


def test_a_network_of_your_own(tmp_path):
    file = tmp_path / "own.py"
    text = "from torch.nn import Linear, Sequential\n\n\ndef make(task, rng, width=3):\n"
    text += "    return Sequential(Linear(2, width), Linear(width, 2))\n"
    file.write_text(text)
    job = tiny(network={"kind": f"{file}:make", "width": 5}, measurements=("norms",))
    done = job.run()
    assert done.measurements["kind"].item() == "make"
    assert rs.Job.from_json(job.to_json()).digest == job.digest
    file.write_text(text.replace("width=3", "width=4"))
    assert tiny(network={"kind": f"{file}:make", "width": 5}).digest != job.digest
    with pytest.raises(InputError, match="it has changed"):
        rs.Job.from_json(job.to_json())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": 3}, "task must be a name, a mapping or have a method sample"),
        ({"task": {"delay": 1}}, "task must be a mapping with a name"),
        ({"trainings": {}}, "did you mean 'training'"),
        ({"training": {"epochs": 0}}, "epochs must be a whole number >= 1, got 0"),
        ({"training": {"epoch": 1}}, "did you mean 'epochs'"),
        ({"measurements": ("spectrum",)}, "did you mean 'spectra'"),
        ({"measurements": "spectra"}, r"write \['spectra'\]"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"network": {"gain": -1}}, "gain must be a finite number >= 0"),
        ({"network": 3}, "network must be a kind such as 'gru' or a mapping"),
        ({"labels": {"sample": [1]}}, "labels"),
    ],
)
def test_mistakes_are_named_before_any_training(changes, message):
    with pytest.raises(InputError, match=message):
        tiny(**changes).check()


@pytest.mark.parametrize("task", ["flipflap", {"name": "flipflap", "duration": 12}])
def test_an_unknown_task_is_refused_at_construction(task):
    with pytest.raises(InputError, match=r"task must be one of .*did you mean 'flipflop'"):
        tiny(task=task)
    # References and optional tasks are loaded later, maybe elsewhere.
    assert tiny(task="nowhere.py:Task").task == {"name": "nowhere.py:Task"}
    assert tiny(task={"name": "neurogym", "environment": "GoNogo-v0"}).task["name"] == "neurogym"


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{", '{"task": "flipflop", "sed": 1}', "x" * 2_000_000])
def test_text_that_describes_no_job(text):
    with pytest.raises(InputError):
        rs.Job.from_json(text)
