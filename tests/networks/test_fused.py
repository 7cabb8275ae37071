"""The fast engine is the equation: in value, in gradient, in every corner of its options."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import CONVENTIONS, NAMES, PARTS, Case, assert_same, everything, make_case, make_dynamics

from rankscope.networks import Weights, fused, plain

both_conventions = pytest.mark.parametrize("convention", CONVENTIONS)


def away_from_kinks(case, dynamics, margin=1e-3):
    """Whether no argument of a nonlinearity is so near zero that a finite difference would cross a kink of relu."""
    seen = []

    def spy(phi):
        def call(x):
            seen.append(x.abs().min())
            return phi(x)

        return call

    spied = type(dynamics)(
        dynamics.dt, spy(dynamics.nonlinearity), spy(dynamics.readout_nonlinearity), dynamics.convention
    )
    plain(case.inputs, case.weights, spied, case.noise)
    return min(seen) > margin


@both_conventions
@pytest.mark.parametrize("nonlinearity", NAMES)
@pytest.mark.parametrize("readout", NAMES)
@pytest.mark.parametrize("return_states", [True, False], ids=["states", "no states"])
def test_gradients_are_those_of_finite_differences(convention, nonlinearity, readout, return_states):
    dynamics = make_dynamics(nonlinearity, readout, convention)
    cases = (make_case(hidden=3, batch=2, steps=3, inputs=1, outputs=2, seed=seed) for seed in range(50))
    case = next(case for case in cases if away_from_kinks(case, dynamics)).requiring_grad()

    def run(inputs, noise, *weights):
        result = fused(inputs, Weights(*weights), dynamics, noise, return_states)
        return (result.outputs, result.states) if return_states else result.outputs

    assert torch.autograd.gradcheck(run, (case.inputs, case.noise, *case.weights[:5]), nondet_tol=0.0)


@both_conventions
@pytest.mark.parametrize("nonlinearity", NAMES)
@pytest.mark.parametrize("readout", NAMES)
@pytest.mark.parametrize("sources", [("outputs",), ("states",), ("outputs", "states")], ids=" and ".join)
def test_equals_the_plain_engine(convention, nonlinearity, readout, sources):
    case, dynamics = make_case(hidden=6, steps=7), make_dynamics(nonlinearity, readout, convention)
    ours, theirs = (everything(engine, case, dynamics, sources=sources) for engine in (fused, plain))
    assert set(ours) == {"outputs", "states", *(f"d/d {part}" for part in PARTS)}
    assert_same(ours, theirs, tolerance=1e-10)


@st.composite
def situations(draw):
    size = st.integers
    shape = {
        "hidden": draw(size(1, 7)),
        "batch": draw(size(1, 4)),
        "steps": draw(size(1, 6)),
        "inputs": draw(size(1, 3)),
        "outputs": draw(size(1, 3)),
        "seed": draw(size(0, 1000)),
        "without": draw(st.sets(st.sampled_from(["bias", "initial_state", "noise"]))),
    }
    convention = draw(st.sampled_from(CONVENTIONS))
    readouts = [*NAMES, torch.sin] if convention == "rate" else NAMES
    dynamics = make_dynamics(
        draw(st.sampled_from(NAMES)), draw(st.sampled_from(readouts)), convention, dt=draw(st.floats(0.01, 1.0))
    )
    sources = draw(st.sampled_from([("outputs",), ("states",), ("outputs", "states")]))
    asked = {
        "differentiated": draw(st.sets(st.sampled_from(PARTS))),
        "sources": sources,
        "return_states": "states" in sources or draw(st.booleans()),
    }
    return make_case(**shape), dynamics, asked


@settings(deadline=None, max_examples=250)
@given(situations())
def test_equals_the_plain_engine_in_every_situation(situation):
    case, dynamics, asked = situation
    ours, theirs = (everything(engine, case, dynamics, **asked) for engine in (fused, plain))
    assert_same(ours, theirs, tolerance=1e-10)
    wanted = asked["differentiated"] & case.parts.keys()
    if "outputs" in asked["sources"]:
        assert all(ours[f"d/d {part}"] is not None for part in wanted)
    assert ("states" in ours) == asked["return_states"]


@both_conventions
def test_parts_without_a_gradient_get_none(convention):
    case = make_case().requiring_grad({"recurrent"})
    run = fused(case.inputs, case.weights, make_dynamics(convention=convention), case.noise)
    run.outputs.sum().backward()
    have = {name for name, part in case.parts.items() if part.grad is not None}
    assert have == {"recurrent"}


@both_conventions
def test_single_precision_at_full_size(convention, implementation):
    case = make_case(hidden=256, batch=32, steps=15)
    case.weights.recurrent.mul_(0.9)
    dynamics = make_dynamics("tanh", "softplus", convention, dt=0.5)
    exact = everything(plain, case, dynamics)
    single = everything(fused, case.to(torch.float32), dynamics)
    assert all(value.dtype == torch.float32 for value in single.values())
    assert_same(single, exact, tolerance=1e-5)


@both_conventions
@pytest.mark.parametrize("sources", [("outputs",), ("outputs", "states")], ids=" and ".join)
@pytest.mark.parametrize("without", [(), ("initial_state", "bias", "noise")], ids=["all parts", "few parts"])
def test_every_means_in_a_small_network(convention, implementation, sources, without):
    # 5 trials are not a whole number of tiles, and 17 units none at all
    case = make_case(hidden=64 if implementation == "compiled" else 17, batch=5, steps=6, without=without)
    for readout in ("tanh", "relu"):
        dynamics = make_dynamics("tanh", readout, convention)
        exact = everything(plain, case, dynamics, sources=sources, return_states="states" in sources)
        single = everything(fused, case.to(torch.float32), dynamics, sources=sources, return_states="states" in sources)
        assert_same(single, exact, tolerance=1e-5)


@both_conventions
def test_the_same_numbers_give_the_same_bits(convention, implementation):
    case, dynamics = make_case(hidden=64, batch=5, steps=6, dtype=torch.float32), make_dynamics(convention=convention)
    once, again = (everything(fused, case, dynamics) for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)


@both_conventions
@pytest.mark.parametrize("phi", ["tanh", "relu", "softplus", "identity"])
def test_every_nonlinearity_in_single_precision(convention, phi, implementation):
    case, dynamics = make_case(hidden=64, batch=9, steps=7), make_dynamics(phi, None, convention)
    case.weights.recurrent.mul_(0.5)
    exact = everything(plain, case, dynamics, sources=("outputs",))
    single = everything(fused, case.to(torch.float32), dynamics, sources=("outputs",))
    assert_same(single, exact, tolerance=1e-5)


@pytest.mark.parametrize(("hidden", "dtype"), [(6, torch.float64), (64, torch.float32)])
def test_memory_layout_of_the_arguments_is_free(hidden, dtype):
    case = make_case(hidden=hidden, batch=3, steps=4, inputs=2, dtype=dtype)
    strided = Case(
        inputs=case.inputs.transpose(0, 1).contiguous().transpose(0, 1),
        noise=case.noise.transpose(0, 2).contiguous().transpose(0, 2),
        weights=Weights(*(w.t().contiguous().t() if w.ndim == 2 else w for w in case.weights[:5])),
    )
    assert not strided.weights.recurrent.is_contiguous()
    for convention in CONVENTIONS:
        dynamics, found = make_dynamics(convention=convention), []
        for one in (case, strided):
            run = fused(one.inputs, one.weights, dynamics, one.noise, return_states=True)
            found.append(run)
            assert run.outputs.is_contiguous()
            assert run.states.is_contiguous()
        torch.testing.assert_close(found[0].outputs, found[1].outputs)
        torch.testing.assert_close(found[0].states, found[1].states)
    one_input = case.inputs[:1].expand(3, 4, 2)  # no memory of its own
    repeated = fused(one_input, case.weights, make_dynamics()).outputs
    torch.testing.assert_close(repeated, plain(one_input, case.weights, make_dynamics()).outputs)
    assert torch.equal(repeated[0], repeated[2])


def test_nothing_given_is_changed():
    case = make_case().requiring_grad()
    before = {name: part.detach().clone() for name, part in case.parts.items()}
    for convention in CONVENTIONS:
        run = fused(case.inputs, case.weights, make_dynamics("relu", "tanh", convention), case.noise, True)
        (run.outputs.sum() + run.states.sum()).backward()
    for name, part in case.parts.items():
        assert torch.equal(part.detach(), before[name]), name
