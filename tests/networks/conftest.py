"""A fixture that sends every single-precision product through one of the three means."""

import pytest
import torch

from rankscope.networks.kernels import build as native
from rankscope.networks.kernels import dispatch as products

HAVE_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


@pytest.fixture(params=["native", "onednn", "addmm"])
def means(request, monkeypatch):
    """The name of the means in force; native falls back to addmm where a tile does not fit."""
    if request.param == "native" and native.compiled() is None:
        pytest.skip("llvmlite is not installed, or knows no vectors of this processor")
    if request.param == "onednn" and not HAVE_ONEDNN:
        pytest.skip("this torch has no oneDNN operators")
    if request.param != "native":
        monkeypatch.setattr(native, "supports", lambda columns: False)
    monkeypatch.setattr(products, "_onednn_beats_mkl", lambda: request.param == "onednn")
    monkeypatch.setattr(products, "SMALLEST_ONEDNN_PRODUCT", 0)
    return request.param
