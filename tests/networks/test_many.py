"""Many recurrent matrices at once give what each network gives alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import CONVENTIONS, NAMES, make_case, make_dynamics

from rankscope.networks import many, outputs_of_many, plain

both_conventions = pytest.mark.parametrize("convention", CONVENTIONS)


def variations(W, count):
    """Different matrices of the same kind."""
    rng = torch.Generator().manual_seed(7)
    noise = (torch.randn(W.shape, generator=rng, dtype=torch.float64).to(W.dtype) for _ in range(count))
    return [W + 0.5 * n / W.shape[0] ** 0.5 for n in noise]


def one_by_one(case, recurrent, dynamics):
    each = [plain(case.inputs, case.weights._replace(recurrent=W), dynamics, case.noise).outputs for W in recurrent]
    return torch.stack(each)


def assert_same(case, dynamics, count=3):
    recurrent = variations(case.weights.recurrent, count)
    outputs = outputs_of_many(case.inputs, case.weights, recurrent, dynamics, case.noise)
    assert outputs.shape == (count, *case.inputs.shape[:2], case.weights.output.shape[0])
    torch.testing.assert_close(outputs, one_by_one(case, recurrent, dynamics), rtol=1e-10, atol=1e-10)


@both_conventions
@pytest.mark.parametrize("nonlinearity", NAMES)
@pytest.mark.parametrize("readout", [*NAMES, torch.sin, torch.tanh])
def test_equals_the_networks_one_by_one(convention, nonlinearity, readout):
    assert_same(make_case(hidden=6), make_dynamics(nonlinearity, readout, convention))


@both_conventions
@pytest.mark.parametrize("nonlinearity", [torch.sin, lambda x: torch.relu(x) ** 2])
def test_callables(convention, nonlinearity):
    assert_same(make_case(hidden=6), make_dynamics(nonlinearity, "tanh", convention))
    assert_same(make_case(hidden=6), make_dynamics(nonlinearity, nonlinearity, convention))


@settings(deadline=None, max_examples=60)
@given(
    without=st.sets(st.sampled_from(["bias", "initial_state", "noise"])),
    convention=st.sampled_from(CONVENTIONS),
    dt=st.floats(0.01, 1),
    readout=st.sampled_from([None, "relu"]),
    sizes=st.tuples(*[st.integers(1, 4)] * 5),
)
def test_equals_the_networks_one_by_one_in_every_situation(without, convention, dt, readout, sizes):
    hidden, batch, steps, inputs, outputs = sizes
    case = make_case(hidden, batch, steps, inputs, outputs, without)
    assert_same(case, make_dynamics("tanh", readout, convention, dt))


@both_conventions
@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("without", [(), ("noise", "bias")], ids=["all parts", "few parts"])
def test_batches_around_the_size_of_a_block(convention, off, without):
    for blocks in (1, 2):
        batch = blocks * many.BLOCK + off
        case = make_case(hidden=4, batch=batch, steps=3, without=without)
        assert_same(case, make_dynamics(readout="relu", convention=convention), count=2)


@both_conventions
def test_single_precision_at_full_size(convention, implementation):
    case = make_case(hidden=256, batch=many.BLOCK + 44, steps=6)  # the last block is smaller
    recurrent, dynamics = variations(case.weights.recurrent, 2), make_dynamics(convention=convention)
    exact = one_by_one(case, recurrent, dynamics)
    single = case.to(torch.float32)
    outputs = outputs_of_many(single.inputs, single.weights, [W.float() for W in recurrent], dynamics, single.noise)
    assert outputs.dtype == torch.float32
    assert (outputs - exact).abs().max() < 1e-5 * exact.abs().max()


@both_conventions
def test_nothing_is_differentiated_or_changed(convention):
    case = make_case().requiring_grad()
    recurrent = [case.weights.recurrent, 2 * case.weights.recurrent]
    before = {name: part.detach().clone() for name, part in case.parts.items()}
    outputs = outputs_of_many(case.inputs, case.weights, recurrent, make_dynamics(convention=convention), case.noise)
    assert not outputs.requires_grad
    for name, part in case.parts.items():
        assert torch.equal(part.detach(), before[name]), name


@both_conventions
def test_the_shared_recurrent_weights_are_not_used(convention):
    case, dynamics = make_case(), make_dynamics(convention=convention)
    recurrent = variations(case.weights.recurrent, 2)
    weights = case.weights._replace(recurrent=torch.full_like(case.weights.recurrent, float("nan")))
    outputs = outputs_of_many(case.inputs, weights, recurrent, dynamics, case.noise)
    torch.testing.assert_close(outputs, one_by_one(case, recurrent, dynamics), rtol=1e-10, atol=1e-10)
