"""A checkpoint of another training, or something that is none, is refused and everything stays as it was."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import FlipFlop

TASK = FlipFlop(duration=12)


class Untouched:
    def __init__(self):
        self.undescribed = object()

    def sample(self, batch_size, rng):
        pytest.fail("the task was asked for trials")


def network(**options):
    return rs.RateRNN.initialize(TASK, **{"hidden_size": 8, "rng": 0, **options})


def run(path, net=None, rng=0, task=TASK, **options):
    call = {"epochs": 3, "batch_size": 2, "learning_rate": 0.01, "checkpoint": path, **options}
    return rs.train(net or network(), task, rng=rng, **call)


@pytest.fixture
def saved(tmp_path):
    run(tmp_path / "saved")
    return tmp_path / "saved"


def refused(path, message, **call):
    """Try to go on from `path`; nothing may have changed by then."""
    net = call.pop("net", None) or network()
    rng = call.pop("rng", None) or np.random.default_rng(5)
    before, state = {name: w.clone() for name, w in net.state_dict().items()}, str(rng.bit_generator.state)
    content = path.read_bytes() if path.is_file() else None
    task = call.pop("task", Untouched())
    with pytest.raises(InputError, match=message):
        run(path, net, rng, task, **call)
    assert all(torch.equal(w, before[name]) for name, w in net.state_dict().items())
    assert str(rng.bit_generator.state) == state
    assert content == (path.read_bytes() if path.is_file() else None)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("batch_size = 2, not 3", {"batch_size": 3}),
        ("optimizer = 'adam', not 'sgd'", {"optimizer": "sgd"}),
        ("learning_rate = 0.01, not 0.02", {"learning_rate": 0.02}),
        ("clip_norm = None, not 1.0", {"clip_norm": 1}),
        ("stop_below = None, not 0.1", {"stop_below": 0.1}),
        ("singular_values = 40, not 5", {"singular_values": 5}),
        ("eigenvalues = 0, not 2", {"eigenvalues": 2}),
        ("record_weights = False, not True", {"record_weights": True}),
        ("architecture = ", {"net": network(noise_std=0.1)}),
        ("architecture = ", {"net": network(trained=("recurrent",))}),
        ("architecture = ", {"net": network(nonlinearity="relu")}),
        ("weights = ", {"net": network(hidden_size=9)}),
        ("weights = ", {"net": network(dtype=torch.float64)}),
    ],
)
def test_another_training(saved, name, call):
    refused(saved, f"belongs to a training with {name}.*; remove it or name another", epochs=5, **call)


def test_another_network_of_the_same_kind(saved):
    refused(saved, "network must be the one that checkpoint .* began with or left behind", net=network(gain=0.3))


def test_another_task(saved):
    refused(saved, "belongs to a training with task = .*'duration': 12.0.*, not ", task=FlipFlop(duration=13))


def test_the_network_that_was_left_behind_goes_on(tmp_path):
    """As in a notebook, where the cell that trains is run once more."""
    net = network()
    run(tmp_path / "saved", net)
    again = run(tmp_path / "saved", net, epochs=5)
    assert again.losses.tolist() == run(None, epochs=5).losses.tolist()


def test_another_kind_of_generator(saved):
    rng = np.random.Generator(np.random.Philox(0))
    refused(saved, "continues a PCG64 generator, got a Philox one as rng", epochs=5, rng=rng)


def test_one_that_is_further_than_the_training_should_go(saved):
    refused(saved, "epochs must be >= 3, which checkpoint .* has, got 2", epochs=2)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.99])
def test_a_truncated_file(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    refused(saved, "is not a readable safetensors file")


def test_garbage(tmp_path):
    path = tmp_path / "garbage"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    refused(path, "is not a readable safetensors file")


def test_a_folder(tmp_path):
    refused(tmp_path, "is not a readable safetensors file")


def test_other_safetensors_files(tmp_path):
    network().save(tmp_path / "network")
    refused(tmp_path / "network", "is not a state file")
    save_file({"losses": torch.ones(3)}, tmp_path / "plain")
    refused(tmp_path / "plain", "is not a state file")


def test_no_place_for_a_new_one(saved):
    with pytest.raises(InputError, match="cannot make the folder"):
        run(saved / "below a file")
