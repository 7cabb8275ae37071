"""The named experiments: their cells are the paper's, their claims judge rightly, whatever a run contains."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS, seconds_for
from rankscope.experiments.base import work
from rankscope.experiments.claims import agreement, agreement_claim, check_claims, values


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
def test_the_cells_are_the_papers(name, preset, count):
    cells = EXPERIMENTS[name].cells(preset)
    assert len(cells) == count
    assert len({cell.digest for cell in cells}) == len({cell.seed for cell in cells}) == count
    assert {(cell.task.name, cell.epochs) for cell in cells} == {("flipflop", 1000), ("mante", 2000), ("romo", 6000)}
    costs = [cell.epochs * cell.task.steps * cell.hidden_size**2 for cell in cells]
    assert costs == sorted(costs, reverse=True)


def test_the_gains_of_the_paper():
    cells = EXPERIMENTS["gain"].cells("paper")
    last = {task: max(cell.gain for cell in cells if cell.task.name == task) for task in ("flipflop", "mante", "romo")}
    assert last == {"flipflop": 2.1, "mante": 2.7, "romo": 3.0}
    assert sorted({cell.gain for cell in cells if cell.task.name == "flipflop"}) == [
        0,
        0.3,
        0.6,
        0.9,
        1.2,
        1.5,
        1.8,
        2.1,
    ]


def test_seeds_do_not_depend_on_the_preset_or_the_order():
    small = {(c.task.name, c.gain, c.hidden_size, c.sample): c.seed for c in EXPERIMENTS["tasks"].cells("paper")}
    large = {(c.task.name, c.gain, c.hidden_size, c.sample): c.seed for c in EXPERIMENTS["gain"].cells("paper")}
    assert all(large[key] == seed for key, seed in small.items())


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError, match="preset must be one of 'quick', 'paper', got 'papper'"):
        EXPERIMENTS["gain"].cells("papper")


def test_the_cost_is_estimated():
    cells = EXPERIMENTS["tasks"].cells("quick")
    alone, together = seconds_for(cells, 1), seconds_for(cells, 2)
    assert 0 < together < alone


def test_the_cost_of_one_trial_is_not_that_of_a_batch():
    nonlinear, linear = (EXPERIMENTS[name].cells("paper")[0] for name in ("size", "linear"))
    assert nonlinear.hidden_size == linear.hidden_size == 1024
    each = {cell.task.name: work(cell) / (cell.epochs * cell.task.steps) for cell in (nonlinear, linear)}
    assert each[linear.task.name] < each[nonlinear.task.name] / 8
    # A look at a thousand-unit network costs about a third of an epoch, and the eigenvalues of W those of many.
    bare = replace(linear, training=linear.training | {"recorded_epochs": 0}, measurements=())
    looks = work(replace(linear, measurements=())) / work(bare)
    assert 1.2 < looks < 1.5
    assert work(replace(linear, training=linear.training | {"eigenvalues": 1})) > 10 * work(bare)


def made_up(convergence, norm, shuffled, rank):
    """A run of three tasks at three gains with two samples, alike in everything given as a function of the gain."""
    gains, tasks = [0.0, 0.9, 1.8], ["flipflop", "mante", "romo"]
    grid = np.broadcast_to(np.array(gains)[None, :, None], (3, 3, 2))
    of = {"convergence_epoch": convergence, "change_norm": norm, "shuffled_loss": shuffled, "functional_rank": rank}
    variables = {name: (("task", "gain", "sample"), np.vectorize(f, otypes=[float])(grid)) for name, f in of.items()}
    return xr.Dataset(variables, {"task": tasks, "gain": gains, "sample": [0, 1], "hidden_size": 256})


AS_CLAIMED = {
    "convergence": lambda g: {0.0: 100, 0.9: 40, 1.8: 60}[g],
    "norm": lambda g: 2 - g * 0.8,
    "shuffled": lambda g: float(g > 0),
    "rank": lambda g: 5,
}


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, None),
        ({"convergence": lambda g: 100}, "fastest in between"),
        ({"norm": lambda g: 2}, "change shrinks"),
        ({"shuffled": lambda g: 0.5}, "tied to its W0"),
        ({"rank": lambda g: 30}, "few directions"),
    ],
)
def test_each_claim_of_gain_fails_where_it_should_and_only_there(changed, failing):
    rows = check_claims(EXPERIMENTS["gain"].claims, made_up(**{**AS_CLAIMED, **changed}))
    for row in rows:
        expected = "fails" if failing is not None and failing in row["claim"] else "holds"
        assert row["verdict"] == expected, row


def test_a_network_that_never_converged_is_not_counted_as_fast():
    never_at_zero = made_up(**{**AS_CLAIMED, "convergence": lambda g: np.nan if g == 0 else 40})
    row = check_claims(EXPERIMENTS["gain"].claims, never_at_zero)[0]
    assert row["verdict"] == "holds"
    assert row["measured"].startswith("never at g = 0")


def test_claims_about_what_is_not_there_have_no_verdict():
    only_zero = made_up(**AS_CLAIMED).isel(gain=[0])
    verdicts = {row["claim"]: row["verdict"] for row in check_claims(EXPERIMENTS["gain"].claims, only_zero)}
    assert verdicts["flipflop: change shrinks"] == "not in this run"
    assert verdicts["flipflop: few directions"] == "holds"


def test_values_finds_its_place_in_any_grid():
    data = made_up(**AS_CLAIMED)
    assert values(data, "convergence_epoch", task="mante", gain=0.9).tolist() == [40, 40]
    assert values(data.isel(gain=1), "convergence_epoch", task="mante", gain=0.9).tolist() == [40, 40]
    assert values(data, "convergence_epoch", task="mante", gain=0.3).size == 0
    assert values(data.isel(gain=1), "convergence_epoch", task="mante", gain=0.0).size == 0


def test_agreement_with_a_reference(tmp_path):
    data = made_up(**AS_CLAIMED).isel(sample=[0, 1, 0, 1])
    data = data.assign_coords(sample=range(4))
    data["change_norm"] = data["change_norm"] + xr.DataArray([0.0, 0.1, 0.2, 0.3], dims="sample")

    def reference(shift):
        rows = [
            {
                "task": "mante",
                "gain": 0.9,
                "convergence_epoch": 40,
                "change_norm": 2 - 0.72 + 0.1 * sample + shift,
                "functional_rank": 5,
                "shuffled_loss_relative": 1.0,
            }
            for sample in range(4)
        ]
        path = tmp_path / "reference.json"
        path.write_text(json.dumps(rows))
        return path

    finding = agreement(data, reference(0.0))
    assert finding.holds
    assert finding.measured == "4 of 4 within 2 standard errors"
    finding = agreement(data, reference(1.0))
    assert not finding.holds
    assert "mante g=0.9 change_norm" in finding.measured
    assert agreement_claim(reference(0.0)).check(data.assign_coords(hidden_size=64)).holds is None
    (tmp_path / "reference.json").write_text("{")
    with pytest.raises(InputError, match="must be the reference results in JSON"):
        agreement(data, tmp_path / "reference.json")
