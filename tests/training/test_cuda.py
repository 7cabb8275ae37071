"""What is special about a graphics card; as far as it can be tested without one."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.training import cuda as graphics
from rankscope.training.batched import Stack, Step, bytes_of_one
from rankscope.training.cuda import find_device, free_bytes, full_precision, mark, name_of_device
from rankscope.training.draws import Draws
from rankscope.training.loss import squared_loss
from rankscope.training.rules import make_rules
from rankscope.training.setup import Recording, begin
from rankscope.training.together import train_together

TASK = rs.tasks.FlipFlop(duration=20)
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no graphics card here")
CPU = torch.device("cpu")


def laid_out(optimizer="adam", device=CPU, stop_below=None):
    """A stack, a step with trials in its buffers, and both their parts for a second step."""
    options = {"learning_rate": 0.05, "clip_norm": 0.1, "stop_below": stop_below}
    rules = make_rules(9, 24, batch_size=8, optimizer=optimizer, **options)
    networks = [rs.RateRNN.initialize(TASK, hidden_size=24, gain=g, rng=g) for g in range(3)]
    rngs = [np.random.default_rng(seed) for seed in range(3)]
    begun = [
        begin(network, TASK, rng, rules, squared_loss, Recording(), 24)[0]
        for network, rng in zip(networks, rngs, strict=True)
    ]
    stack = Stack(begun, rules, device)
    drawn = Draws(TASK, 8, rngs, 1, ahead=False, pinned=False).next()
    step = Step(stack, rules, squared_loss, drawn.shapes)
    step.load(drawn.blocks)
    return stack, step


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_rehearsal_changes_nothing(optimizer):
    stack, step = laid_out(optimizer, stop_below=2.0)
    other_stack, other_step = laid_out(optimizer, stop_below=2.0)
    places = [value.data_ptr() for value in stack.changing]
    for _ in range(graphics.REHEARSALS):
        step.rehearse()
    assert [value.data_ptr() for value in stack.changing] == places  # a captured step works where they are
    for value, untouched in zip(stack.changing, other_stack.changing, strict=True):
        assert torch.equal(value.isnan(), untouched.isnan())
        assert torch.equal(value.nan_to_num(), untouched.nan_to_num())
    assert not step.report.any()
    step()
    other_step()
    assert [value.data_ptr() for value in stack.changing] == places
    for value, other in zip(stack.changing, other_stack.changing, strict=True):
        assert torch.equal(value, other)
    assert torch.equal(step.report, other_step.report)
    assert not stack.learning.any()  # they did take the step


def test_no_device_that_is_not_there():
    assert find_device("cpu") == CPU
    assert name_of_device(CPU) == "cpu"
    for name in ("tpu", "meta", "mps", "cuda:99", 3.5):
        with pytest.raises(rs.InputError, match="device must be"):
            find_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(rs.InputError, match=r"'cuda'.* finds 0 cards"):
            train_together([rs.RateRNN.initialize(TASK, hidden_size=8, rng=0)], TASK, 2, [0], device="cuda")


def test_precision_is_what_it_was_afterwards():
    products = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(products, "fp32_precision") else "allow_tf32"
    before = getattr(products, name)
    with full_precision():
        assert getattr(products, name) in ("ieee", False)
    assert getattr(products, name) == before
    setattr(products, name, {"fp32_precision": "tf32", "allow_tf32": True}[name])
    try:
        allowed = getattr(products, name)
        with full_precision():
            assert getattr(products, name) != allowed
        assert getattr(products, name) == allowed
    finally:
        setattr(products, name, before)
    with full_precision(False):
        assert getattr(products, name) == before


def test_memory():
    assert 2**20 < free_bytes(CPU) < 2**50
    small, large = (rs.RateRNN.initialize(TASK, hidden_size=N, rng=0) for N in (64, 128))
    # States grow as N, weights as N^2.
    assert 2 < bytes_of_one(large, 20, 32) / bytes_of_one(small, 20, 32) < 4
    assert bytes_of_one(small.double(), 20, 32) == 2 * bytes_of_one(rs.RateRNN.initialize(TASK, 64, rng=0), 20, 32)
    mark(CPU)()


@needs_card
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_captured_step_does_what_the_step_does(optimizer):
    device = torch.device("cuda")
    (stack, step), (other_stack, other_step) = laid_out(optimizer, device), laid_out(optimizer, device)
    for _ in range(5):
        step()
        other_step._run()
        torch.testing.assert_close(step.report, other_step.report, rtol=1e-6, atol=0)
    for value, other in zip(stack.changing, other_stack.changing, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-7)


@needs_card
def test_a_training_on_a_card_goes_on_bit_for_bit(tmp_path):
    def run(path, epochs):
        networks = [rs.RateRNN.initialize(TASK, hidden_size=64, gain=g, rng=g) for g in range(3)]
        train_together(networks, TASK, epochs, [0, 1, 2], device="cuda", recorded_epochs=[0, 9], checkpoint=path)
        return networks

    whole = run(tmp_path / "whole", 30)
    run(tmp_path / "stopped", 13)
    for one, other in zip(run(tmp_path / "stopped", 30), whole, strict=True):
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


@needs_card
@pytest.mark.slow
def test_the_papers_networks_on_a_card():
    task = rs.tasks.make("flipflop")
    networks = [rs.RateRNN.initialize(task, gain=0.3 * (seed % 8), rng=seed) for seed in range(40)]
    histories = train_together(networks, task, 1000, list(range(40)), device="cuda", recorded_epochs=200)
    assert all(history.status == "finished" for history in histories)
    assert np.median([history.losses[-1] / history.losses[0] for history in histories]) < 0.05
