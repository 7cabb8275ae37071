"""What the theory cannot answer it refuses, and says which argument is to blame and what was given."""

import numpy as np
import pytest

from rankscope.errors import InputError
from rankscope.theory import InfiniteWidth, ThirdOrder, reduced, solution

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gain": 1}, "gain must be below 1, where the linear network has a fixed point, got 1"),
        ({"gain": 1.5}, "gain must be below 1, .* got 1.5"),
        ({"gain": -0.1}, "gain must be a finite number >= 0, got -0.1"),
        ({"gain": NAN}, "gain must be a finite number >= 0, got nan"),
        ({"gain": INF}, "gain must be a finite number >= 0, got inf"),
        ({"gain": None}, "gain must be a number >= 0, got None"),
        ({"gain": True}, "gain must be a number >= 0, got True"),
        ({"gain": [0.5]}, r"gain must be a number >= 0, got \[0.5\]"),
        ({"gain": 0.999999}, "gain must be further below 1 for an accuracy of 1e-10, got 0.999999"),
        ({"target": 0}, "target must not be 0, which the network gives before any learning, got 0"),
        ({"target": [[0.0, 0.0]]}, r"target must not be 0, .* got \[\[0.0, 0.0\]\]"),
        ({"target": NAN}, "target must be a finite number or a matrix .* got nan"),
        ({"target": INF}, "target must be a finite number or a matrix .* got inf"),
        ({"target": [[1.0, NAN]]}, r"target must be a finite number or a matrix .* got \[\[1.0, nan\]\]"),
        ({"target": None}, "target must be a number or a matrix .* got None"),
        ({"target": "2"}, "target must be a number or a matrix .* got '2'"),
        ({"target": True}, "target must be a number or a matrix .* got True"),
        ({"target": 1j}, "target must be a number or a matrix .* got 1j"),
        ({"target": [1.0]}, r"target must be a finite number or a matrix .* got \[1.0\]"),
        ({"target": []}, r"target must be a finite number or a matrix .* got \[\]"),
        ({"target": [[1, 2], [3]]}, r"target must be a number or a matrix .* got \[\[1, 2\], \[3\]\]"),
        ({"target": [[[1.0]]]}, r"target must be a finite number or a matrix .* got \[\[\[1.0\]\]\]"),
        ({"target": 1e-7}, r"target must be between 1e-06 and 1e\+06 in size, got 1e-07"),
        ({"target": -1e200}, r"target must be between 1e-06 and 1e\+06 in size, got -1e\+200"),
        ({"accuracy": 0}, "accuracy must be a finite number >= 1e-10 and <= 0.1, got 0"),
        ({"accuracy": 1e-12}, "accuracy must be a finite number >= 1e-10 and <= 0.1, got 1e-12"),
        ({"accuracy": 1}, "accuracy must be a finite number >= 1e-10 and <= 0.1, got 1"),
        ({"accuracy": "high"}, "accuracy must be a number >= 1e-10 and <= 0.1, got 'high'"),
    ],
)
def test_theories_that_are_none(wrong, message):
    with pytest.raises(InputError, match=message):
        InfiniteWidth(**{"gain": 0.5, "target": 1.0} | wrong)


def test_accuracies_out_of_reach(monkeypatch):
    # Near the bulk the overlaps vary fast, the faster the nearer its edge is to 1. (0.9999 takes seconds to refuse.)
    with monkeypatch.context() as patch:
        patch.setattr(reduced, "MOST_NODES", 40)
        with pytest.raises(InputError, match=r"accuracy must be larger than 1e-06 .* so near to 1, at 0\.95"):
            InfiniteWidth(0.95, 2.0).solve([np.inf])
    assert InfiniteWidth(0.95, 2.0).solve([np.inf])["outlier"].notnull()
    # Chains that the accuracy is too much for.
    with monkeypatch.context() as patch:
        patch.setattr(solution, "LONGEST_CHAIN", 8)
        with pytest.raises(
            InputError, match=r"accuracy must be larger than 1e-10: chains of 8 directions .*gain=0\.9,"
        ):
            InfiniteWidth(0.9, 0.5, accuracy=1e-10).solve([np.inf])
    # So large a target is learned in a moment that no double precision places.
    with pytest.raises(InputError, match=r"accuracy must be larger than 1e-10 .*gain=0\.6, target=1000"):
        InfiniteWidth(0.6, 1000.0, accuracy=1e-10).solve([np.inf])


@pytest.mark.parametrize(
    "times",
    [
        [],
        [-1.0],
        [1.0, 0.5],
        [0.5, 0.5],
        [INF, INF],
        [NAN],
        [0.0, NAN, 1.0],
        -INF,
        [[1.0, 2.0]],
        None,
        "now",
        ["now"],
        [1j],
        [True],
        [[1.0], [1.0, 2.0]],
    ],
)
@pytest.mark.parametrize(
    "theory", [InfiniteWidth(0.5, 1.0), ThirdOrder(0.5, 1.0)], ids=lambda theory: type(theory).__name__
)
def test_times_that_are_none(theory, times):
    with pytest.raises(InputError) as caught:
        theory.solve(times)
    assert str(caught.value) == f"times must be increasing learning times from 0 on, got {times!r}"


@pytest.mark.parametrize("times", [0, 0.3, np.inf, [0, 1], np.array([1, 2]), (0.1, np.inf), [np.float32(0.5)]])
def test_times_that_are_some(times):
    assert InfiniteWidth(0.5, 1.0).solve(times).sizes["tau"] == np.size(times)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("descend", (0, 5), "learning_rate must be a finite number > 0, got 0"),
        ("descend", (-1.0, 5), "learning_rate must be a finite number > 0, got -1.0"),
        ("descend", (NAN, 5), "learning_rate must be a finite number > 0, got nan"),
        ("descend", ("fast", 5), "learning_rate must be a number > 0, got 'fast'"),
        ("descend", (0.1, 0), "epochs must be a whole number >= 1, got 0"),
        ("descend", (0.1, 1.5), "epochs must be a whole number >= 1, got 1.5"),
        ("descend", (0.1, None), "epochs must be a whole number >= 1, got None"),
        ("convergence_time", (0,), "fraction must be a finite number > 0, got 0"),
        ("convergence_time", (1,), "fraction must be below 1, got 1"),
        ("convergence_time", (NAN,), "fraction must be a finite number > 0, got nan"),
        ("convergence_time", (1e-20,), "fraction must be at least 1e-14 at an accuracy of 1e-06, got 1e-20"),
        ("taylor", (-1,), "order must be a whole number >= 0, got -1"),
        ("taylor", (2.5,), "order must be a whole number >= 0, got 2.5"),
    ],
)
@pytest.mark.parametrize("target", [2.0, [[1.0, 0.5], [0.0, 2.0]]], ids=["number", "matrix"])
def test_questions_that_are_none(target, method, arguments, message):
    with pytest.raises(InputError, match=message):
        getattr(InfiniteWidth(0.5, target), method)(*arguments)
