"""What the theory cannot answer it refuses, and says which argument is to blame and what was given."""

import numpy as np
import pytest

import rankscope as rs
from rankscope.errors import InputError
from rankscope.theory import FiniteWidth, InfiniteWidth, SingleNetwork, ThirdOrder

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gain": 1}, "gain must be below 1, where the linear network has a fixed point, got 1"),
        ({"gain": 1.5}, "gain must be below 1, .* got 1.5"),
        ({"gain": -0.1}, "gain must be a finite number >= 0, got -0.1"),
        ({"gain": NAN}, "gain must be a finite number >= 0, got nan"),
        ({"gain": 0.999999}, "gain must be further below 1 for an accuracy of 1e-10, got 0.999999"),
        ({"target": 0}, "target must not be 0, the readout before learning, got 0"),
        ({"target": [[0.0, 0.0]]}, r"target must not be 0, .* got \[\[0.0, 0.0\]\]"),
        ({"target": NAN}, "target must be a finite number or a matrix .* got nan"),
        ({"target": [[1.0, NAN]]}, r"target must be a finite number or a matrix .* got \[\[1.0, nan\]\]"),
        ({"target": "2"}, "target must be a number or a matrix .* got '2'"),
        ({"target": [1.0]}, r"target must be a finite number or a matrix .* got \[1.0\]"),
        ({"target": [[1, 2], [3]]}, r"target must be a number or a matrix .* got \[\[1, 2\], \[3\]\]"),
        ({"target": 1e-7}, r"target must be between 1e-06 and 1e\+06 in size, got 1e-07"),
        ({"target": -1e200}, r"target must be between 1e-06 and 1e\+06 in size, got -1e\+200"),
        ({"accuracy": 0}, "accuracy must be a finite number >= 1e-10 and <= 0.1, got 0"),
        ({"accuracy": "high"}, "accuracy must be a number >= 1e-10 and <= 0.1, got 'high'"),
    ],
)
def test_theories_that_are_none(wrong, message):
    with pytest.raises(InputError, match=message):
        InfiniteWidth(**{"gain": 0.5, "target": 1.0} | wrong)


@pytest.mark.parametrize("times", [[], [-1.0], [1.0, 0.5], [INF, INF], [0.0, NAN], [[1.0, 2.0]], "now", [True]])
@pytest.mark.parametrize(
    "theory", [InfiniteWidth(0.5, 1.0), ThirdOrder(0.5, 1.0)], ids=lambda theory: type(theory).__name__
)
def test_times_that_are_none(theory, times):
    with pytest.raises(InputError) as caught:
        theory.solve(times)
    assert str(caught.value) == f"times must be increasing learning times from 0 on, got {times!r}"


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("descend", (0, 5), "learning_rate must be a finite number > 0, got 0"),
        ("descend", ("fast", 5), "learning_rate must be a number > 0, got 'fast'"),
        ("descend", (0.1, 0), "epochs must be a whole number >= 1, got 0"),
        ("descend", (0.1, 1.5), "epochs must be a whole number >= 1, got 1.5"),
        ("convergence_time", (0,), "fraction must be a finite number > 0, got 0"),
        ("convergence_time", (1,), "fraction must be below 1, got 1"),
        ("convergence_time", (1e-20,), "fraction must be at least 1e-14 at an accuracy of 1e-06, got 1e-20"),
        ("taylor", (-1,), "order must be a whole number >= 0, got -1"),
        ("largest_learning_rate", (0,), "relative_error must be a finite number > 0, got 0"),
    ],
)
def test_questions_that_are_none(method, arguments, message):
    with pytest.raises(InputError, match=message):
        getattr(InfiniteWidth(0.5, 2.0), method)(*arguments)


W0, vector = 0.1 * np.ones((4, 4)), np.ones(4)


@pytest.mark.parametrize(
    ("theory", "wrong", "message"),
    [
        (ThirdOrder, {"gain": 1}, "gain must be below 1"),
        (ThirdOrder, {"target": [[1.0]]}, r"target must be a number, got \[\[1.0\]\]"),
        (FiniteWidth, {"hidden_size": 1}, "hidden_size must be"),
        (FiniteWidth, {"rng": "x"}, "rng must be"),
        (
            SingleNetwork,
            {"recurrent_weights": W0[:3]},
            r"recurrent_weights must be a square .* got shape \(3, 4\)",
        ),
        (SingleNetwork, {"recurrent_weights": np.nan * W0}, "recurrent_weights, .* must be finite"),
        (SingleNetwork, {"recurrent_weights": 9 * W0}, "recurrent_weights must have eigenvalues of modulus below 1"),
        (SingleNetwork, {"input_vector": vector[1:]}, r"input_vector must have 4 entries .*, got shape \(3,\)"),
        (SingleNetwork, {"output_vector": 0 * vector}, "output_vector must have 4 entries that are not all 0"),
    ],
)
def test_arguments_of_the_other_theories(theory, wrong, message):
    valid = {
        ThirdOrder: {"gain": 0.5, "target": 1.0},
        FiniteWidth: {"gain": 0.5, "target": 1.0, "hidden_size": 100, "rng": 0},
        SingleNetwork: {
            "recurrent_weights": W0,
            "input_vector": vector,
            "output_vector": vector,
            "target": 1.0,
        },
    }[theory]
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match=message):
        theory(**valid | wrong)


def test_only_linear_networks_with_one_number_to_learn():
    def network(task, **options):
        return rs.RateRNN.initialize(task, hidden_size=20, gain=0.5, rng=0, **options)

    with pytest.raises(InputError, match=r"network must be linear and without bias, got nonlinearity \['tanh'\]"):
        SingleNetwork.of(network(rs.tasks.FixedPoint()), 2.0)
    with pytest.raises(InputError, match="network must be a RateRNN, got ndarray"):
        SingleNetwork.of(W0, 2.0)
    with pytest.raises(InputError, match="network must have one input and one output, got 2 and 2"):
        SingleNetwork.of(network(rs.tasks.FlipFlop(), nonlinearity="identity"), 2.0)
