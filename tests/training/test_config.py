"""The rules of a training: alone and together they decide alike."""

import math

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.training.rules import LARGEST_STEP, Rules, make_rules

VALUES = [0.0, 0.3, 1.0, 1e10, 1e29, 3e29, LARGEST_STEP, 1e31, 1e38, math.inf, -math.inf, math.nan]


def rules(**changes):
    return Rules(**{"total": 5, "batch_size": 4, "optimizer": "adam", "learning_rate": 0.1} | changes)


def rules_of(rate, stop_below=None):
    return rules(learning_rate=rate, clip_norm=None, stop_below=stop_below)


@pytest.mark.parametrize("rate", [1e-3, 0.1, 1.0, 1e29, LARGEST_STEP])
def test_a_divergence_is_one_alone_and_together(rate):
    pairs = [(loss, norm) for loss in VALUES for norm in VALUES]
    alone = [rules_of(rate).diverges(loss, norm) for loss, norm in pairs]
    losses, norms = torch.tensor(pairs, dtype=torch.float64).T
    np.testing.assert_array_equal(rules_of(rate).each_diverges(losses, norms).numpy(), alone)
    assert any(alone)
    assert rate == LARGEST_STEP or not all(alone)


def test_what_is_out_of_range():
    assert not rules_of(0.1).diverges(1.0, 9e30)
    assert rules_of(0.1).diverges(1.0, 1e31)
    assert rules_of(LARGEST_STEP).diverges(1.0, 0.0)  # Adam's steps do not grow less with the gradient
    assert rules_of(0.1).diverges(math.nan, 1.0)
    assert rules_of(0.1).diverges(1.0, math.inf)


@pytest.mark.parametrize("stop_below", [None, 0.3, 1.0])
def test_a_stop_is_one_alone_and_together(stop_below):
    pairs = [(loss, first) for loss in (0.0, 0.1, 0.3, 0.30000000000000004, 1.0) for first in (0.0, 0.5, 1.0)]
    ends = rules_of(0.1, stop_below)
    alone = [ends.ending(3, loss, first) == "stopped" for loss, first in pairs]
    losses, firsts = torch.tensor(pairs, dtype=torch.float64).T
    np.testing.assert_array_equal(ends.each_stops(losses, firsts).numpy(), alone)
    assert any(alone) == (stop_below is not None)


def test_how_it_ends():
    ends = rules_of(0.1, 0.3)
    assert ends.ending(4, 0.5, 1.0) is None
    assert ends.ending(5, 0.5, 1.0) == "finished"
    assert ends.ending(5, 0.2, 1.0) == "stopped"
    assert rules_of(0.1).ending(4, 0.2, 1.0) is None


def test_gradients_are_scaled_down_not_up():
    norms = torch.tensor([0.01, 0.5, 2.0])
    factors = rules(clip_norm=0.5, stop_below=None).clip_factors(norms)
    torch.testing.assert_close(factors * norms, torch.tensor([0.01, 0.5, 0.5]), rtol=1e-5, atol=0)
    assert rules(clip_norm=None, stop_below=None).clip_factors(norms) is None


def test_options_are_checked():
    options = {"batch_size": 4, "optimizer": "adam", "learning_rate": None, "clip_norm": None, "stop_below": None}
    assert make_rules(9, 50, **options).learning_rate == 0.05 / 50
    for name, wrong in (("batch_size", 0), ("optimizer", "lbfgs"), ("learning_rate", 0), ("clip_norm", -1)):
        with pytest.raises(rs.InputError, match=f"{name} must be"):
            make_rules(9, 50, **{**options, name: wrong})
