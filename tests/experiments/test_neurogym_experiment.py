"""The study of NeuroGym: its jobs, the measurement of a learned task, and its claims on made-up runs."""

import numpy as np
import pytest
import xarray as xr

import rankscope as rs
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.claims import check_claims
from rankscope.tasks.neurogym import installed

needs_neurogym = pytest.mark.skipif(
    not installed(), reason="NeuroGym is not installed: pip install 'rankscope[neurogym]'"
)


def test_jobs_are_listed_without_neurogym(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "neurogym", None)
    jobs = EXPERIMENTS["neurogym"].jobs("paper")
    assert len({job.digest for job in jobs}) == 3 * 27 * 3
    assert {job.training.epochs for job in jobs} == {3000}


@needs_neurogym
def test_a_task_that_is_learned():
    job = next(job for job in EXPERIMENTS["neurogym"].jobs("quick") if job.labels["task"] == "GoNogo")
    small = rs.Job(
        task=job.task | {"pool": 64},
        network={"hidden_size": 16, "gain": 0.9},
        training={"epochs": 120, "learning_rate": 0.01},
        measurements=job.measurements,
        labels=job.labels,
    )
    measured = small.run().measurements
    assert measured["task"].item() == "GoNogo"
    assert measured["score"].item() == 1.0
    assert measured["chance"].item() == 0.5
    assert measured["initial_score"].item() <= 0.75
    assert measured["evaluation_loss"].item() < 0.05 * measured["initial_loss"].item()
    assert 1 <= measured["score_rank"].item() <= 6
    assert 0 < measured["fall_epoch"].item() < 120
    assert measured["steps"].item() == 30
    assert measured["truncation_score"].sel(rank=16) == measured["score"]


def made_up(score=0.9, unknowable=0.5, rank=4.0, epochs=(300.0, 100.0), norm=(3.0, 2.0), status="finished"):
    """A run of ten environments at two gains, by default as claimed."""
    names = ["HierarchicalReasoning", *(f"Task{index}" for index in range(9))]
    shape = (len(names), 2)
    values = np.full(shape, score)
    values[0] = unknowable
    return xr.Dataset(
        {
            "score": (("task", "gain"), values),
            "chance": (("task", "gain"), np.full(shape, 0.5)),
            "score_rank": (("task", "gain"), np.full(shape, rank)),
            "fall_epoch": (("task", "gain"), np.tile(epochs, (len(names), 1))),
            "change_norm": (("task", "gain"), np.tile(norm, (len(names), 1))),
            "status": (("task", "gain"), np.full(shape, status, dtype=object)),
        },
        {"task": names, "gain": [0.0, 0.9], "hidden_size": 64},
    )


@pytest.mark.parametrize(
    ("options", "failing"),
    [
        ({}, None),
        ({"unknowable": 0.8}, "the unknowable is not"),
        ({"rank": 11.0}, "few directions"),
        ({"rank": np.nan}, "few directions"),
        ({"epochs": (100.0, 300.0)}, "faster with connectivity"),
        ({"norm": (2.0, 3.0)}, "smaller with connectivity"),
        ({"status": "diverged"}, "all are tasks"),
        ({"status": ""}, "all are tasks"),
    ],
)
def test_each_claim_fails_where_it_should_and_only_there(options, failing):
    one = made_up(**options)
    for data in (one, one.expand_dims(sample=[0]), xr.concat([one, one], "sample")):
        for row in check_claims(EXPERIMENTS["neurogym"].claims, data):
            assert row["verdict"] == ("fails" if row["claim"] == failing else "holds"), row


def test_the_share_with_few_directions_has_an_error_over_samples():
    one, other = made_up(), made_up()
    one["score_rank"][1, 0] = 20
    other["score_rank"][1:4] = 20
    row = check_claims(EXPERIMENTS["neurogym"].claims, xr.concat([one, one, other], "sample"))[3]
    assert row["verdict"] == "holds"
    assert row["measured"] == "46 of 54 networks, 85.2 ± 9.3 % over samples; median 4, largest 20"
    row = check_claims(EXPERIMENTS["neurogym"].claims, xr.concat([other, other, other], "sample"))[3]
    assert row["verdict"] == "fails"


def test_too_few_that_are_learned():
    data = made_up()
    for count, verdict in ((2, "holds"), (3, "fails")):
        data["score"][1 : 1 + count] = 0.7
        row = check_claims(EXPERIMENTS["neurogym"].claims, data)[1]
        assert (row["claim"], row["verdict"]) == ("most are learned", verdict)
        assert row["measured"].startswith(f"{9 - count} of 9; not Task0, Task1")


def test_claims_about_what_is_not_there_have_no_verdict():
    verdicts = {
        row["claim"]: row["verdict"]
        for row in check_claims(EXPERIMENTS["neurogym"].claims, made_up().isel(gain=0, task=slice(1, 3)))
    }
    assert verdicts["most are learned"] == verdicts["few directions"] == "holds"
    without = ("the unknowable is not", "faster with connectivity", "smaller with connectivity")
    assert {verdicts[name] for name in without} == {"not in this run"}
    other = xr.Dataset({"loss": ("epoch", [1.0])}, {"task": "romo"})
    assert {row["verdict"] for row in check_claims(EXPERIMENTS["neurogym"].claims, other)} == {"not in this run"}
    unlearned = check_claims(EXPERIMENTS["neurogym"].claims, made_up(score=0.5))
    assert {row["claim"]: row["verdict"] for row in unlearned}["few directions"] == "not in this run"
