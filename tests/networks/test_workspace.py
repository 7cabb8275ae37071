"""The memory of the fused engine: used again, bounded, never shared."""

import copy
import gc
import pickle

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import make_case, make_dynamics

from rankscope.networks import RateRNN, fused
from rankscope.networks.workspace import Workspace, WorkspaceKey, WorkspacePool


def key(steps=2, batch=3, hidden_size=4, dtype=torch.float32):
    return WorkspaceKey(steps, batch, hidden_size, dtype, torch.device("cpu"))


def test_buffers_have_the_shape_of_the_pass():
    workspace = Workspace(key(dtype=torch.float64))
    buffer = workspace.buffer("rates", extra_steps=1)
    assert buffer.shape == (3, 3, 4)
    assert buffer.dtype == torch.float64
    assert workspace.buffer("rates", extra_steps=1).data_ptr() == buffer.data_ptr()
    assert workspace.buffer("delta").shape == (2, 3, 4)
    assert workspace.buffer("delta").data_ptr() != buffer.data_ptr()


def test_memory_comes_back_and_is_used_again():
    pool = WorkspacePool()
    lease = pool.lease(key())
    workspace = lease.workspace
    assert pool.lease(key()).workspace is not workspace
    del lease
    assert pool.lease(key()).workspace is workspace


def test_only_memory_of_the_right_shape_and_type_is_used_again():
    pool = WorkspacePool(keep=10)
    others = [key(steps=3), key(batch=4), key(hidden_size=5), key(dtype=torch.float64)]
    for other in others:
        pool.lease(other)
    lease = pool.lease(key())
    assert lease.workspace.key == key()
    assert len(pool._free) == 4


def test_the_most_recently_used_are_kept():
    pool = WorkspacePool()
    for steps in (1, 2, 3):
        pool.lease(key(steps))
    assert [workspace.key.steps for workspace in pool._free.values()] == [2, 3]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 8)), max_size=40))
def test_no_two_leases_hold_the_same_memory(story):
    """Lease and give back in any order: the leased workspaces stay distinct, the free ones few."""
    pool, held = WorkspacePool(), []
    for steps, drop in story:
        if held and drop % 2:
            del held[drop % len(held)]
        else:
            held.append(pool.lease(key(steps)))
            assert held[-1].workspace.key == key(steps)
        leased = {id(lease.workspace) for lease in held}
        assert len(leased) == len(held)
        assert leased.isdisjoint(id(workspace) for workspace in pool._free.values())
        assert len(pool._free) <= 2


def test_copies_start_with_no_memory():
    pool = WorkspacePool(keep=5)
    pool.lease(key())
    for twin in (copy.deepcopy(pool), copy.copy(pool), pickle.loads(pickle.dumps(pool))):
        assert twin is not pool
        assert len(twin._free) == 0
        assert twin._keep == 5
    assert len(pool._free) == 1


def test_a_lease_lasts_as_long_as_the_graph():
    case, pool = make_case().requiring_grad(), WorkspacePool()

    def run():
        return fused(case.inputs, case.weights, make_dynamics(), case.noise, pool=pool)

    first = run()
    assert len(pool._free) == 0  # held for the backward pass
    second = run()
    first.outputs.sum().backward()
    assert len(pool._free) == 0  # the graph could be walked again
    del first
    assert len(pool._free) == 1
    del second
    assert len(pool._free) == 2
    last = list(pool._free.values())[-1]
    third = run()
    assert len(pool._free) == 1
    assert last not in pool._free.values()
    del third
    assert list(pool._free.values())[-1] is last


def test_without_a_graph_the_memory_is_back_at_once():
    case, pool = make_case(), WorkspacePool()
    run = fused(case.inputs, case.weights, make_dynamics(), case.noise, return_states=True, pool=pool)
    assert len(pool._free) == 1
    differentiable = case.requiring_grad()
    with torch.no_grad():
        again = fused(differentiable.inputs, differentiable.weights, make_dynamics(), case.noise, True, pool)
    assert len(pool._free) == 1
    assert torch.equal(run.outputs, again.outputs)
    assert torch.equal(run.states, again.states)


def test_a_failed_pass_gives_its_memory_back():
    case, pool = make_case().requiring_grad(), WorkspacePool()
    wrong = case.inputs.new_zeros(3, 4, 7)
    try:
        fused(wrong, case.weights, make_dynamics(), case.noise, pool=pool)
    except RuntimeError:
        pass
    else:
        raise AssertionError("inputs of the wrong size were accepted")
    gc.collect()
    assert len(pool._free) == 1


def test_training_allocates_once():
    network, inputs = RateRNN(*make_case().weights), make_case().inputs
    network(inputs).sum().backward()
    (workspace,) = network.workspaces._free.values()
    addresses = {name: buffer.data_ptr() for name, buffer in workspace._buffers.items()}
    assert "rates" in addresses
    for _ in range(5):
        network(inputs).sum().backward()
    (again,) = network.workspaces._free.values()
    assert again is workspace
    assert {name: buffer.data_ptr() for name, buffer in again._buffers.items()} == addresses


def test_many_shapes_and_many_graphs_leave_little_behind():
    network = RateRNN(*make_case().weights)
    graphs = [network(torch.zeros(batch, steps, 2)) for batch in range(1, 6) for steps in range(1, 6)]
    assert len(network.workspaces._free) == 0
    for graph in graphs:
        graph.sum().backward()
    del graphs, graph
    gc.collect()
    assert len(network.workspaces._free) == 2
