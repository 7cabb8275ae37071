"""State files of another training, damaged or hostile ones are refused, and network and generator stay unchanged."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

import rankscope as rs
from rankscope.io.tensor_file import write_tensors

TASK = rs.tasks.FlipFlop(duration=12)
OPTIONS = {"batch_size": 2, "learning_rate": 0.01, "recorded_epochs": 3, "eigenvalues": 1, "record_weights": True}


class Untouched:
    def __init__(self):
        self.undescribed = object()

    def sample(self, batch_size, rng):
        pytest.fail("trials were drawn")


def network(**options):
    return rs.RateRNN.initialize(TASK, **{"hidden_size": 6, "rng": 0, **options})


def run(path, net=None, rng=0, task=TASK, epochs=3, **options):
    return rs.train(net or network(), task, epochs, rng, checkpoint=path, **{**OPTIONS, **options})


def read(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.fixture
def saved(tmp_path):
    run(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    path = tmp_path_factory.mktemp("contents") / "saved"
    run(path)
    return read(path)


def refused(path, message, net=None, rng=None, task=None, epochs=5, **options):
    """Assert that a training does not continue from `path`, and changes nothing."""
    net, rng = net or network(), rng or np.random.default_rng(5)
    before, position = net.snapshot().state_dict(), str(rng.bit_generator.state)
    content = path.read_bytes() if path.is_file() else None
    with pytest.raises(rs.InputError, match=message) as error:
        run(path, net, rng, task or Untouched(), epochs, **options)
    assert len(str(error.value)) < 1000
    assert all(torch.equal(w, before[name]) for name, w in net.state_dict().items())
    assert str(rng.bit_generator.state) == position
    assert content == (path.read_bytes() if path.is_file() else None)


def refused_contents(tmp_path, tensors, metadata, message="checkpoint .* is damaged", **call):
    write_tensors(tmp_path / "changed", tensors, metadata)
    refused(tmp_path / "changed", message, **call)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("batch_size = 2, not 3", {"batch_size": 3}),
        ("optimizer = 'adam', not 'sgd'", {"optimizer": "sgd"}),
        ("learning_rate = 0.01, not 0.02", {"learning_rate": 0.02}),
        ("clip_norm = None, not 1.0", {"clip_norm": 1}),
        ("loss = 'squared', not ", {"loss": "cross_entropy"}),
        ("record_weights = True, not False", {"record_weights": False}),
        ("architecture = ", {"net": network(noise_std=0.1)}),
        ("architecture = ", {"net": network(trained=("recurrent",))}),
        ("weights = ", {"net": network(hidden_size=9)}),
        ("weights = ", {"net": network(dtype=torch.float64)}),
        ("task = .*'duration': 12.0.*, not ", {"task": rs.tasks.FlipFlop(duration=13)}),
    ],
)
def test_another_training(saved, name, call):
    refused(saved, f"belongs to a training with {name}.*; remove it or name another", **call)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"net": network(gain=0.3)}, "network must be the one that checkpoint .* began with or left behind"),
        ({"rng": np.random.Generator(np.random.Philox(0))}, "continues a PCG64 generator, got a Philox one as rng"),
        ({"epochs": 2}, "epochs must be >= 3, which checkpoint .* has, got 2"),
    ],
)
def test_another_network_generator_or_number_of_epochs(saved, call, message):
    refused(saved, message, **call)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_file(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    refused(saved, "checkpoint cannot be continued: .* is not a whole")


def test_other_files(tmp_path, saved):
    (tmp_path / "garbage").write_bytes(np.random.default_rng(0).bytes(5000))
    for path in (tmp_path / "garbage", tmp_path):
        refused(path, "checkpoint cannot be continued: ")
    network().save(tmp_path / "network")
    write_tensors(tmp_path / "plain", {"losses": torch.ones(3)}, {})
    for name in ("network", "plain"):
        refused(tmp_path / name, "is not a state file")
    with pytest.raises(rs.InputError, match="cannot make the folder"):
        run(saved / "below a file")


CHANGES = {
    "gone": lambda old: None,
    "reshaped": lambda old: old[None],
    "longer": lambda old: torch.cat([old.flatten(), old.flatten()]),
    "whole numbers": lambda old: old.to(torch.int32),
    "empty": lambda old: old.flatten()[:0],
}


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_of_another_form(tmp_path, contents, change):
    tensors, metadata = contents
    for name, old in tensors.items():
        new = CHANGES[change](old)
        changed = {key: value for key, value in tensors.items() if key != name} | ({} if new is None else {name: new})
        if new is None or (new.shape, new.dtype) != (old.shape, old.dtype):
            refused_contents(tmp_path, changed, metadata)


@pytest.mark.parametrize(
    "name", ["network.more", "optimizer.9.step", "optimizer.0.more", "optimizer.x.step", "optimizer.-1.step", "more"]
)
def test_a_tensor_that_the_training_does_not_have(tmp_path, contents, name):
    refused_contents(tmp_path, contents[0] | {name: torch.zeros(())}, contents[1], "damaged: .*(has no|got none)")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epoch", text) for text in ("-3", "2", "4", "x", "9" * 5000, "1.5", "")),
        *(("seconds", text) for text in ("nan", "inf", "-1", "x")),
        *(("settings", text) for text in ("", "[]", "[" * 60_000, "3")),
        *(("rng", text) for text in ("", "[]", "{" * 60_000, "null")),
        *(("rng", f'{{"bit_generator": "PCG64", "state": {text}}}') for text in ("3", "{}", '{"state": -1, "inc": 1}')),
        ("status", "gone"),
        *((name, None) for name in ("settings", "epoch", "seconds", "status", "rng", "schedule")),
    ],
)
def test_metadata_that_are_malformed_or_missing(tmp_path, contents, name, value):
    metadata = {key: text for key, text in contents[1].items() if key != name}
    refused_contents(tmp_path, contents[0], metadata if value is None else metadata | {name: value})


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
def test_a_random_state_beyond_its_block(tmp_path, kind, change):
    """numpy does not check the position in a generator's block, and reads beyond it."""
    run(tmp_path / "first", rng=np.random.Generator(kind(0)))
    tensors, metadata = read(tmp_path / "first")
    state = json.loads(metadata["rng"])
    for key, value in change.items():
        state[key] = state[key] | value if isinstance(value, dict) else value
    changed = metadata | {"rng": json.dumps(state)}
    rng = np.random.Generator(kind(0))
    refused_contents(tmp_path, tensors, changed, "its random state cannot be used", rng=rng)


@pytest.mark.parametrize(
    "change",
    [
        {"groups": []},
        {"groups": [{"lr": "fast"}]},
        {"groups": [{"lr": float("nan")}]},
        {"groups": [{"unknown": 1.0}]},
        {"scheduler": {"unknown": 1}},
        {"scheduler": 3},
    ],
)
def test_a_schedule_that_cannot_be_restored(tmp_path, change):
    schedule = {"name": "StepLR", "step_size": 2}
    run(tmp_path / "first", schedule=schedule)
    tensors, metadata = read(tmp_path / "first")
    changed = metadata | {"schedule": json.dumps(json.loads(metadata["schedule"]) | change)}
    refused_contents(tmp_path, tensors, changed, "its schedule cannot be used", schedule=schedule)
