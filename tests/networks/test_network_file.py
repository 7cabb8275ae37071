"""Networks in files: the same function after loading, or an error; nothing in a file is executed."""

import json
import pickle
import struct
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import CONVENTIONS, NAMES, make_case
from safetensors import safe_open

import rankscope as rs
from rankscope.errors import InputError
from rankscope.io.tensor_file import write_tensors
from rankscope.networks import GatedRNN, RateRNN, load_networks, save_networks
from rankscope.networks.network_file import FORMAT
from rankscope.networks.parameters import BY_HAND, PARAMETERS


def make(**options):
    return RateRNN(*make_case().weights, **options)


options_of_networks = st.fixed_dictionaries(
    {
        "dt": st.floats(0, 1, exclude_min=True),
        "nonlinearity": st.sampled_from(NAMES),
        "readout_nonlinearity": st.sampled_from([None, *NAMES]),
        "convention": st.sampled_from(CONVENTIONS),
        "noise_std": st.sampled_from([0, 0.1, 1 / 3]),
        "trained": st.sets(st.sampled_from(BY_HAND)),
        "engine": st.sampled_from(["auto", "fused"]),
    }
)


@settings(deadline=None, max_examples=60)
@given(
    options=options_of_networks,
    without=st.sets(st.sampled_from(["bias", "initial_state"])),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 3), st.integers(1, 3)),
)
def test_a_saved_network_is_the_same_function(options, without, dtype, sizes):
    hidden, inputs, outputs = sizes
    case = make_case(hidden=hidden, inputs=inputs, outputs=outputs, without=without, dtype=dtype)
    network = RateRNN(*case.weights, **options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        network.save(path)
        again = RateRNN.load(path)
    assert again.architecture() == network.architecture()
    assert again.dynamics == network.dynamics
    for ours, theirs in zip(again.weights, network.weights, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.dtype == dtype
            assert torch.equal(ours, theirs)
            assert ours.requires_grad == theirs.requires_grad
    for one, other in zip(*(n(case.inputs, rng=0, return_states=True) for n in (network, again)), strict=True):
        assert torch.equal(one, other)


def test_the_file_says_what_it_is(tmp_path):
    path = tmp_path / "network.safetensors"
    network = make(dt=0.25, readout_nonlinearity="relu", trained=["recurrent"])
    network.save(str(path))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(list(PARAMETERS.values())[:5])
    assert metadata["format"] == "rankscope.network.v2"
    assert json.loads(metadata["architecture"]) == network.architecture()
    assert json.loads(metadata["architecture"])["dt"] == 0.25
    assert json.loads(metadata["architecture"])["readout_nonlinearity"] == "relu"


def test_weights_in_any_memory_layout_are_saved(tmp_path):
    network = make()
    network.recurrent_weights = torch.nn.Parameter(network.recurrent_weights.detach().t())
    network.input_weights = torch.nn.Parameter(network.recurrent_weights.detach()[:, :2])  # shares memory
    network.save(tmp_path / "network")
    again = RateRNN.load(tmp_path / "network")
    assert torch.equal(again.recurrent_weights, network.recurrent_weights)
    assert torch.equal(again.input_weights, network.input_weights)


# before and after


TASK = rs.tasks.FlipFlop(channels=3, duration=10)
INPUTS = TASK.sample(2, rng=0).inputs
EMBEDDING = torch.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: RateRNN.initialize(TASK, 6, rng=rng, trained=["recurrent"]),
        lambda rng: GatedRNN.initialize(TASK, "lstm", 6, 2, rng=rng, dropout=0.5, dtype=torch.float64),
        lambda rng: GatedRNN(3, 1, "gru", 4, rng=rng, readout="last"),
    ],
)
def test_one_file_holds_before_and_after(tmp_path, make):
    before, after = make(1), make(2)
    path = tmp_path / "network.safetensors"
    save_networks(path, before, after, {"job": "{}"})
    for ours, theirs in zip(load_networks(path), (before, after), strict=True):
        assert torch.equal(ours.eval()(INPUTS), theirs.eval()(INPUTS))
        assert ours.architecture() == theirs.architecture()
    cls = type(after)
    assert torch.equal(cls.load(path).eval()(INPUTS), after(INPUTS))
    assert torch.equal(cls.load(path, initial=True).eval()(INPUTS), before(INPUTS))
    assert set(rs.compare(path).index) >= set(after.recurrent_names() if cls is GatedRNN else ["recurrent_weights"])
    with pytest.raises(InputError, match=r"must hold a (RateRNN|GatedRNN), got a (RateRNN|GatedRNN)"):
        (GatedRNN if cls is RateRNN else RateRNN).load(path)
    after.save(path)
    assert load_networks(path)[0] is None
    with pytest.raises(InputError, match="must hold a network from before training"):
        cls.load(path, initial=True)


def test_what_is_not_trained_is_stored_once(tmp_path):
    before = GatedRNN(1, 1, "gru", 4, rng=0, embedding=EMBEDDING, readout="last")
    after = before.snapshot()
    with torch.no_grad():
        after.rnn.weight_hh_l0.add_(1)
    save_networks(tmp_path / "network", before, after)
    with safe_open(tmp_path / "network", framework="pt") as file:
        names = set(file.keys())
    assert "embedding" in names
    assert "initial.embedding" not in names
    words = torch.tensor([[[1.0], [5.0]]])
    for ours, theirs in zip(load_networks(tmp_path / "network"), (before, after), strict=True):
        assert torch.equal(ours(words), theirs(words))


def test_effective_weights_are_stored(tmp_path):
    network = RateRNN.initialize(TASK, 6, rng=0)
    torch.nn.utils.parametrize.register_parametrization(network, "recurrent_weights", torch.nn.Tanh())
    network.save(tmp_path / "network")
    assert torch.equal(RateRNN.load(tmp_path / "network")(INPUTS), network(INPUTS))


def test_other_modules_are_stored_as_state_dicts(tmp_path):
    before, after = torch.nn.GRU(2, 3), torch.nn.GRU(2, 3)
    save_networks(tmp_path / "network", before, after)
    for state, module in zip(load_networks(tmp_path / "network"), (before, after), strict=True):
        assert state.keys() == module.state_dict().keys()
        assert all(torch.equal(state[name], weights) for name, weights in module.state_dict().items())


# files that are not ours


def write(path, tensors=None, **changes):
    """Write a network file by hand, with some of its architecture changed or, where None, left out."""
    network = make()
    tensors = dict(network.state_dict()) if tensors is None else tensors
    architecture = {**network.architecture(), **changes}
    metadata = {"format": FORMAT, "class": "RateRNN", "architecture": json.dumps(architecture)}
    write_tensors(path, tensors, metadata)
    return path


def test_a_missing_file(tmp_path):
    for missing in (tmp_path / "gone", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            RateRNN.load(missing)


@pytest.mark.parametrize(
    "content",
    [b"", b"1234567", b"not a network at all, but long enough to look at", b"\xff" * 64, b"\x00" * 64],
    ids=["empty", "short", "text", "ones", "zeros"],
)
def test_garbage(tmp_path, content):
    path = tmp_path / "garbage"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} is not a whole rankscope file"):
        RateRNN.load(path)


def test_a_file_cut_short_anywhere(tmp_path):
    whole = write(tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut"
    for length in (*range(0, len(whole), 37), len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is not a whole rankscope file"):
            RateRNN.load(cut)


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, sprung):
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (self.sprung,)


def test_pickles_are_not_run(tmp_path):
    path, sprung = tmp_path / "network.safetensors", tmp_path / "sprung"
    writers = [
        lambda trap: path.write_bytes(pickle.dumps(trap)),
        lambda trap: torch.save(trap, path),
        lambda trap: path.write_bytes(struct.pack("<Q", 2) + b"{}" + pickle.dumps(trap)),
        lambda trap: write(path, nonlinearity=pickle.dumps(trap).decode("latin-1")),
    ]
    for writer in writers:
        writer(Trap(sprung))
        with pytest.raises(InputError):
            RateRNN.load(path)
        assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()  # the trap itself works


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "is not a rankscope network: its metadata lacks format = 'rankscope.network.v2'"),
        ({"format": "pt"}, "is not a rankscope network"),
        ({"format": "rankscope.RateRNN.v1", "architecture": "{}"}, "is not a rankscope network"),
        ({"format": FORMAT}, "has no readable architecture"),
        ({"format": FORMAT, "architecture": "{'dt'"}, "has no readable architecture"),
        ({"format": FORMAT, "architecture": "[1, 2]"}, r"architecture that is not a mapping, got \[1, 2\]"),
        ({"format": FORMAT, "architecture": "null"}, "architecture that is not a mapping, got None"),
    ],
)
def test_safetensors_of_something_else(tmp_path, metadata, message):
    path = tmp_path / "other"
    write_tensors(path, dict(make().state_dict()), metadata or {})
    with pytest.raises(InputError, match=message):
        RateRNN.load(path)


def test_tensors_that_do_not_belong(tmp_path):
    path, tensors = tmp_path / "network", make().state_dict()
    write(path, {**tensors, "extra": torch.zeros(1)})
    with pytest.raises(
        InputError, match=r"must hold the tensors of a RateRNN, but .*missing: \[\], and these unknown: \['extra'\]"
    ):
        RateRNN.load(path)
    del tensors["output_weights"]
    write(path, tensors)
    with pytest.raises(InputError, match=r"missing: \['output_weights'\], and these unknown: \[\]"):
        RateRNN.load(path)
    for wrong, message in (
        (torch.zeros(2, 4), "output_weights must have shape"),
        (torch.zeros(2, 5), r"output_weights must be torch\.float64"),
        (torch.zeros(2, 5, dtype=torch.int32), "output_weights must be float32 or float64"),
    ):
        write(path, {**tensors, "output_weights": wrong})
        with pytest.raises(InputError, match=message):
            RateRNN.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"leak": 1}, r"the architecture must be one of 'dt', .*got 'leak'"),
        ({"bias": [0.0] * 5}, "the architecture must .*got 'bias'"),
        ({"dt": "0.5"}, "dt must be a number"),
        ({"dt": float("nan")}, "dt must be a finite number"),
        ({"dt": None}, "dt must be a number"),
        ({"nonlinearity": "torch.sin"}, "nonlinearity must be one of"),
        ({"nonlinearity": 3}, "nonlinearity must be one of"),
        ({"readout_nonlinearity": ["tanh"]}, "readout_nonlinearity must be one of"),
        ({"convention": 1}, "convention must be one of"),
        ({"noise_std": [1]}, "noise_std must be a number"),
        ({"trained": 3}, "trained must be a collection"),
        ({"trained": None}, "trained must be a collection"),
        ({"trained": "recurrent"}, "trained must be a collection"),
        ({"trained": ["everything"]}, "trained must be one of"),
        ({"engine": "fast"}, "engine must be one of"),
    ],
)
def test_a_tampered_architecture(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        RateRNN.load(write(tmp_path / "network", **changes))


# writing


@pytest.mark.parametrize("argument", ["nonlinearity", "readout_nonlinearity"])
def test_a_callable_cannot_be_saved(tmp_path, argument):
    network = make(**{"nonlinearity": "tanh", argument: torch.sin, "convention": "rate"})
    if argument == "nonlinearity":
        network = make(nonlinearity=torch.sin, readout_nonlinearity="tanh")
    with pytest.raises(InputError, match=f"^{argument} must be a named one to be saved, got .*sin.*state_dict"):
        network.save(tmp_path / "network")
    assert list(tmp_path.iterdir()) == []


def test_folders_are_made_and_impossible_ones_refused(tmp_path):
    make().save(tmp_path / "runs" / "a" / "network")
    assert RateRNN.load(tmp_path / "runs" / "a" / "network").hidden_size == 5
    with pytest.raises(InputError, match="cannot make the folder"):
        make().save(tmp_path / "runs" / "a" / "network" / "below a file")
    with pytest.raises(InputError, match="path must be a file to write, got the folder"):
        make().save(tmp_path / "runs")
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 10**6}, "holds only"),
        ({"num_layers": 10**7}, "holds only"),
        ({"input_size": 10**9}, "holds only"),
        ({"output_size": 10**9}, "holds only"),
        ({"hidden_size": -1}, "sizes >= 1"),
        ({"num_layers": 1.5}, "sizes >= 1"),
        ({"hidden_size": [1]}, "sizes >= 1"),
        ({"kind": "lstm"}, "must hold the tensors of a GatedRNN"),
        ("[" * 60_000, "no readable architecture"),
        ('{"num_layers": ' + "1" * 5000 + "}", "no readable architecture"),
    ],
)
def test_a_few_bytes_cannot_name_a_network_of_any_size(tmp_path, change, message):
    """Making it would take the memory that the architecture names, before its tensors are seen not to fit."""
    path = tmp_path / "network"
    GatedRNN(2, 1, "gru", 3, rng=0).save(path)
    network = GatedRNN.load(path)
    text = change if isinstance(change, str) else json.dumps(network.architecture() | change)
    write_tensors(path, dict(network.state_dict()), {"format": FORMAT, "class": "GatedRNN", "architecture": text})
    with pytest.raises(InputError, match=message) as error:
        GatedRNN.load(path)
    assert len(str(error.value)) < 1500
