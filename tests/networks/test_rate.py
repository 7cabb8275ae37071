"""RateRNN: what it holds, what of it learns, its noise, and the errors it answers with."""

import numpy as np
import pytest
import torch
from network_cases import CONVENTIONS, NAMES, make_case

from rankscope.errors import InputError
from rankscope.networks import RateRNN, plain
from rankscope.networks.parameters import BY_HAND, PARAMETERS

both_conventions = pytest.mark.parametrize("convention", CONVENTIONS)


def make(without=(), dtype=torch.float64, **options):
    case = make_case(hidden=6, without=without, dtype=dtype)
    return RateRNN(*case.weights, **options), case.inputs


@both_conventions
@pytest.mark.parametrize("nonlinearity", NAMES)
@pytest.mark.parametrize("engine", ["auto", "fused", "plain"])
def test_it_is_the_equation(convention, nonlinearity, engine):
    case = make_case(hidden=6)
    options = {"dt": 0.3, "nonlinearity": nonlinearity, "readout_nonlinearity": "relu", "convention": convention}
    network = RateRNN(*case.weights, **options, noise_std=2.0, engine=engine)
    outputs, states = network(case.inputs, noise=case.noise, return_states=True)
    wanted = plain(case.inputs, case.weights, network.dynamics, 2 * 0.3**0.5 * case.noise, return_states=True)
    torch.testing.assert_close(outputs, wanted.outputs)
    torch.testing.assert_close(states, wanted.states)
    assert torch.equal(network(case.inputs, noise=case.noise), outputs)


@both_conventions
@pytest.mark.parametrize("engine", ["fused", "plain"])
@pytest.mark.parametrize(
    "trained", [(), ("recurrent",), ("bias", "input"), ["initial_state"], {"output", "recurrent"}, BY_HAND]
)
def test_only_the_trained_parts_learn(convention, engine, trained):
    network, inputs = make(convention=convention, engine=engine, trained=trained)
    assert network.trained == tuple(part for part in BY_HAND if part in trained)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    outputs = network(inputs)
    assert outputs.requires_grad == bool(trained)
    if trained:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        (outputs**2).sum().backward()
        optimizer.step()
    for part, name in list(PARAMETERS.items())[:5]:
        parameter = getattr(network, name)
        assert parameter.requires_grad == (part in trained)
        assert torch.equal(parameter, before[name]) == (part not in trained)


def test_what_learns_exists_and_starts_from_zero():
    network, _ = make(without=["bias", "initial_state"], trained=BY_HAND)
    for parameter in (network.bias, network.initial_state):
        assert parameter.shape == (6,)
        assert parameter.dtype == torch.float64
        assert not parameter.any()
        assert parameter.requires_grad
    network, _ = make(without=["bias", "initial_state"])
    assert network.bias is None
    assert network.initial_state is None
    assert set(network.state_dict()) == {"input_weights", "recurrent_weights", "output_weights"}


def test_the_default_is_the_paper_s_network():
    network, _ = make()
    assert network.trained == ("input", "recurrent", "output")
    assert network.architecture() == {
        "dt": 0.5,
        "nonlinearity": "tanh",
        "readout_nonlinearity": "tanh",
        "convention": "current",
        "noise_std": 0.0,
        "trained": ["input", "recurrent", "output"],
    }
    assert network.hidden_size == 6
    assert "2 -> 6 -> 2, dt=0.5, tanh, current" in repr(network)
    assert ", sin, current" in repr(make(nonlinearity=torch.sin)[0])


def test_weights_are_copied_in():
    case = make_case()
    network = RateRNN(*case.weights)
    arrays = RateRNN(*(w.numpy() for w in case.weights[:5]))
    read_only = case.weights.recurrent.numpy().copy()
    read_only.flags.writeable = False
    odd = RateRNN(case.weights.input.numpy()[::-1], read_only, case.weights.output.numpy()[:, ::-1])
    assert torch.equal(odd.input_weights, case.weights.input.flip(0))
    for given, held, also in zip(case.weights[:5], network.weights, arrays.weights, strict=False):
        assert torch.equal(given, held)
        assert torch.equal(given, also)
        given.zero_()
        assert held.any()
        assert also.any()
    lists = RateRNN([[1.0]], [[0.5]], [[2.0]])
    assert lists.recurrent_weights.dtype == torch.float32


def test_state_dict_round_trip():
    network, inputs = make(trained=BY_HAND)
    other = RateRNN(*(torch.zeros_like(w) for w in network.weights[:5]))
    assert not torch.equal(other(inputs), network(inputs))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(inputs), network(inputs))


@both_conventions
def test_a_snapshot_is_the_same_function_in_other_memory(convention):
    network, inputs = make(convention=convention, nonlinearity="softplus", readout_nonlinearity="tanh", noise_std=0.1)
    network(inputs, rng=0).sum().backward()
    twin = network.snapshot()
    wanted = network(inputs, rng=1).detach().clone()
    assert torch.equal(twin(inputs, rng=1), wanted)
    assert network.recurrent_weights.grad is not None
    for name, parameter in twin.named_parameters():
        assert parameter.grad is None
        assert parameter.data_ptr() != network.get_parameter(name).data_ptr()
        assert parameter.requires_grad == network.get_parameter(name).requires_grad
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert torch.equal(twin(inputs, rng=1), wanted)


def test_inputs_are_converted_to_the_type_of_the_weights():
    network, inputs = make(dtype=torch.float32)
    assert torch.equal(network(inputs.double()), network(inputs))
    whole = torch.ones(3, 4, 2, dtype=torch.int64)
    assert torch.equal(network(whole), network(whole.float()))
    assert network.double()(inputs).dtype == torch.float64


# noise


@both_conventions
@pytest.mark.parametrize("engine", ["fused", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_seeded_exactly(convention, engine, dtype):
    network, inputs = make(convention=convention, engine=engine, dtype=dtype, noise_std=0.2, dt=0.25)
    one = network(inputs, rng=3)
    assert torch.equal(network(inputs, rng=3), one)
    assert torch.equal(network(inputs, rng=np.random.default_rng(3)), one)
    assert not torch.equal(network(inputs, rng=4), one)
    assert not torch.equal(network(inputs), network(inputs))
    kind = np.float32 if dtype == torch.float32 else np.float64
    xi = torch.from_numpy(np.random.default_rng(3).standard_normal((3, 4, 6), dtype=kind))
    assert torch.equal(network(inputs, noise=xi), one)
    torch.testing.assert_close(network.draw_noise(inputs, 3), xi * 0.5 * 0.2)
    rng = np.random.default_rng(3)
    assert torch.equal(network(inputs, rng=rng), one)
    assert not torch.equal(network(inputs, rng=rng), one)


def test_a_noiseless_network_leaves_the_generator_alone():
    network, inputs = make()
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    outputs = network(inputs, rng=rng)
    assert rng.bit_generator.state == before
    assert network.draw_noise(inputs, rng) is None
    assert torch.equal(outputs, network(inputs))


def test_given_noise_leaves_the_generator_alone():
    network, inputs = make(noise_std=1.0)
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    network(inputs, rng=rng, noise=torch.zeros(3, 4, 6))
    assert rng.bit_generator.state == before
    network(inputs, rng=rng)
    assert rng.bit_generator.state != before


@both_conventions
@pytest.mark.parametrize("dt", [0.1, 0.5, 1.0])
def test_noise_has_the_variance_of_an_ornstein_uhlenbeck_process(convention, dt):
    # h' = (1-dt) h + sqrt(dt) sigma xi: an AR(1) process of stationary variance sigma^2 dt / (1 - (1-dt)^2)
    N, sigma = 50, 0.7
    zeros = np.zeros((N, N))
    network = RateRNN(zeros[:, :1], zeros, zeros[:1], dt=dt, noise_std=sigma, convention=convention)
    with torch.no_grad():
        _, states = network(torch.zeros(200, round(20 / dt), 1), return_states=True, rng=0)
    last = states[:, -1]  # 10000 independent values
    variance = sigma**2 * dt / (1 - (1 - dt) ** 2)
    assert abs(last.var().item() / variance - 1) < 4 * np.sqrt(2 / last.numel())
    assert abs(last.mean().item()) < 4 * np.sqrt(variance / last.numel())
    correlation = (last * states[:, -2]).mean().item() / variance
    assert abs(correlation - (1 - dt)) < 4 / np.sqrt(last.numel())


# what is refused

ONE = np.ones((1, 1))
SIX, ROW, COLUMN = np.ones((6, 6)), np.ones((1, 6)), np.ones((6, 1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"recurrent_weights": np.ones((6, 5))}, r"recurrent_weights must be a square .*got shape \(6, 5\)"),
        ({"recurrent_weights": np.ones(6)}, r"recurrent_weights must be a square matrix \(N, N\), got shape \(6,\)"),
        ({"recurrent_weights": None}, r"recurrent_weights must be a square matrix \(N, N\), got None"),
        ({"recurrent_weights": "W"}, "recurrent_weights must be an array or a tensor, got str"),
        ({"recurrent_weights": [[1.0, 2.0], [3.0]]}, "recurrent_weights must be an array or a tensor, got list"),
        ({"recurrent_weights": SIX.astype(int)}, r"recurrent_weights must be float32 or float64, got torch\.int64"),
        ({"input_weights": ROW}, r"input_weights must have shape \(6, any\) beside .*\(6, 6\), got shape \(1, 6\)"),
        ({"input_weights": None}, r"input_weights must have shape \(6, any\) beside .*got None"),
        ({"output_weights": COLUMN}, r"output_weights must have shape \(any, 6\) beside .*got shape \(6, 1\)"),
        ({"output_weights": SIX[0]}, r"output_weights must have shape \(any, 6\) beside .*got shape \(6,\)"),
        ({"output_weights": ROW.astype("f4")}, r"output_weights must be torch\.float64 on cpu like.*float32 on cpu"),
        ({"bias": np.ones(5)}, r"bias must have shape \(6\) beside .*got shape \(5,\)"),
        ({"bias": ROW}, r"bias must have shape \(6\) beside .*got shape \(1, 6\)"),
        ({"initial_state": np.ones(7)}, r"initial_state must have shape \(6\) beside .*got shape \(7,\)"),
        ({"dt": 0}, "dt must be a finite number > 0 and <= 1, got 0"),
        ({"dt": 1.5}, r"dt must be a finite number > 0 and <= 1, got 1\.5"),
        ({"dt": "0.5"}, r"dt must be a number > 0 and <= 1, got '0\.5'"),
        ({"noise_std": -1}, "noise_std must be a finite number >= 0, got -1"),
        ({"nonlinearity": "tan"}, r"nonlinearity must be one of .*got 'tan' \(did you mean 'tanh'\?\)"),
        ({"readout_nonlinearity": 3}, "readout_nonlinearity must be one of .* elementwise callable, got 3"),
        ({"convention": "rates"}, r"convention must be one of 'current', 'rate', got 'rates' \(did you mean 'rate'"),
        ({"engine": "fast"}, "engine must be one of 'auto', 'fused', 'plain', got 'fast'"),
        ({"engine": "fused", "nonlinearity": torch.sin}, "engine must be 'auto' or 'plain' for a nonlinearity given"),
        ({"trained": "recurrent"}, r"trained must be a collection of names such as \('recurrent',\), got 'recurrent'"),
        ({"trained": 3}, "trained must be a collection of names .*got 3"),
        ({"trained": None}, "trained must be a collection of names .*got None"),
        ({"trained": ["recurrant"]}, r"trained must be one of 'input', .*did you mean 'recurrent'"),
        ({"trained": [["input"]]}, r"trained must be one of 'input', .*got \['input'\]"),
    ],
)
def test_networks_that_cannot_be_are_refused(wrong, message):
    weights = {"input_weights": COLUMN, "recurrent_weights": SIX, "output_weights": ROW}
    with pytest.raises(InputError, match=message):
        RateRNN(**{**weights, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inputs": torch.zeros(3, 4)}, r"inputs must be a non-empty tensor \(batch, time, 2\), got shape \(3, 4\)"),
        ({"inputs": torch.zeros(3, 4, 1)}, r"inputs must be .*\(batch, time, 2\), got shape \(3, 4, 1\)"),
        ({"inputs": torch.zeros(0, 4, 2)}, r"inputs must be a non-empty tensor .*got shape \(0, 4, 2\)"),
        ({"inputs": torch.zeros(3, 0, 2)}, r"inputs must be a non-empty tensor .*got shape \(3, 0, 2\)"),
        ({"inputs": np.zeros((3, 4, 2))}, "inputs must be a non-empty tensor .*got ndarray"),
        ({"noise": torch.zeros(3, 4, 2)}, r"noise must be a tensor \(3, 4, 6\) .*got shape \(3, 4, 2\)"),
        ({"noise": np.zeros((3, 4, 6))}, r"noise must be a tensor \(3, 4, 6\) \(batch, time, N\), got ndarray"),
        ({"rng": -1}, "rng must be a seed .*got -1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(wrong, message):
    network, inputs = make(noise_std=1.0)
    with pytest.raises(InputError, match=message):
        network(**{"inputs": inputs, **wrong})


@both_conventions
def test_a_readout_may_be_a_callable_in_the_fast_engine_where_it_acts_outside_it(convention):
    options = {"convention": convention, "readout_nonlinearity": torch.sin, "engine": "fused"}
    if convention == "current":
        with pytest.raises(InputError, match="engine must be 'auto' or 'plain'"):
            make(**options)
        return
    network, inputs = make(**options)
    wanted = plain(inputs, network.weights, network.dynamics).outputs
    torch.testing.assert_close(network(inputs), wanted)
