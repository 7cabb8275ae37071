"""Devices and the precision of their products, without a GPU."""

import pytest
import torch

import rankscope as rs
from rankscope.training.cuda import find_device, full_precision


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
