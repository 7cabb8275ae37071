"""Recorded spectra and weights: the schedule, the state before the update, and the Dataset."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import FlipFlop
from rankscope.training.recorder import MatrixRecords, Recorder, record_schedule

TASK = FlipFlop(duration=20)


def trained(epochs=12, **options):
    network = rs.RateRNN.initialize(TASK, hidden_size=16, gain=0.9, rng=0)
    before = network.snapshot()
    return before, network, rs.train(network, TASK, epochs, rng=0, batch_size=4, **options)


@pytest.mark.parametrize(
    ("epochs", "wanted", "expected"),
    [
        (1400, None, 200),
        (6000, None, 200),
        (100, None, 15),
        (8, None, 2),
        (1, None, 1),
        (10, 3, {0, 4, 9}),
        (10, np.int64(2), {0, 9}),
        (10, 1, {0}),
        (10, 0, set()),
        (3, 50, {0, 1, 2}),
        (10, [7, 2, 2], {2, 7}),
        (10, range(0, 10, 5), {0, 5}),
        (10, np.array([9]), {9}),
        (10, [], set()),
    ],
)
def test_schedule(epochs, wanted, expected):
    schedule = record_schedule(epochs, rs.TrainingConfig(recorded_epochs=wanted).recorded_epochs)
    assert (len(schedule) if isinstance(expected, int) else set(schedule)) == expected
    assert all(type(epoch) is int for epoch in schedule)


@given(st.integers(1, 3000), st.integers(1, 300))
def test_the_schedule_is_evenly_spaced(epochs, count):
    schedule = sorted(record_schedule(epochs, count))
    assert len(schedule) == min(count, epochs)
    assert schedule[0] == 0
    if len(schedule) > 1:
        assert schedule[-1] == epochs - 1
        gaps = np.diff(schedule)
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (-1, "recorded_epochs must be a whole number >= 0, got -1"),
        (2.5, "recorded_epochs must be a whole number >= 0, got 2.5"),
        (True, "recorded_epochs must be a whole number >= 0, got True"),
        ("3", "recorded_epochs must be a whole number >= 0, got '3'"),
        ([0, 10], "recorded_epochs must lie within 0 and 9, got 10"),
        ([-1], "recorded_epochs must be a whole number >= 0, got -1"),
        ([1.0], "recorded_epochs must be a whole number >= 0, got 1.0"),
    ],
)
def test_schedules_that_are_refused(wanted, message):
    with pytest.raises(InputError) as caught:
        record_schedule(10, rs.TrainingConfig(recorded_epochs=wanted).recorded_epochs)
    assert str(caught.value) == message


def test_records_are_of_the_weights_before_the_update():
    before, after, history = trained(recorded_epochs=[0, 1, 5, 11], record_weights=True, singular_values=7)
    np.testing.assert_array_equal(history.recorded_epochs, [0, 1, 5, 11])
    assert history.singular_values.shape == (4, 7)
    assert history.weights.shape == (4, 16, 16)
    np.testing.assert_array_equal(history.singular_values[0], 0)
    np.testing.assert_array_equal(history.weights[0], before.recurrent_weights.detach())
    # the record of epoch e is where a training of e epochs ends
    for e, weights in zip([1, 5, 11], history.weights[1:], strict=True):
        np.testing.assert_array_equal(weights, trained(e)[1].recurrent_weights.detach())
    for weights, values in zip(history.weights, history.singular_values, strict=True):
        exact = np.linalg.svdvals(weights.astype(float) - before.recurrent_weights.detach().double().numpy())
        np.testing.assert_allclose(values, exact[:7], rtol=1e-4, atol=1e-7)
    assert not np.array_equal(history.weights[-1], after.recurrent_weights.detach())


def test_eigenvalues_of_the_weights_before_the_update():
    _, _, history = trained(recorded_epochs=[0, 1, 11], record_weights=True, eigenvalues=4)
    assert history.eigenvalues.shape == (3, 4)
    assert history.eigenvalues.dtype == np.complex128
    for weights, found in zip(history.weights, history.eigenvalues, strict=True):
        exact = np.linalg.eigvals(weights.astype(float))
        np.testing.assert_allclose(found.real, np.sort(exact.real)[:-5:-1], atol=1e-12)
        assert all(np.abs(exact - value).min() < 1e-12 for value in found)
    assert trained(3)[2].eigenvalues is None


def test_weights_that_are_not_finite_have_no_spectrum():
    network = torch.nn.Linear(3, 3)
    recorder = Recorder({"weight": MatrixRecords(torch.zeros(3, 3))}, frozenset({0}), 2, False, eigenvalue_count=2)
    torch.nn.init.constant_(network.weight, torch.inf)
    recorder.record_matrices(0, network)
    history = recorder.finish("diverged", learning_rate=0.1, seconds=1.0)
    assert np.isnan(history.singular_values).all()
    assert np.isnan(history.eigenvalues).all()


def test_shapes_types_and_derived_numbers():
    history = trained(3)[2]
    assert history.losses.dtype == history.gradient_norms.dtype == history.singular_values.dtype == np.float64
    assert history.losses.shape == history.gradient_norms.shape == (history.epochs,) == (3,)
    assert history.singular_values.shape == (1, 16)
    assert history.weights is history.eigenvalues is history.diverged_epoch is None
    assert history.learning_rate == 0.05 / 16
    assert history.seconds > 0
    empty = trained(3, recorded_epochs=0)[2]
    assert empty.singular_values.shape == (0, 16)
    assert empty.recorded_epochs.shape == (0,)
    assert trained(3, recorded_epochs=2, eigenvalues=40)[2].eigenvalues.shape == (2, 16)


def test_dataset():
    options = {"record_weights": True, "singular_values": 5, "eigenvalues": 3, "learning_rate": 0.002}
    _, _, history = trained(10, recorded_epochs=[0, 4, 9], **options)
    data = history.to_dataset()
    assert dict(data.sizes) == {
        "epoch": 10,
        "record": 3,
        "leading_index": 5,
        "leading_eigenvalue": 3,
        "postsynaptic": 16,
        "presynaptic": 16,
    }
    np.testing.assert_array_equal(data.loss, history.losses)
    np.testing.assert_array_equal(data.gradient_norm.sel(epoch=3), history.gradient_norms[3])
    np.testing.assert_array_equal(
        data.singular_value_history.sel(leading_index=1).isel(record=1), history.singular_values[1, 0]
    )
    for part in ("real", "imag"):
        of_first = data[f"eigenvalue_{part}_history"].sel(leading_eigenvalue=1)
        np.testing.assert_array_equal(of_first, getattr(history.eigenvalues, part)[:, 0])
    np.testing.assert_array_equal(data.recurrent_weights_history.isel(record=2), history.weights[2])
    assert data["learning_rate"].item() == history.learning_rate == 0.002
    assert data.attrs == {"status": "finished", "training_seconds": history.seconds}
    assert all(variable.attrs["long_name"] for variable in data.data_vars.values())
    assert not {"recurrent_weights_history", "eigenvalue_real_history"} & set(trained(3)[2].to_dataset())
