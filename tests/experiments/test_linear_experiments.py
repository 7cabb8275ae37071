"""The linear experiments: cells as in the paper, networks that do what the theory says, claims that judge rightly."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import rankscope as rs
from rankscope.experiments import EXPERIMENTS, run
from rankscope.experiments.claims import check_claims, values
from rankscope.experiments.cosine import UNDAMPED
from rankscope.experiments.linear import RATES, linear_cells
from rankscope.experiments.linear_agreement import agreement, chance, places, predicted
from rankscope.sweep import glance
from rankscope.sweep.results import assemble
from rankscope.theory import SingleNetwork

EPOCHS = 200


def test_the_cells_are_the_papers():
    cells = EXPERIMENTS["linear"].cells("paper")
    assert len({cell.digest for cell in cells}) == len({cell.seed for cell in cells}) == len(cells) == 150
    assert {(c.hidden_size, c.epochs, c.task.duration, c.task.dt) for c in cells} == {(1024, 200, 101.0, 0.5)}
    assert sorted({c.gain for c in cells}) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert {c.task.target for c in cells} == {0.5, 1.0, 2.0}
    for cell in cells:
        assert cell.labels == {"target": cell.task.target}
        rate = {0.5: 0.015, 1.0: 0.009, 2.0: 0.003}[cell.task.target] * (1 - cell.gain**2) ** 2
        assert cell.training["learning_rate"] == pytest.approx(rate)
        assert (cell.training["optimizer"], cell.training["batch_size"]) == ("sgd", 1)
        assert cell.network == {"nonlinearity": "identity", "trained": ["recurrent"]}
    cells = EXPERIMENTS["divergence"].cells("paper")
    assert {(c.hidden_size, c.task.duration, c.gain, c.task.target) for c in cells} == {
        (256, 201.0, g, z) for g in (0.6, 0.8) for z in (2.0, 4.0)
    }
    for cell in cells:
        rate = {2.0: 0.002, 4.0: 0.001}[cell.task.target] * (1 - cell.gain**2) ** 2
        assert cell.training["learning_rate"] == pytest.approx(rate)
    cells = EXPERIMENTS["cosine"].cells("paper")
    assert {(c.gain, c.training["learning_rate"]) for c in cells} == {(0.0, 0.2), (0.4, 0.15), (0.8, 0.05)}
    assert {(c.hidden_size, c.epochs) for c in cells} == {(256, 1000)}


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_one_run_serves_three_experiments(preset):
    first, *others = ([c.digest for c in EXPERIMENTS[f"linear{part}"].cells(preset)] for part in ("", "-gain", "-log"))
    assert others == [first, first]


@pytest.mark.parametrize(("gain", "target"), [(0.3, 0.5), (0.6, 2.0)])
def test_a_network_does_what_the_theory_of_its_own_weights_says(gain, target):
    cell = linear_cells([gain], {target: RATES[target]}, samples=1, N=96)[0]
    outcome = run(cell)
    measured = outcome.measurements
    theory = SingleNetwork.of(outcome.before, target).descend(measured["learning_rate"].item(), EPOCHS + 1)
    before, last = theory.isel(tau=slice(EPOCHS)), theory.isel(tau=-1)
    # What is left is single precision.
    scale = measured["loss"].values[0]
    np.testing.assert_allclose(measured["loss"], before["loss"], atol=5e-6 * scale, rtol=0)
    for index in (1, 2, 3):
        ours = measured["singular_value_history"].sel(leading_index=index)
        np.testing.assert_allclose(ours, before["singular_value"].sel(singular_index=index), atol=2e-6, rtol=0)
    assert measured["convergence_epoch"] == rs.convergence_epoch(before["loss"])
    until = int(measured["convergence_epoch"])
    assert measured["average_gradient"].item() == pytest.approx(float(before["gradient_norm"][:until].mean()), rel=1e-5)
    assert measured["change_norm"].item() == pytest.approx(float(last["change_norm"]), rel=1e-5)
    if np.isfinite(last["outlier"]):
        assert measured["outlier"].item() == pytest.approx(float(last["outlier"]), rel=1e-5)


@pytest.fixture(scope="module")
def diverged():
    """The network of the divergence experiment that fails first."""
    cells = [c for c in EXPERIMENTS["divergence"].cells("paper") if (c.gain, c.task.target, c.sample) == (0.8, 4.0, 2)]
    # 60 epochs instead of 200: it does not come so far.
    return run(replace(cells[0], epochs=60, training=cells[0].training | {"recorded_epochs": 60})).measurements


def test_learning_fails_as_the_outlier_crosses_1(diverged):
    # Any warning on the way would be an error here.
    assert diverged["status"] == "diverged"
    assert 30 < diverged.sizes["epoch"] < 60
    assert np.isnan(diverged["convergence_epoch"])
    outlier = diverged["eigenvalue_real_history"].sel(leading_eigenvalue=1).values
    first = np.flatnonzero(outlier > 1)[0]
    assert first >= diverged.sizes["epoch"] - 3
    assert outlier[0] < 0.85
    assert (np.diff(outlier[first - 10 : first + 1]) > 0).all()
    loss = diverged["loss"].values
    assert loss[first] > 10 * loss[0]
    assert loss[:first].max() <= loss[0]


def test_a_diverged_network_is_a_row_of_its_run(diverged, tmp_path):
    cell = linear_cells([0.8], {4.0: 0.0001}, 1, 16)[0]
    other = run(replace(cell, epochs=4, training=cell.training | {"eigenvalues": 5, "recorded_epochs": 4})).measurements
    data = assemble([glance.InMemory(one) for one in (diverged.assign_coords(hidden_size=256), other)])
    rows = {row["claim"]: row for row in check_claims(EXPERIMENTS["divergence"].claims, data)}
    assert rows["fails"]["verdict"] == "holds"
    assert rows["fails"]["measured"].startswith(f"1 of 2 diverge, at epochs {diverged.sizes['epoch'] - 1}")
    assert rows["outlier crosses 1"]["verdict"] == "holds"


def cosine_cell(gain):
    return next(c for c in EXPERIMENTS["cosine"].cells("paper") if c.gain == gain)


def test_the_cosine_is_learned_by_a_pair_of_eigenvalues():
    cell = cosine_cell(0.4)
    measured = run(replace(cell, training=cell.training | {"recorded_epochs": 2})).measurements
    assert 250 < measured["convergence_epoch"] < 500
    pair = [measured[f"eigenvalue_{part}_history"].values[-1, :2] for part in ("real", "imag")]
    assert abs(pair[0] + 1j * pair[1] - [UNDAMPED, UNDAMPED.conjugate()]).max() < 0.05
    assert abs(UNDAMPED - (1 + 2j * np.pi / 5)) < 0.1
    trial = measured[["example_output", "example_target"]].isel(step=slice(100))
    assert abs(trial["example_output"] - trial["example_target"]).max() < 0.3


def test_without_w0_the_cosine_moves_one_direction_alone():
    outcome = run(replace(cosine_cell(0.0), epochs=30))
    change = rs.lowrank.change(outcome.before, outcome.after)
    m = outcome.before.input_weights.detach().double().numpy()[:, 0]
    along = np.outer(m, m) / (m @ m)
    overlap = float((change.matrix * along).sum()) / change.norm
    assert abs(overlap) == pytest.approx(1, abs=1e-6)


def as_the_theory_says(targets=(0.5, 2.0), gains=(0.0, 0.3, 0.6), networks=5, **factors):
    """A run whose quantities scatter by 2 % about the exact theory, times factors(gain, target)."""
    rng = np.random.default_rng(0)
    cells = []
    for target in targets:
        for gain in gains:
            rate = RATES[target] * (1 - gain**2) ** 2
            theory, _ = predicted(gain, target, rate, EPOCHS)
            theory = {name: 0.0 if np.isnan(value) else value for name, value in theory.items()}
            for sample in range(networks):
                scatter = 1 + 0.02 * rng.standard_normal()
                value = {
                    name: x * scatter * factors.get(name, lambda g, z: 1)(gain, target) for name, x in theory.items()
                }
                expansion = rs.theory.ThirdOrder(gain, target).solve(rate * np.arange(EPOCHS))
                history = np.zeros((EPOCHS, 3))
                early = factors.get("early", lambda g, z: 1)(gain, target)
                history[:, 0] = expansion["singular_value"].values[:, 0] * scatter * early
                history[-1] = [value["s1"], value["s2"], value["s3"]]
                cells.append(
                    xr.Dataset(
                        {
                            **{name: ((), value[name]) for name in theory if name not in ("s1", "s2", "s3")},
                            "status": ((), "finished"),
                            "learning_rate": ((), rate),
                            "singular_value_history": (("record", "leading_index"), history),
                            "loss": ("epoch", np.linspace(1, 0, EPOCHS)),
                        },
                        {
                            "task": "fixed_point",
                            "gain": gain,
                            "sample": sample,
                            "target": target,
                            "hidden_size": 1024,
                            "leading_index": [1, 2, 3],
                            "epoch": np.arange(EPOCHS),
                        },
                    )
                )
    return assemble([glance.InMemory(one) for one in cells])


NAMES = ("linear", "linear-gain", "linear-log")


def verdicts(data):
    return {
        f"{name}: {row['claim']}": row["verdict"]
        for name in NAMES
        for row in check_claims(EXPERIMENTS[name].claims, data)
    }


def test_all_claims_hold_where_networks_do_what_the_theory_says():
    found = verdicts(as_the_theory_says())
    assert set(found.values()) == {"holds"}, found


@pytest.mark.parametrize(
    ("factors", "failing"),
    [
        # Without the acceleration by random connectivity.
        (
            {"convergence_epoch": lambda g, z: (1 - g * g) ** -2},
            {"linear-gain: convergence time", "linear-gain: exact theory", "linear: exact theory"},
        ),
        (
            {"change_norm": lambda g, z: 1 + g},
            {"linear-gain: size of the change", "linear-gain: |dW| at g = 0.6", "linear-gain: exact theory"},
        ),
        ({"change_norm": lambda g, z: 1.3 if g == 0 and z == 2 else 1}, {"linear-gain: |dW| at g = 0"}),
        (
            {"average_gradient": lambda g, z: (1 - g * g) ** 2},
            {"linear-gain: average gradient", "linear-gain: exact theory"},
        ),
        ({"shuffled_loss": lambda g, z: 1.6 if z == 0.5 and g == 0.6 else 1}, {"linear-gain: tied to its W0"}),
        (
            {"s2": lambda g, z: 1 / z},
            {"linear-log: second direction", "linear-log: exact theory", "linear: exact theory"},
        ),
        ({"s1": lambda g, z: 0.9 if z == 0.5 else 1}, {"linear-log: rank one"}),
        ({"early": lambda g, z: 1.25}, {"linear: early learning"}),
    ],
)
def test_each_claim_fails_where_it_should(factors, failing):
    found = verdicts(as_the_theory_says(**factors))
    assert failing <= {name for name, verdict in found.items() if verdict == "fails"}
    untouched = {name for name in found if "exact theory" not in name} - failing
    # A change that one claim is about may bring others down, but not all.
    assert sum(found[name] == "holds" for name in untouched) >= len(untouched) - 2


def test_a_network_that_did_not_converge_is_counted_and_left_out():
    data = as_the_theory_says()
    at = {"gain": 0.3, "target": 2.0, "sample": 1}
    data["convergence_epoch"].loc[at] = np.nan
    data["change_norm"].loc[at] = 100.0
    found = verdicts(data)
    assert found["linear: learned"] == "fails"
    assert found["linear-gain: size of the change"] == "holds"
    place = next(p for p in places(data) if (p.gain, p.target) == (0.3, 2.0))
    assert (place.networks, place.measured["change_norm"].size) == (5, 4)
    # Where only some converge, those are a choice of the fast ones: no sample to compare with a mean.
    assert agreement(data, ("change_norm",)).measured.startswith("5 of 5 agree")


def test_places_where_steps_are_too_long_are_left_out():
    # At g = 0.8 and target 2 the paper's rate is 1.4 times what settles; a tenth of it is safe.
    assert not predicted(0.8, 2.0, 0.003 * 0.36**2, EPOCHS)[1]
    assert predicted(0.8, 2.0, 0.0003 * 0.36**2, EPOCHS)[1]
    data = as_the_theory_says(targets=(2.0,), gains=(0.6, 0.8), s1=lambda g, z: 2.0 if g == 0.8 else 1.0)
    finding = agreement(data, ("s1", "change_norm"))
    assert finding.holds
    assert finding.measured == "2 of 2 agree (t-test at 5 %); 1 of 2 places have steps too long to settle"


def test_a_single_target_or_gain_is_enough_to_judge_what_is_there():
    found = verdicts(as_the_theory_says(targets=(2.0,), gains=(0.6,)))
    assert found["linear-gain: |dW| at g = 0.6"] == "holds"
    assert found["linear-gain: |dW| at g = 0"] == "not in this run"
    assert found["linear-gain: convergence time"] == "not in this run"
    assert found["linear-log: second direction"] == "not in this run"


@pytest.mark.parametrize("name", [*NAMES, "divergence", "cosine"])
def test_a_run_of_something_else_has_no_verdict(name):
    data = run(rs.experiments.Cell(rs.tasks.FlipFlop(), hidden_size=8, epochs=3)).measurements
    assert {row["verdict"] for row in check_claims(EXPERIMENTS[name].claims, data)} == {"not in this run"}


def test_chance():
    x = np.array([1.0, 2.0, 3.0])
    assert chance(x, 2.0) == 1
    # A mean two standard errors off, of three: Student's t of 2 with two degrees of freedom.
    assert chance(x, 2 - 2 / np.sqrt(3)) == pytest.approx(0.1835, abs=1e-4)
    assert chance(x, 3.0, resolution=1.0) == 1
    assert chance(np.full(3, 5.0), 5.5) == 0
    assert values(as_the_theory_says(), "learning_rate", gain=0.0, target=0.5).tolist() == [0.015] * 5
