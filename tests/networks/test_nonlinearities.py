"""The named nonlinearities: three ways of saying the same function; and callables beside them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from network_cases import CONVENTIONS, NAMES, assert_same, everything, make_case, make_dynamics

from rankscope.errors import InputError
from rankscope.networks import NONLINEARITIES, RateRNN, fused, plain
from rankscope.networks.nonlinearities import Nonlinearity, find_nonlinearity

named = pytest.mark.parametrize("name", NAMES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
FORMULAS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.logaddexp(0, x),
    "identity": lambda x: x,
}
SLOPES = {
    "tanh": lambda x: 1 / np.cosh(np.clip(x, -300, 300)) ** 2,
    "relu": lambda x: (x > 0).astype(float),
    "softplus": lambda x: np.exp(-np.logaddexp(0, -x)),
    "identity": np.ones_like,
}


def test_the_paper_s_four_are_there():
    assert set(NONLINEARITIES) == {"tanh", "relu", "identity", "softplus"}
    for name, phi in NONLINEARITIES.items():
        assert phi.name == name
        assert repr(phi) == f"<nonlinearity {name}>"


def arguments(dtype):
    return torch.cat([torch.linspace(-6, 6, 101), torch.tensor([-800.0, -90.0, -20.0, 20.0, 39.0, 41.0, 800.0])]).to(
        dtype
    )


@named
@dtypes
def test_value_and_slope(name, dtype):
    phi, x = NONLINEARITIES[name], arguments(dtype)
    exact = torch.from_numpy(FORMULAS[name](x.double().numpy()))
    slope = torch.from_numpy(SLOPES[name](x.double().numpy()))
    near = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 1e-14}
    out = torch.empty_like(x)
    phi.into(x, out)
    torch.testing.assert_close(phi(x).double(), exact, rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=1e-7)
    torch.testing.assert_close(out.double(), exact, rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=1e-7)
    grad, result = torch.full_like(x, -3.0), torch.empty_like(x)
    phi.backward_into(grad, out, result)
    torch.testing.assert_close(result.double() / -3, slope, **near)
    leaf = x.clone().requires_grad_()
    phi(leaf).backward(grad)
    torch.testing.assert_close(leaf.grad.double() / -3, slope, **near)


@named
@dtypes
def test_the_kernels_work_in_place(name, dtype):
    phi, x = NONLINEARITIES[name], arguments(dtype).reshape(12, 9)
    apart, together = torch.empty_like(x), x.clone()
    phi.into(x, apart)
    phi.into(together, together)
    assert torch.equal(apart, together)
    grad = torch.linspace(-1, 1, 108).to(dtype).reshape(12, 9)
    apart, in_place, kept = torch.empty_like(x), grad.clone(), grad.clone()
    phi.backward_into(grad, together, apart)
    assert torch.equal(grad, kept)
    phi.backward_into(in_place, together, in_place)
    assert torch.equal(apart, in_place)


@named
def test_copies_are_the_same_object(name):
    phi = NONLINEARITIES[name]
    assert copy.deepcopy(phi) is phi
    assert copy.copy(phi) is phi
    assert pickle.loads(pickle.dumps(phi)) is phi


def test_found_by_name_by_itself_or_as_a_callable():
    assert find_nonlinearity("tanh") is NONLINEARITIES["tanh"]
    assert find_nonlinearity(NONLINEARITIES["relu"]) is NONLINEARITIES["relu"]
    assert find_nonlinearity(torch.sin) is torch.sin
    module = torch.nn.ELU()
    assert find_nonlinearity(module) is module
    assert not isinstance(find_nonlinearity(torch.tanh), Nonlinearity)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("tan", r"phi must be one of 'tanh', .*'identity', got 'tan' \(did you mean 'tanh'\?\)"),
        ("", "phi must be one of 'tanh', .*, got ''"),
        (3, "phi must be one of 'tanh', .* or an elementwise callable, got 3"),
        (None, "phi must be .*got None"),
        (torch.sum, r"phi must be elementwise: it turned a \(2, 3\) tensor into shape \(\)"),
        (torch.t, r"phi must be elementwise: .*into shape \(3, 2\)"),
        (lambda x: x.tolist(), "phi must be elementwise: .*into list"),
        (lambda x: x[:, :2], r"phi must be elementwise: .*into shape \(2, 2\)"),
        (torch.nn.Softmax(dim=-1), "phi must be elementwise: the result of an entry depends on the others"),
        (lambda x: x - x.mean(), "phi must be elementwise: the result"),
        (lambda x: x.flip(0), "phi must be elementwise: the result"),
        (lambda x: x.cumsum(1), "phi must be elementwise: the result"),
    ],
)
def test_anything_else_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        find_nonlinearity(wrong, "phi")
    message = message.replace("phi", "readout_nonlinearity", 1)
    if wrong is not None:  # where None means "as nonlinearity"
        with pytest.raises(InputError, match=message):
            RateRNN(*make_case().weights, readout_nonlinearity=wrong)


@pytest.mark.parametrize("convention", CONVENTIONS)
@named
def test_a_callable_that_is_a_named_function_makes_the_same_network(convention, name):
    case, phi = make_case(), NONLINEARITIES[name]
    for options in (
        {"nonlinearity": lambda x: phi(x)},
        {"nonlinearity": name, "readout_nonlinearity": lambda x: phi(x)},
        {"nonlinearity": lambda x: phi(x), "readout_nonlinearity": name},
    ):
        network = RateRNN(*case.weights, **options, convention=convention)
        outside = convention == "rate" and network.dynamics.nonlinearity is phi
        assert network.dynamics.differentiated_by_hand == outside
        ours = everything(fused if outside else plain, case, network.dynamics)
        theirs = everything(plain, case, make_dynamics(name, convention=convention, dt=0.5))
        assert_same(ours, theirs, tolerance=1e-10)
        outputs = network(case.inputs)
        torch.testing.assert_close(
            outputs, RateRNN(*case.weights, nonlinearity=name, convention=convention)(case.inputs)
        )


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("phi", [torch.sin, lambda x: torch.relu(x) ** 2, torch.nn.ELU()])
def test_any_elementwise_callable_learns(convention, phi):
    case = make_case(without=["noise"])
    network = RateRNN(*case.weights, nonlinearity=phi, convention=convention, dt=0.5)
    outputs, states = network(case.inputs, return_states=True)
    h, _, W_out, b, _ = states[:, 0], *network.weights[1:5]
    drive = case.inputs[:, 1] @ network.input_weights.t() + b
    if convention == "current":
        wanted = 0.5 * h + 0.5 * (phi(h) @ network.recurrent_weights.t() + drive)
        read = phi(wanted) @ W_out.t()
    else:
        wanted = 0.5 * h + 0.5 * phi(h @ network.recurrent_weights.t() + drive)
        read = phi(wanted @ W_out.t())
    torch.testing.assert_close(states[:, 1], wanted)
    torch.testing.assert_close(outputs[:, 1], read)
    outputs.sum().backward()
    assert network.recurrent_weights.grad.any()
