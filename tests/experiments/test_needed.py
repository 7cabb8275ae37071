"""The experiment `needed`: its jobs share W0 with the networks of `gain`, and its claims hold where they should."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.claims import check_claims
from rankscope.experiments.needed import needed_rank, needed_table, used_rank

sys.path.append(str(Path(__file__).parents[1] / "figures"))
from made_up_needed_run import make_needed_run

EXPERIMENT = EXPERIMENTS["needed"]


def test_networks_of_low_rank_begin_like_those_of_gain():
    jobs = EXPERIMENT.jobs("paper")
    full = [job for job in jobs if "trained_rank" not in job.labels]
    known = {job.digest for job in EXPERIMENTS["gain"].jobs("paper")}
    assert len(full) == 45
    assert {job.digest for job in full} <= known
    assert len(jobs) == len({job.digest for job in jobs}) == 45 * (1 + 5 * 3)
    assert EXPERIMENT.axes == {"task", "gain", "sample", "trained_rank", "start"}
    at = {"task": full[20].task, "gain": full[20].network["gain"], "sample": full[20].labels["sample"]}
    low = [
        job
        for job in jobs
        if job.labels.get("trained_rank") == "2"
        and (job.task, job.network["gain"], job.labels["sample"]) == tuple(at.values())
    ]
    networks = [job.initial_network() for job in (full[20], *low)]
    for network in networks[1:]:
        for one, other in zip(network.weights, networks[0].weights, strict=True):
            assert one is None if other is None else torch.equal(one, other)
    n = [network.parametrizations.recurrent_weights.original1 for network in networks[1:]]
    assert len({tensor.detach().numpy().tobytes() for tensor in n}) == 3
    assert {round(float(tensor.detach().std()) * 16, 1) for tensor in n} == {0.1}


def test_rank_one_is_trained():
    job = rs.Job(
        task={"name": "flipflop", "duration": 20},
        network={"hidden_size": 48, "gain": 0.9, "rank": 1, "rank_spread": [0.0, 0.1], "rank_rng": 3},
        training={
            "epochs": 120,
            "learning_rates": {"recurrent_weights": 0.02},
            "stop_below": 0.03,
            "learning_rate": 0.003,
        },
        measurements=("evaluation",),
        seed=1,
    )
    done = job.run()
    assert done.history.status == "stopped"
    assert rs.change(done.before, done.after).numerical_rank == 1


@pytest.mark.parametrize(
    ("options", "failing"),
    [
        ({}, set()),
        ({"needed": (1, 1, 1)}, {"connectivity helps"}),
        ({"needed": (6, 4, 4), "used": (2, 3, 3)}, {"needs fewer than it uses"}),
        ({"needed": (9, 9, 9)}, {"needs fewer than it uses", "connectivity helps"}),
    ],
)
def test_each_claim_fails_where_it_should_and_only_there(options, failing):
    run = make_needed_run(**options)
    rows = check_claims(EXPERIMENT.claims, run)
    missing = {"needs fewer than it uses"} if options.get("needed") == (9, 9, 9) else set()
    for row in rows:
        name = row["claim"].partition(": ")[2]
        expected = "not in this run" if name in missing else "fails" if name in failing else "holds"
        assert row["verdict"] == expected, row
    without = check_claims(EXPERIMENT.claims, run.sel(trained_rank="none", start="none"))
    assert {row["verdict"] for row in without} == {"not in this run"}


def test_ranks_and_the_table():
    run = make_needed_run()
    np.testing.assert_array_equal(needed_rank(run).transpose("gain", "task", "sample")[:, 0, 0], [3, 1, 1])
    np.testing.assert_array_equal(used_rank(run), run["functional_rank"].sel(trained_rank="none", start="none"))
    table = needed_table(run)
    assert len(table) == 3 * 3 * 3 * 5
    one = table[(table.task == "romo") & (table.gain == 0.0) & (table["sample"] == 1)]
    assert one["rank"].tolist() == [1, 2, 3, 4, 6]
    assert one["solved"].tolist() == [False, False, True, True, True]
    assert set(one["needed_rank"]) == {3}
