"""Checks at the door: what comes through, and that a refusal names the argument, the bound and the value."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rankscope as rs
from rankscope.errors import InputError
from rankscope.validation import choice, generator, integer, number

NOT_NUMBERS = st.one_of(st.text(), st.none(), st.booleans(), st.lists(st.floats()), st.complex_numbers(), st.binary())


def refusal(check, *arguments, **bounds):
    with pytest.raises(InputError) as caught:
        check("thing", *arguments, **bounds)
    return str(caught.value)


def test_a_refusal_is_a_value_error():
    assert issubclass(InputError, ValueError)


@given(st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53)))
def test_number_passes_finite_numbers(value):
    assert number("thing", value) == value
    assert type(number("thing", value)) is float


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_number_passes_other_numbers(value):
    assert number("thing", value) == 0.5
    assert type(number("thing", value)) is float
    assert number("thing", np.int64(3)) == 3


@given(NOT_NUMBERS)
def test_number_refuses_everything_else(value):
    assert refusal(number, value, above=0) == f"thing must be a number > 0, got {value!r}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32("nan"), 10**400, np.True_, np.ones(1)])
def test_number_refuses_what_is_not_finite(value):
    assert refusal(number, value).endswith(f"number, got {value!r}")


BOUNDS = st.fixed_dictionaries(
    {}, optional={name: st.floats(-10, 10) for name in ("above", "minimum", "maximum", "below")}
)


@given(st.floats(-12, 12) | st.integers(-12, 12), BOUNDS)
def test_bounds_of_a_number(value, bounds):
    inside = (
        ("above" not in bounds or value > bounds["above"])
        and ("minimum" not in bounds or value >= bounds["minimum"])
        and ("maximum" not in bounds or value <= bounds["maximum"])
        and ("below" not in bounds or value < bounds["below"])
    )
    if inside:
        assert number("thing", value, **bounds) == value
        return
    message = refusal(number, value, **bounds)
    signs = {"above": ">", "minimum": ">=", "maximum": "<=", "below": "<"}
    stated = " and ".join(f"{signs[name]} {bounds[name]:.12g}" for name in signs if name in bounds)
    assert message == f"thing must be a finite number {stated}, got {value!r}"


def test_bounds_are_inclusive_or_not():
    assert number("thing", 1, minimum=1, maximum=1) == 1
    assert refusal(number, 1, above=1, below=2) == "thing must be a finite number > 1 and < 2, got 1"
    assert refusal(number, 2, above=1, below=2) == "thing must be a finite number > 1 and < 2, got 2"


@given(st.integers(), st.integers(-5, 5), st.integers(-5, 5))
def test_integer(value, minimum, maximum):
    assert integer("thing", value) == value
    if minimum <= value <= maximum:
        assert integer("thing", value, minimum=minimum, maximum=maximum) == value
    else:
        expected = f"thing must be a whole number >= {minimum} and <= {maximum}, got {value!r}"
        assert refusal(integer, value, minimum=minimum, maximum=maximum) == expected


@pytest.mark.parametrize("value", [np.int64(7), np.uint8(7), 7])
def test_integer_returns_a_plain_int(value):
    assert integer("thing", value) == 7
    assert type(integer("thing", value)) is int


@given(st.floats() | NOT_NUMBERS | st.just(np.True_) | st.just(np.float64(3)))
def test_integer_refuses_everything_else_3_0_too(value):
    assert refusal(integer, value, minimum=1) == f"thing must be a whole number >= 1, got {value!r}"


def test_large_bounds_are_told_in_full():
    assert refusal(integer, 0, minimum=1234567) == "thing must be a whole number >= 1234567, got 0"


OPTIONS = ["flipflop", "mante", "romo"]


@given(st.sampled_from(OPTIONS))
def test_choice_passes_options(value):
    assert choice("thing", value, OPTIONS) == value
    assert choice("thing", value, dict.fromkeys(OPTIONS)) == value
    assert choice("thing", value, (option for option in OPTIONS)) == value


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("flipflp", " (did you mean 'flipflop'?)"),
        ("Mante", " (did you mean 'mante'?)"),
        ("rome", " (did you mean 'romo'?)"),
        ("xyz", ""),
        ("", ""),
        (3, ""),
        (None, ""),
        (["romo"], ""),
    ],
)
def test_choice_names_the_nearest(value, hint):
    assert refusal(choice, value, OPTIONS) == f"thing must be one of 'flipflop', 'mante', 'romo', got {value!r}{hint}"


@given(st.integers(0, 2**70))
def test_generator_of_a_seed(seed):
    expected = np.random.default_rng(seed).integers(2**60)
    assert generator(seed).integers(2**60) == expected
    assert generator(np.random.SeedSequence(seed)).integers(2**60) == expected


def test_generator_of_a_numpy_integer():
    assert generator(np.int32(5)).integers(2**60) == generator(5).integers(2**60)


def test_a_generator_is_passed_on_and_none_is_fresh():
    rng = np.random.Generator(np.random.MT19937(0))
    assert generator(rng) is rng
    assert generator(None).integers(2**60) != generator(None).integers(2**60)


@given(st.integers(max_value=-1) | st.floats() | st.booleans() | st.text() | st.lists(st.integers()))
def test_generator_refuses_everything_else(value):
    expected = f"must be a seed (a whole number >= 0) or a numpy Generator, got {value!r}"
    with pytest.raises(InputError) as caught:
        generator(value)
    assert str(caught.value) == f"rng {expected}"
    with pytest.raises(InputError) as caught:
        generator(value, "seed")
    assert str(caught.value) == f"seed {expected}"


def test_generator_refuses_the_legacy_kind():
    with pytest.raises(InputError, match="rng must be a seed"):
        generator(np.random.RandomState(0))


@pytest.mark.parametrize(
    ("option", "message"),
    [("lr", "did you mean 'learning_rate'"), ("n_epochs", "did you mean 'epochs'"), ("device", "network.to.'cuda'.")],
)
def test_usual_words_of_other_libraries(option, message):
    with pytest.raises(InputError, match=message):
        rs.TrainingConfig(**{option: 1})
