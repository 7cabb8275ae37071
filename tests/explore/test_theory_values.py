"""Values of the theory page: curves, the table of learning rates, networks."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from explore_cases import run_async

import rankscope as rs
from rankscope.explore import networks as networks_module
from rankscope.explore.bounds import GAIN, TARGET
from rankscope.explore.curves import curves, rounded
from rankscope.explore.networks import MAX_WORK, CancelledRequestError, Networks, predicted, trained
from rankscope.explore.phases import GAINS, TARGETS, compute, phases


def silent(*_):
    pass


def test_curves_are_those_of_the_theories():
    found = curves(0.6, 2.0)
    tau = np.array(found["x"]) * (1 - 0.6**2) ** 2
    exact = rs.theory.InfiniteWidth(0.6, 2.0).solve(tau)
    paper = rs.theory.ThirdOrder(0.6, 2.0).solve(tau)
    for name, theory in (("exact", exact), ("third order", paper)):
        drawn = found["theories"][name]
        for quantity in ("change_norm", "outlier", "shuffled_loss"):
            values = [np.nan if value is None else value for value in drawn[quantity]]
            np.testing.assert_allclose(values, theory[quantity], rtol=2e-3, atol=1e-6)
        for index in (1, 2):
            np.testing.assert_allclose(
                drawn[f"s{index}"], theory["singular_value"].sel(singular_index=index), rtol=2e-3, atol=1e-6
            )
        np.testing.assert_allclose(drawn["loss"], theory["loss"] / 2, rtol=1e-2, atol=1e-6)
    # End of learning in the exact solution (docs/guides/theory.md, "Solution to convergence").
    assert found["theories"]["exact"]["change_norm"][-1] == pytest.approx(0.4293, abs=1e-4)
    assert found["x"][-1] == pytest.approx(2 * found["convergence"]["exact"], rel=1e-4)
    at_convergence = np.interp(found["convergence"]["exact"], found["x"], found["theories"]["exact"]["loss"])
    assert at_convergence == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize(("gain", "target"), [(0.0, 0.1), (0.0, 8.0), (0.95, 0.1), (0.95, 8.0)])
def test_every_corner_has_curves_that_are_json(gain, target):
    found = json.loads(json.dumps(curves(gain, target), allow_nan=False))
    assert found["theories"]["exact"]["loss"][0] == 1
    assert found["theories"]["exact"]["loss"][-1] < 0.05
    assert len({len(values) for one in found["theories"].values() for values in one.values()} | {len(found["x"])}) == 1


def test_the_kept_table_is_what_is_computed():
    table = phases()
    assert (table["gain"], table["target"]) == (GAINS, TARGETS)
    assert (table["gain"][0], table["gain"][-1]) == (GAIN.minimum, GAIN.maximum)
    assert (table["target"][0], table["target"][-1]) == (TARGET.minimum, TARGET.maximum)
    i, j = 12, 13
    again = compute([GAINS[i]], [TARGETS[j]])
    for name in ("settles", "diverges"):
        assert table[name][i][j] == pytest.approx(again[name][0][0], abs=2e-3)
        assert np.shape(table[name]) == (len(GAINS), len(TARGETS))
    assert (np.array(table["diverges"]) >= np.array(table["settles"])).all()


def test_a_training_agrees_with_its_prediction():
    before, after = (work(0.5, 1.0, 64, 1, silent) for work in (predicted, trained))
    assert (before["kind"], after["kind"], before["sample"]) == ("predicted", "trained", 1)
    loss = np.interp(after["x"], before["x"], before["loss"])
    # Both are of the very same network; in the mean over networks they would differ by much more.
    np.testing.assert_allclose(after["loss"], loss, atol=0.03)
    np.testing.assert_allclose(
        after["change_norm"], np.interp(after["x"], before["x"], before["change_norm"]), atol=0.01
    )
    assert after["convergence"] == pytest.approx(np.interp(-0.05, -np.array(before["loss"]), before["x"]), rel=0.05)
    # measured at the end alone
    assert [value is None for value in after["shuffled_loss"]] == [True] * (len(after["x"]) - 1) + [False]


def test_long_trainings_are_skipped():
    found = trained(0.8, 4.0, 128, 0, silent)
    assert found["kind"] == "skipped"
    assert "steps" in found["reason"]
    assert MAX_WORK < 1e12
    # The other networks of this gain may have a resting state, this one has not.
    assert "stable fixed point" in predicted(0.95, 1.0, 64, 0, silent)["reason"]


def test_networks_are_yielded_one_by_one_and_cached(monkeypatch):
    monkeypatch.setattr(networks_module, "NETWORKS", 1)
    networks = Networks()
    # A thread instead of the process, which takes seconds to start.
    networks._executor = ThreadPoolExecutor(1)
    monkeypatch.setattr(networks_module, "_cancelled", networks._cancelled)

    async def ask():
        away = networks.trained(0.8, 1.0, 256)
        first = await anext(away)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(away), 0.05)  # its training takes seconds
        told = networks._cancelled[1]
        found = [values async for values in networks.trained(0.3, 0.5, 64)]
        remembered = [values async for values in networks.trained(0.3, 0.5, 64)]
        return first, told, found, remembered

    first, told, found, remembered = run_async(ask())
    networks._executor.shutdown()
    assert first["kind"] == "predicted"
    assert told == 1  # the cancellation flag
    assert [values["kind"] for values in found] == ["predicted", "trained", "done"]
    assert all(a is b for a, b in zip(found[:-1], remembered[:-1], strict=True))


def test_a_cancelled_request_stops_at_the_next_epoch(monkeypatch):
    cancelled = [0] * networks_module.SLOTS
    monkeypatch.setattr(networks_module, "_cancelled", cancelled)
    epochs = []

    def work(report):
        for epoch in range(10):
            epochs.append(epoch)
            if epoch == 3:
                cancelled[7] = 7
            report(epoch, 10, 0.0)

    with pytest.raises(CancelledRequestError):
        networks_module._unless_cancelled(work, 7)
    assert epochs == [0, 1, 2, 3]
    with pytest.raises(CancelledRequestError):
        networks_module._unless_cancelled(work, 7)  # not even begun
    assert len(epochs) == 4
    networks_module._unless_cancelled(work, 7 + networks_module.SLOTS)  # another request in the same place
    assert len(epochs) == 14


@pytest.mark.parametrize(("value", "expected"), [(np.nan, None), (-np.inf, None), (1 / 3, 0.333333), (0.0, 0.0)])
def test_numbers_for_json(value, expected):
    assert rounded(value) == expected
