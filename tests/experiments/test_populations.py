"""The experiment `populations`: jobs as published, claims on made-up runs, and the table of networks and ranks."""

import sys
from pathlib import Path

import numpy as np
import pytest

import rankscope as rs
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.claims import check_claims
from rankscope.experiments.populations import CDM, DM, accuracy_table, deviations, full_job

sys.path.append(str(Path(__file__).parents[1] / "figures"))
from made_up_population_run import make_population_run

EXPERIMENT = EXPERIMENTS["populations"]


def test_jobs_are_the_published_ones():
    jobs = EXPERIMENT.jobs("paper")
    assert len({job.digest for job in jobs}) == len({job.seed for job in jobs}) == len(jobs)
    assert len({job.task["trials_seed"] for job in jobs}) == len(jobs)
    assert all(job.network["noise_std"] ** 2 * 0.2 == pytest.approx(0.05**2) for job in jobs)
    full = [job for job in jobs if job.labels["trained_rank"] == "full"]
    assert {job.network["gain"] for job in full} == {0.1, 1.0}
    options = {job.task_name: job.training for job in full}
    assert {name: one.epochs for name, one in options.items()} == {
        "perceptual_decision": 30,
        "parametric_working_memory": 30,
        "multisensory_decision": 40,
        "context_dependent_decision": 60,
        "delayed_match": 100,
    }
    assert (options[CDM].clip_norm, options[CDM].stop_loss, options[DM].clip_norm) == (0.5, 0.025, None)
    assert {len(job.network["trained"]) for job in full if job.task_name in (DM, "parametric_working_memory")} == {1}
    assert EXPERIMENT.axes == {"task", "gain", "sample", "trained_rank"}


def test_a_network_is_trained_and_measured():
    job = full_job(DM, 1.0, 0, hidden_size=16)
    task = job.task | {"trials": 40, "validation_trials": 10}
    small = rs.Job(
        task=task,
        network=job.network,
        training=job.training.model_dump() | {"epochs": 8, "batch_size": 10, "learning_rate": 0.02},
        measurements=("evaluation", "trial_accuracy"),
        labels=job.labels,
    )
    found = small.run().measurements
    assert found["accuracy_of_rank"].sel(accuracy_rank=16).item() == found["trial_accuracy"].item()
    assert found["trial_accuracy"].item() > 0.9
    assert found["accuracy"].item() > 0.8
    assert (found["accuracy_of_rank"][-8:] > found["accuracy_of_rank"][0] + 0.2).all()
    with pytest.raises(rs.InputError, match="the task has no trial_accuracy"):
        rs.Job(task="flipflop", measurements=("trial_accuracy",)).check()


@pytest.mark.parametrize(
    ("options", "failing"),
    [
        ({}, set()),
        ({"shift": -0.02}, {"perceptual_decision: as published", "context_dependent_decision: as published"}),
        ({"one": 0.95, "two": 0.95}, {"CDM: one Gaussian is not enough", "CDM: two populations at rank one"}),
    ],
)
def test_each_claim_fails_where_it_should_and_only_there(options, failing):
    rows = check_claims(EXPERIMENT.claims, make_population_run(**options))
    assert {row["claim"] for row in rows if row["verdict"] == "fails"} == failing
    assert {row["verdict"] for row in rows} <= {"holds", "fails"}
    bare = make_population_run().drop_vars(["resampled_accuracy", "resampled_accuracy_larger"])
    without = check_claims(EXPERIMENT.claims, bare.isel(task=[1]))
    assert {row["verdict"] for row in without} == {"not in this run", "holds"}


def test_deviations_are_those_of_means():
    run = make_population_run()
    accuracies = run["accuracy_of_rank"].sel(task=CDM, gain=1.0, trained_rank="full")
    accuracies.loc[{"accuracy_rank": 2}] = [0.60, 0.62, 0.64, 0.66]
    (_, second, *_) = deviations(run, CDM, 1.0, "b")
    error = np.sqrt(np.var([0.60, 0.62, 0.64, 0.66], ddof=1) / 4 + (0.04 / 10) ** 2 + 0.0005**2)
    assert second == pytest.approx((0.63 - 0.648) / error)
    # Networks that did not learn the delayed match are left out.
    assert deviations(run.isel(sample=[0]), CDM, 1.0, "b") == []


def test_the_table_has_a_row_for_each_network_and_rank():
    run = make_population_run()
    table = accuracy_table(run)
    assert set(table.columns[:5]) == {"task", "rho", "sample", "trained_rank", "rank"}
    assert table.columns[5] == "accuracy"
    assert len(table) == (5 * 2 * 26 + 2 * (2 + 3 + 4)) * 4
    one = table[(table.task == CDM) & (table.rho == 0.1) & (table["sample"] == 2) & (table.trained_rank == "full")]
    assert one["rank"].tolist() == list(range(26))
    at = {"task": CDM, "gain": 0.1, "sample": 2, "trained_rank": "full"}
    np.testing.assert_allclose(one["accuracy"], run["accuracy_of_rank"].sel(at))
    np.testing.assert_allclose(
        one["resampled_accuracy"][1:11], run["resampled_accuracy"].sel({**at, "populations": 1}), equal_nan=True
    )
    assert np.isnan(one["resampled_accuracy_2_populations"].iloc[12])
    assert len(accuracy_table(run.sel(task=DM, gain=0.1, trained_rank="full").isel(sample=[0]))) == 26
