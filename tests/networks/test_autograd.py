"""The hand-written pass as a citizen of autograd: what a graph may be used for, and what it refuses."""

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from network_cases import CONVENTIONS, make_case, make_dynamics

from rankscope.networks import RateRNN, fused
from rankscope.networks.workspace import WorkspacePool

both_conventions = pytest.mark.parametrize("convention", CONVENTIONS)
engines = pytest.mark.parametrize("engine", ["fused", "plain"])


def make_network(seed=0, **options):
    case = make_case(hidden=6, seed=seed)
    options = {"trained": ("input", "recurrent", "output", "bias", "initial_state"), **options}
    return RateRNN(*case.weights, **options), case.inputs


def gradients(network):
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def loss_of(network, inputs):
    outputs, states = network(inputs, return_states=True)
    return (outputs**2).sum() + (states**3).sum()


def gradients_alone(network, inputs):
    network.zero_grad()
    loss_of(network, inputs).backward()
    found = gradients(network)
    network.zero_grad()
    return found


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert ours
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-12, atol=1e-12)


@both_conventions
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_forward_passes_before_the_first_backward(convention, order):
    network, inputs = make_network(convention=convention, readout_nonlinearity="relu")
    batches = [inputs, -2 * inputs]
    alone = [gradients_alone(network, batch) for batch in batches]
    losses = [loss_of(network, batch) for batch in batches]
    for which in order:
        network.zero_grad()
        losses[which].backward()
        assert_equal(gradients(network), alone[which])


@both_conventions
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_networks_side_by_side(convention, order):
    pairs = [make_network(seed, convention=convention) for seed in (0, 1)]
    alone = [gradients_alone(*pair) for pair in pairs]
    losses = [loss_of(*pair) for pair in pairs]
    for which in order:
        losses[which].backward()
    for pair, wanted in zip(pairs, alone, strict=True):
        assert_equal(gradients(pair[0]), wanted)


@both_conventions
def test_one_graph_may_be_walked_twice(convention):
    network, inputs = make_network(convention=convention, readout_nonlinearity="softplus")
    once = gradients_alone(network, inputs)
    loss = loss_of(network, inputs)
    loss.backward(retain_graph=True)
    loss_of(network, -inputs)  # another pass, thrown away, in between
    loss.backward()
    assert_equal(gradients(network), {name: 2 * gradient for name, gradient in once.items()})
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


@both_conventions
def test_gradients_of_several_batches_add_up(convention):
    network, inputs = make_network(convention=convention)
    each = [gradients_alone(network, scale * inputs) for scale in (1, 2, 3)]
    for scale in (1, 2, 3):
        loss_of(network, scale * inputs).backward()
    assert_equal(gradients(network), {name: sum(g[name] for g in each) for name in each[0]})


@both_conventions
@pytest.mark.parametrize("part", ["input_weights", "recurrent_weights", "output_weights", "bias", "initial_state"])
def test_a_backward_pass_with_changed_weights_is_refused(convention, part):
    network, inputs = make_network(convention=convention)
    loss = loss_of(network, inputs)
    with torch.no_grad():
        getattr(network, part).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@both_conventions
def test_inputs_may_change_before_the_backward_pass(convention):
    network, inputs = make_network(convention=convention)
    expected = gradients_alone(network, inputs.clone())
    loss = loss_of(network, inputs)
    with torch.no_grad():
        inputs.add_(1)
    loss.backward()
    assert_equal(gradients(network), expected)


def test_second_derivatives_are_refused():
    network, inputs = make_network(engine="fused")
    (gradient,) = torch.autograd.grad(loss_of(network, inputs), network.recurrent_weights, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_second_derivatives_by_the_plain_engine():
    network, inputs = make_network(engine="plain")
    (gradient,) = torch.autograd.grad(loss_of(network, inputs), network.recurrent_weights, create_graph=True)
    gradient.sum().backward()
    assert network.recurrent_weights.grad.any()


@engines
@both_conventions
def test_without_autograd(engine, convention):
    network, inputs = make_network(engine=engine, convention=convention)
    with_graph = network(inputs, return_states=True)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            without = network(inputs, return_states=True)
        for one, other in zip(without, with_graph, strict=True):
            assert not one.requires_grad
            assert torch.equal(one, other)
    loss_of(network, inputs).backward()  # and it still learns
    assert network.recurrent_weights.grad.any()


@both_conventions
@pytest.mark.parametrize("again", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_of_a_network_in_use(convention, again):
    network, inputs = make_network(convention=convention, readout_nonlinearity="relu")
    wanted = gradients_alone(network, inputs)
    loss = loss_of(network, inputs)  # still open while the copy is made and used
    twin = again(network)
    assert twin.workspaces is not network.workspaces
    assert twin.dynamics == network.dynamics
    assert twin.dynamics.nonlinearity is network.dynamics.nonlinearity
    loss_of(twin, inputs).backward()
    loss.backward()
    assert_equal(gradients(twin), wanted)
    assert_equal(gradients(network), wanted)
    with torch.no_grad():
        twin.recurrent_weights.zero_()
    assert network.recurrent_weights.any()


@both_conventions
def test_threads_share_a_network(convention):
    network, inputs = make_network(convention=convention, readout_nonlinearity="softplus")
    # one shape for all, so that they want the same memory
    batches = [inputs * scale for scale in torch.linspace(-1, 1, 40)]

    def work(batch):
        outputs, states = network(batch, return_states=True)
        loss = (outputs**2).sum() + (states**3).sum()
        return outputs, states, *torch.autograd.grad(loss, list(network.parameters()))

    serially = [work(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(work, batches))
    for ours, theirs in zip(at_once, serially, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("batch", "steps"), [(3, 4), (1, 4), (3, 1), (1, 1)])
@both_conventions
@engines
@pytest.mark.parametrize("graph", [True, False], ids=["graph", "no graph"])
def test_what_was_returned_is_never_overwritten(engine, convention, batch, steps, graph):
    network, inputs = make_network(engine=engine, convention=convention)
    inputs = inputs[:batch, :steps]
    with torch.set_grad_enabled(graph):
        outputs, states = network(inputs, return_states=True)
        kept = outputs.detach().clone(), states.detach().clone()
        for scale in (2, 3):
            network(scale * inputs, return_states=True)
        if graph:
            (outputs.sum() + states.sum()).backward()
    gc.collect()
    with torch.no_grad():
        network(4 * inputs, return_states=True)
    assert torch.equal(outputs.detach(), kept[0])
    assert torch.equal(states.detach(), kept[1])


@pytest.mark.parametrize(("batch", "steps"), [(3, 4), (1, 4), (3, 1)])
@both_conventions
def test_what_was_returned_may_be_overwritten(convention, batch, steps):
    network, inputs = make_network(convention=convention)
    inputs = inputs[:batch, :steps]
    network(inputs).sum().backward()
    wanted = gradients(network)
    network.zero_grad()
    outputs, states = network(inputs, return_states=True)
    with torch.no_grad():
        states.zero_()
    outputs.sum().backward()
    assert_equal(gradients(network), wanted)


@both_conventions
@pytest.mark.parametrize("batch", [3, 1])
def test_gradients_given_out_are_never_overwritten(convention, batch):
    case, dynamics, pool = (
        make_case(batch=batch).requiring_grad(),
        make_dynamics(convention=convention),
        WorkspacePool(),
    )
    leaves = list(case.parts.values())

    def run(scale):
        outputs, states = fused(case.inputs, case.weights, dynamics, case.noise, return_states=True, pool=pool)
        return torch.autograd.grad(scale * (outputs.sum() + (states**2).sum()), leaves)

    first = run(1)
    kept = [gradient.clone() for gradient in first]
    for gradient, copied, other in zip(first, kept, run(2), strict=True):
        assert torch.equal(gradient, copied)
        torch.testing.assert_close(other, 2 * copied)


def test_cross_entropy_with_momentum_learns():
    torch_rng = torch.Generator().manual_seed(0)
    network, _ = make_network()
    inputs = torch.randn(64, 5, 2, dtype=torch.float64, generator=torch_rng)
    labels = (inputs.sum(dim=(1, 2)) > 0).long()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(inputs)[:, -1], labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 < losses[0]


@both_conventions
def test_lbfgs_evaluates_as_often_as_it_likes(convention):
    network, inputs = make_network(convention=convention)
    twin = RateRNN(
        *(w.detach() for w in network.weights[:5]), convention=convention, engine="plain", trained=network.trained
    )
    target, ends = torch.full((3, 2), 0.3, dtype=torch.float64), []
    for one in (network, twin):
        optimizer = torch.optim.LBFGS(one.parameters(), max_iter=10, line_search_fn="strong_wolfe")

        def closure(one=one, optimizer=optimizer):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(one(inputs)[:, -1], target)
            loss.backward()
            return loss

        start = closure().item()
        optimizer.step(closure)
        ends.append(closure().item())
        assert ends[-1] < 0.05 * start
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)
