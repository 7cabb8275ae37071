"""A fixture that sends every single-precision product through one of the three implementations."""

import pytest
import torch

from rankscope.networks.kernels import build, dispatch


@pytest.fixture(params=["compiled", "onednn", "addmm"])
def implementation(request, monkeypatch):
    """The implementation in force; "compiled" falls back to addmm where a tile does not fit."""
    if request.param == "compiled" and build.compiled() is None:
        pytest.skip("llvmlite is not installed, or knows no vectors of this processor")
    if request.param == "onednn" and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN operators")
    if request.param != "compiled":
        monkeypatch.setattr(build, "supports", lambda columns: False)
    monkeypatch.setattr(dispatch, "onednn_beats_mkl", lambda: request.param == "onednn")
    monkeypatch.setattr(dispatch, "SMALLEST_ONEDNN_PRODUCT", 0)
    return request.param
