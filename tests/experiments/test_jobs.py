"""The jobs of the experiments are the paper's."""

import pytest

import rankscope as rs
from rankscope.experiments import EXPERIMENTS


def grid(name, preset="paper"):
    """Return (task, gain, N, sample) -> job."""
    return {
        (
            job.labels.get("task", job.task["name"]),
            job.network["gain"],
            job.network["hidden_size"],
            job.labels["sample"],
        ): job
        for job in EXPERIMENTS[name].jobs(preset)
    }


@pytest.mark.parametrize(
    ("name", "preset", "count"),
    [
        ("gain", "paper", 145),
        ("tasks", "paper", 6),
        ("spectra", "paper", 9),
        ("size", "paper", 225),
        ("size", "shorter", 108),
    ],
)
def test_nonlinear_jobs(name, preset, count):
    jobs = grid(name, preset)
    assert len(jobs) == len({job.digest for job in jobs.values()}) == len({job.seed for job in jobs.values()}) == count
    assert {(task, job.training.epochs) for (task, *_), job in jobs.items()} == {
        ("flipflop", 1000),
        ("mante", 2000),
        ("romo", 6000),
    }
    assert {(job.training.batch_size, job.training.optimizer, job.training.learning_rate) for job in jobs.values()} == {
        (32, "adam", None)
    }


def test_gains():
    gains = {
        task: sorted({g for name, g, *_ in grid("gain") if name == task}) for task in ("flipflop", "mante", "romo")
    }
    assert gains["flipflop"] == [0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1]
    assert (gains["mante"][-1], gains["romo"][-1]) == (2.7, 3.0)


def test_seeds_do_not_depend_on_the_experiment():
    gain = grid("gain")
    assert all(gain[at].seed == job.seed for at, job in grid("tasks").items())


def test_rounding_moves_the_networks_of_gain():
    gain, jobs = grid("gain"), EXPERIMENTS["rounding"].jobs("paper")
    assert len({job.digest for job in jobs}) == len(jobs) == 7 * 5 * 4
    for job in jobs:
        repetition = job.labels["repetition"]
        assert job.seed == gain[job.task["name"], job.network["gain"], 256, job.labels["sample"]].seed
        assert job.network.get("perturbation", 0) == (1e-7 if repetition else 0)
        assert job.network.get("perturbation_rng", 0) == repetition


def test_linear_jobs():
    jobs = EXPERIMENTS["linear"].jobs("paper")
    assert len({job.digest for job in jobs}) == len({job.seed for job in jobs}) == 150
    for job in jobs:
        gain, target, training = job.network["gain"], job.task["target"], job.training
        assert job.labels["target"] == target
        rate = {0.5: 0.015, 1.0: 0.009, 2.0: 0.003}[target] * (1 - gain**2) ** 2
        assert training.learning_rate == pytest.approx(rate)
        assert (training.optimizer, training.batch_size, training.epochs) == ("sgd", 1, 200)
        assert (job.network["nonlinearity"], job.network["trained"]) == ("identity", ["recurrent"])
    assert sorted({job.network["gain"] for job in jobs}) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    task = jobs[0].make_task()
    assert (task.duration, task.dt) == (101.0, 0.5)


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_one_run_serves_three_experiments(preset):
    first, *others = ([job.digest for job in EXPERIMENTS[f"linear{x}"].jobs(preset)] for x in ("", "-gain", "-log"))
    assert others == [first, first]


def test_divergence_and_cosine_jobs():
    for job in EXPERIMENTS["divergence"].jobs("paper"):
        gain, target = job.network["gain"], job.task["target"]
        assert job.training.learning_rate == pytest.approx({2.0: 0.002, 4.0: 0.001}[target] * (1 - gain**2) ** 2)
        assert (gain in (0.6, 0.8), job.task["duration"], job.network["hidden_size"]) == (True, 201.0, 256)
    jobs = EXPERIMENTS["cosine"].jobs("paper")
    assert {(job.network["gain"], job.training.learning_rate) for job in jobs} == {(0.0, 0.2), (0.4, 0.15), (0.8, 0.05)}


def test_sentiment_jobs():
    papers, (quick,) = (EXPERIMENTS["sentiment"].jobs(preset) for preset in ("paper", "quick"))
    network = {"kind": "lstm", "hidden_size": 256, "num_layers": 2, "readout": "last", "dropout": 0.5}
    assert len({job.seed for job in papers}) == 3
    for job in papers:
        assert job.network == quick.network == network
        assert (job.training.epochs, job.training.batch_size) == (500, 64)
        assert job.training.learning_rate == pytest.approx(0.001 / 256)


def test_demo_jobs_differ_in_gain_alone():
    one, other = EXPERIMENTS["demo"].jobs("paper")
    assert one.seed == other.seed
    assert one.network | {"gain": 0.9} == other.network


def test_an_unknown_preset_is_refused():
    with pytest.raises(rs.InputError, match="preset must be one of 'quick', 'paper', got 'papper'"):
        EXPERIMENTS["gain"].jobs("papper")


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_jobs_survive_json(name):
    job = EXPERIMENTS[name].jobs("quick")[0]
    assert type(job).from_json(job.to_json()).digest == job.digest
