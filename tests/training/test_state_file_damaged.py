"""A checkpoint whose numbers are not those of the training is refused, and everything stays as it was."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import FlipFlop

TASK = FlipFlop(duration=12)
OPTIONS = {"batch_size": 2, "recorded_epochs": 3, "eigenvalues": 1, "record_weights": True}


def network():
    return rs.RateRNN.initialize(TASK, hidden_size=6, rng=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The tensors and the metadata of a training of three epochs."""
    path = tmp_path_factory.mktemp("saved") / "checkpoint"
    rs.train(network(), TASK, epochs=3, rng=0, checkpoint=path, **OPTIONS)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def refused(tmp_path, tensors, metadata, message, rng=0):
    """Go on from a file with this content; it is refused before anything has changed."""
    path = tmp_path / "checkpoint"
    save_file(tensors, path, metadata)
    net, generator = network(), np.random.default_rng(rng) if isinstance(rng, int) else rng
    before, state = {name: w.clone() for name, w in net.state_dict().items()}, str(generator.bit_generator.state)
    with pytest.raises(InputError, match=message) as error:
        rs.train(net, TASK, epochs=5, rng=generator, checkpoint=path, **OPTIONS)
    assert len(str(error.value)) < 1000
    assert all(torch.equal(w, before[name]) for name, w in net.state_dict().items())
    assert str(generator.bit_generator.state) == state


def test_what_was_saved_goes_on(tmp_path, saved):
    save_file(saved[0], tmp_path / "checkpoint", saved[1])
    history = rs.train(network(), TASK, epochs=5, rng=0, checkpoint=tmp_path / "checkpoint", **OPTIONS)
    assert len(history.losses) == 5


@pytest.mark.parametrize(
    "name",
    [
        *(
            "network.recurrent_weights",
            "initial.recurrent_weights",
            "losses",
            "gradient_norms",
            "recorded_epochs",
            "singular_values.recurrent_weights",
        ),
        *("optimizer.0.step", "optimizer.1.exp_avg", "optimizer.2.exp_avg_sq"),
    ],
)
@pytest.mark.parametrize("change", ["gone", "flat", "longer", "whole numbers", "empty", "bytes"])
def test_a_tensor_of_another_form(tmp_path, saved, name, change):
    tensors = dict(saved[0])
    old = tensors[name]
    if change == "flat" and old.ndim == 1:
        old = old[None]
    changed = {
        "flat": lambda: old.flatten(),
        "longer": lambda: torch.cat([old.flatten(), old.flatten()]).contiguous(),
        "whole numbers": lambda: old.to(torch.int32),
        "empty": lambda: old.flatten()[:0],
        "bytes": lambda: old.to(torch.bool),
    }
    if change == "gone":
        del tensors[name]
    elif change == "flat" and saved[0][name].ndim == 1:
        tensors[name] = old
    else:
        tensors[name] = changed[change]()
    if torch.equal(tensors.get(name, torch.empty(0)), saved[0][name]):
        pytest.skip("it is flat as it is")
    refused(tmp_path, tensors, saved[1], "checkpoint .* is damaged: ")


@pytest.mark.parametrize(
    "name",
    ["network.more", "optimizer.9.step", "optimizer.0.more", "optimizer.x.step", "optimizer.-1.step", "optimizer."],
)
def test_a_tensor_that_there_is_no_place_for(tmp_path, saved, name):
    refused(tmp_path, saved[0] | {name: torch.zeros(())}, saved[1], "checkpoint .* is damaged: this training has no")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epoch", text) for text in ("-3", "2", "4", "x", "9" * 5000, "1.5", "")),
        *(("seconds", text) for text in ("nan", "inf", "-1", "x")),
        *(("settings", text) for text in ("", "[]", "[" * 60_000, "3")),
        *(("rng", text) for text in ("", "[]", "{" * 60_000, "null", '{"bit_generator": "PCG64"}')),
        *(("rng", f'{{"bit_generator": "PCG64", "state": {text}}}') for text in ("3", "{}", '{"state": -1, "inc": 1}')),
        ("status", "gone"),
    ],
)
def test_metadata_that_mean_nothing(tmp_path, saved, name, value):
    refused(tmp_path, saved[0], saved[1] | {name: value}, "checkpoint .* (is damaged|continues a None generator)")


@pytest.mark.parametrize("name", ["settings", "epoch", "seconds", "status", "rng"])
def test_metadata_that_are_missing(tmp_path, saved, name):
    metadata = {key: value for key, value in saved[1].items() if key != name}
    refused(tmp_path, saved[0], metadata, "checkpoint .* is damaged: its metadata cannot be read")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (np.random.MT19937, {"state": {"pos": 10**6}}),
        (np.random.MT19937, {"state": {"pos": -5}}),
        (np.random.MT19937, {"state": {"key": {"array": [1] * 600, "dtype": "V1000000000"}}}),
        (np.random.MT19937, {"state": {"key": {"array": [1] * 3, "dtype": "uint32"}}}),
        (np.random.Philox, {"buffer_pos": 10**6}),
        (np.random.Philox, {"buffer_pos": -1}),
    ],
)
def test_a_random_state_that_numpy_would_read_beyond(tmp_path, saved, kind, change):
    """numpy takes any position in its block of numbers, and then reads what is there in the memory."""
    path = tmp_path / "first"
    rs.train(network(), TASK, epochs=3, rng=np.random.Generator(kind(0)), checkpoint=path, **OPTIONS)
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    state = json.loads(metadata["rng"])
    for key, value in change.items():
        state[key] = state[key] | value if isinstance(value, dict) else value
    changed = metadata | {"rng": json.dumps(state)}
    refused(tmp_path, tensors, changed, "its random state cannot be used", np.random.Generator(kind(0)))
