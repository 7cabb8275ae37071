"""The study of NeuroGym: what is measured on a network, its run as a sweep, its claims, and life without NeuroGym."""

import copy
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import rankscope as rs
from rankscope.cli import main
from rankscope.experiments import EXPERIMENTS, NeuroGymCell, run, run_cells, seconds_for
from rankscope.experiments.cell import EVALUATION_TRIALS
from rankscope.experiments.claims import check_claims
from rankscope.experiments.neurogym_cell import STEPS, against_what_was_reached, scores
from rankscope.experiments.user_sweep import SweepFile, cells_of
from rankscope.tasks import NeuroGym, Trials
from rankscope.tasks.neurogym import installed

needs_neurogym = pytest.mark.skipif(
    not installed(), reason="NeuroGym is not installed: pip install 'rankscope[neurogym]'"
)
CELL = NeuroGymCell("GoNogo-v0", hidden_size=16, epochs=120, pool=64, training={"learning_rate": 0.01})


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def measured():
    return CELL.measure(quiet)


def without_neurogym(monkeypatch):
    for name in ("neurogym", "neurogym.envs.registration"):
        monkeypatch.setitem(sys.modules, name, None)


@needs_neurogym
def test_a_task_that_is_learned(measured):
    assert measured["task"].item() == "GoNogo"
    assert measured["score"].item() == 1.0
    assert measured["chance"].item() == 0.5
    assert measured["initial_score"].item() <= 0.75
    assert measured["evaluation_loss"].item() < 0.05 * measured["initial_loss"].item()
    assert 1 <= measured["score_rank"].item() <= 6
    assert 0 < measured["fall_epoch"].item() < 120
    assert measured["obstacle"].item() == ""
    assert measured["steps"].item() == 30
    assert measured["truncation_score"].sel(rank=16) == measured["score"]
    for name, variable in measured.data_vars.items():
        assert variable.attrs.get("long_name") or name == "status", name


@needs_neurogym
def test_a_cell_is_repeated_exactly_and_its_seed_matters(measured):
    # Attributes hold the date and the seconds.
    xr.testing.assert_identical(CELL.measure(quiet).drop_attrs(), measured.drop_attrs())
    assert not replace(CELL, seed=1, epochs=2).measure(quiet).equals(replace(CELL, epochs=2).measure(quiet))


@needs_neurogym
def test_what_is_measured_is_measured_on_fresh_trials(monkeypatch):
    drawn = set()
    original = NeuroGym._draw

    def spy(task, batch_size, rng):
        drawn.add((batch_size, task.pool))
        return original(task, batch_size, rng)

    monkeypatch.setattr(NeuroGym, "_draw", spy)
    replace(CELL, epochs=2).measure(quiet)
    assert {pool for size, pool in drawn if size == EVALUATION_TRIALS} == {0}
    assert {pool for size, pool in drawn if size == 32} == {64}


@needs_neurogym
def test_an_environment_that_is_no_task_is_a_result_with_the_reason():
    result = NeuroGymCell("Bandit-v0", hidden_size=8, epochs=2).measure(quiet)
    assert result["status"].item() == "unsuitable"
    assert "ground truth" in result["obstacle"].item()


@needs_neurogym
def test_a_run_goes_on_is_opened_checked_drawn_and_exported(tmp_path, measured):
    folder = tmp_path / "run"
    cells = [CELL, replace(CELL, environment="Bandit-v0")]
    with ThreadPoolExecutor(1) as executor:
        assert len(run_cells(cells, folder, executor=executor).finished) == 2
        assert len(run_cells(cells, folder, executor=executor).already_done) == 2
    together = rs.open_run(folder)
    np.testing.assert_array_equal(together["truncation_score"].sel(task="GoNogo"), measured["truncation_score"])
    for arguments, status in (
        (["check", "neurogym", "--from", folder], 1),
        (["figure", "neurogym", "--from", folder, "--out", tmp_path / "f.png"], 0),
        (["export", folder, "--out", tmp_path / "f.csv", "--format", "csv"], 0),
    ):
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, arguments)))
        assert stop.value.code == status, arguments
    assert (tmp_path / "f.csv").read_text().count("\n") == 2


@needs_neurogym
def test_a_sweep_of_ones_own_over_environments():
    names = ["GoNogo-v0", "ReachingDelayResponse-v0"]
    sweep = SweepFile(task="neurogym", grid={"environment": names}, hidden_size=8, epochs=2)
    cells = cells_of(sweep)
    assert {cell.labels["environment"] for cell in cells} == set(names)
    found = run(min(cells, key=lambda cell: cell.task.steps)).measurements
    assert found["environment"].item() == "GoNogo-v0"
    # The loss is the task's own.
    assert found["initial_loss"].item() == pytest.approx(np.log(2), rel=0.3)


def test_without_neurogym_it_is_listed_but_not_run(tmp_path, monkeypatch, capsys):
    without_neurogym(monkeypatch)
    cells = EXPERIMENTS["neurogym"].cells("paper")
    assert {cell.environment for cell in cells} == set(STEPS)
    assert len({cell.digest for cell in cells}) == len(cells) == 81
    assert len({cell.seed for cell in cells}) == 81
    assert [cell.work for cell in cells] == sorted((cell.work for cell in cells), reverse=True)
    assert 0 < seconds_for(EXPERIMENTS["neurogym"].cells("quick"), 2) < seconds_for(cells, 2)
    with pytest.raises(SystemExit) as stop:
        main(["run", "neurogym", "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'rankscope[neurogym]'" in error
    assert not (tmp_path / "run").exists()


def test_the_preset_names_every_setting():
    for preset, size, gains, epochs in (("quick", 64, {0.0, 0.9}, 500), ("paper", 256, {0.0, 0.9, 1.5}, 3000)):
        cells = EXPERIMENTS["neurogym"].cells(preset)
        assert {cell.hidden_size for cell in cells} == {size}
        assert {cell.gain for cell in cells} == gains
        assert {cell.epochs for cell in cells} == {epochs}
        assert json.loads(json.dumps(cells[0].describe())) == cells[0].describe()
    assert replace(cells[0], pool=0).digest != cells[0].digest


def made_up_network(wanted, said):
    """A network of one unit and one step that says `said` to every input, and what is wanted of it."""
    inputs = torch.as_tensor(said, dtype=torch.float32)[:, None]
    network = rs.RateRNN(torch.eye(inputs.shape[2]), torch.zeros(2, 2), torch.eye(2), dt=1.0, nonlinearity="identity")
    targets = torch.as_tensor(wanted, dtype=torch.float32)[:, None]
    return network, Trials(inputs, targets, torch.ones_like(targets))


def test_the_score_counts_every_class_the_same():
    # Three of class 0, all right; one of class 1, wrong.
    network, trials = made_up_network([[1, 0], [1, 0], [1, 0], [0, 1]], [[2, 1]] * 4)
    found = scores(copy.deepcopy(network), network, trials, "cross_entropy")
    assert found["score"].item() == found["chance"].item() == 0.5
    assert np.isnan(found["score_rank"].item())
    network, trials = made_up_network([[1, 0], [1, 0], [1, 0], [0, 1]], [[2, 1]] * 3 + [[1, 2]])
    found = scores(copy.deepcopy(network), network, trials, "cross_entropy")
    assert found["score"].item() == 1
    assert found["score_rank"].item() == 0


def test_the_score_of_continuous_actions_is_the_explained_variance():
    wanted = np.random.default_rng(0).normal(size=(50, 2))
    network, trials = made_up_network(wanted, wanted)
    assert scores(copy.deepcopy(network), network, trials, "squared")["score"].item() == pytest.approx(1)
    mean, trials = made_up_network(wanted, np.tile(wanted.mean(0), (50, 1)))
    assert scores(copy.deepcopy(mean), mean, trials, "squared")["score"].item() == pytest.approx(0, abs=1e-6)
    half, trials = made_up_network(wanted, 0.5 * (wanted + wanted.mean(0)))
    assert scores(copy.deepcopy(half), half, trials, "squared")["score"].item() == pytest.approx(0.75)


def test_convergence_and_rank_are_measured_against_what_was_reached():
    losses = np.concatenate([np.full(100, 1.0), np.linspace(1, 0.5, 101)[1:], np.full(100, 0.5)])
    curve = 0.5 + np.array([2.0, 1.0, 0.09, 0.0])
    one = xr.Dataset({"loss": ("epoch", losses), "truncation_loss": ("rank", curve), "evaluation_loss": 0.5})
    found = against_what_was_reached(one)
    # 95 % of the fall is at epoch 195; the average over 20 epochs from there on lags by about ten.
    assert 180 <= found["fall_epoch"].item() <= 195
    assert found["excess_rank"].item() == 2
    rising = against_what_was_reached(one.assign(loss=one["loss"][::-1], truncation_loss=0 * one["truncation_loss"]))
    assert np.isnan(rising["fall_epoch"].item())
    assert np.isnan(rising["excess_rank"].item())


def made_up(score=0.9, unknowable=0.5, rank=4.0, epochs=(300.0, 100.0), norm=(3.0, 2.0), status="finished"):
    """A run of ten environments at two gains, all as claimed unless told otherwise."""
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
        ({"status": "unsuitable"}, "all are tasks"),
    ],
)
def test_each_claim_fails_where_it_should_and_only_there(options, failing):
    one = made_up(**options)
    for data in (one, one.expand_dims(sample=[0]), xr.concat([one, one], "sample")):
        for row in check_claims(EXPERIMENTS["neurogym"].claims, data):
            assert row["verdict"] == ("fails" if row["claim"] == failing else "holds"), row


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
