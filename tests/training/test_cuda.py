"""Devices and their memory, without a GPU."""

import pytest
import torch

import rankscope as rs
from rankscope.training.batched import bytes_of_one
from rankscope.training.cuda import find_device, free_bytes, full_precision

TASK = rs.tasks.FlipFlop(duration=20)


@pytest.mark.parametrize("name", ["tpu", "meta", "mps", "cuda:99", 3.5])
def test_a_device_that_does_not_exist(name):
    with pytest.raises(rs.InputError, match="device must"):
        find_device(name)


def test_precision_is_restored():
    products = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(products, "fp32_precision") else "allow_tf32"
    before = getattr(products, name)
    with full_precision():
        assert getattr(products, name) in ("ieee", False)
    assert getattr(products, name) == before


def test_memory_grows_with_states_and_weights():
    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50
    small, large = (rs.RateRNN.initialize(TASK, hidden_size=N, rng=0) for N in (64, 128))
    assert 2 < bytes_of_one(large, 20, 32) / bytes_of_one(small, 20, 32) < 4
