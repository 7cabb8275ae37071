"""The claims about nonlinear networks hold and fail where they should, on made-up runs."""

import json

import numpy as np
import pytest
import xarray as xr

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS, size_limit
from rankscope.experiments.claims import agreement, agreement_claim, by_gain, check_claims, rows, values
from rankscope.experiments.gain import few_directions

TASKS = ["flipflop", "mante", "romo"]
GAINS = [0.0, 0.9, 1.8]


def made_up(convergence, norm, shuffled, rank, samples=2):
    """A run of three tasks at three gains whose quantities are functions of the gain."""
    shape = (3, 3, samples)
    grid = np.broadcast_to(np.array(GAINS)[None, :, None], shape)
    of = {"convergence_epoch": convergence, "change_norm": norm, "shuffled_loss": shuffled, "functional_rank": rank}
    variables = {name: (("task", "gain", "sample"), np.vectorize(f, otypes=[float])(grid)) for name, f in of.items()}
    variables["initial_loss"] = (("task", "gain", "sample"), np.ones(shape))
    variables["evaluation_loss"] = (("task", "gain", "sample"), np.full(shape, 0.01))
    return xr.Dataset(variables, {"task": TASKS, "gain": GAINS, "sample": range(samples), "hidden_size": 256})


AS_CLAIMED = {
    "convergence": lambda g: {0.0: 100, 0.9: 40, 1.8: 60}[g],
    "norm": lambda g: 2 - g * 0.8,
    "shuffled": lambda g: float(g > 0),
    "rank": lambda g: 5,
}


def verdicts(name, data):
    return {row["claim"]: row["verdict"] for row in check_claims(EXPERIMENTS[name].claims, data)}


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
    for claim, verdict in verdicts("gain", made_up(**{**AS_CLAIMED, **changed})).items():
        assert verdict == ("fails" if failing is not None and failing in claim else "holds"), claim


def test_a_network_that_never_converged_is_not_counted_as_fast():
    never_at_zero = made_up(**{**AS_CLAIMED, "convergence": lambda g: np.nan if g == 0 else 40})
    row = check_claims(EXPERIMENTS["gain"].claims, never_at_zero)[0]
    assert row["verdict"] == "holds"
    assert row["measured"].startswith("never at g = 0")


def test_the_rank_counts_where_four_of_five_learned():
    data = made_up(**AS_CLAIMED, samples=5)
    data["functional_rank"].loc[{"gain": 1.8}] = 30
    data["evaluation_loss"].loc[{"gain": 1.8, "sample": [0, 1]}] = 0.2
    found = few_directions(data, "mante")
    assert (found.measured, found.holds) == ("5 ± 0 at g = 0, 5 ± 0 at g = 0.9; not learned at g = 1.8", True)
    data["evaluation_loss"].loc[{"gain": 1.8, "sample": 1}] = 0.01
    assert few_directions(data, "mante").holds is False
    # One that has learned, but has no rank within the truncation curve, counts with 26.
    data["functional_rank"].loc[{"gain": 1.8}] = np.nan
    assert few_directions(data, "mante").measured.endswith("26 ± 0 at g = 1.8")


def test_claims_of_rounding():
    one = made_up(**AS_CLAIMED, samples=3)
    one["functional_rank"] = one["functional_rank"] + xr.DataArray([0.0, 1.0, 2.0], dims="sample")
    moved = one.assign(functional_rank=one["functional_rank"] + 1)
    data = xr.concat([one, moved], xr.Variable("repetition", [0, 1]))
    assert set(verdicts("rounding", data).values()) == {"holds"}
    far = xr.concat([one, one.assign(functional_rank=one["functional_rank"] + 15)], xr.Variable("repetition", [0, 1]))
    assert set(verdicts("rounding", far).values()) == {"fails"}
    assert set(verdicts("rounding", one).values()) == {"not in this run"}


def test_claims_about_missing_networks_have_no_verdict():
    found = verdicts("gain", made_up(**AS_CLAIMED).isel(gain=[0]))
    assert found["flipflop: change shrinks"] == "not in this run"
    assert found["flipflop: few directions"] == "holds"


def with_spectra(change, trained, samples=2):
    """A run with the given singular values of dW and W, one list for each sample."""
    data = made_up(**AS_CLAIMED, samples=samples)
    s = np.stack([change, change, trained])  # matrix, sample, index
    s = np.broadcast_to(s[None, None], (3, 3, *s.shape))
    dims = ("task", "gain", "matrix", "sample", "singular_index")
    data["singular_value"] = (dims, s)
    data["eigenvalue_real"] = (("task", "gain", "matrix", "sample", "eigenvalue"), np.where(s > 1, 0.9, 0.1))
    data["eigenvalue_imag"] = 0 * data["eigenvalue_real"]
    return data.assign_coords(matrix=["initial", "change", "trained"])


def test_networks_are_judged_one_by_one():
    steep, flat = 0.5 ** np.arange(40), np.ones(40)
    assert set(verdicts("tasks", with_spectra([steep, steep], [flat, flat])).values()) == {"holds"}
    # Pooled, the ten largest values of two networks are not the ten largest of each.
    found = verdicts("tasks", with_spectra([100 * steep, flat], [flat, flat]))
    assert {claim for claim, verdict in found.items() if verdict == "fails"} == {f"{task}: low rank" for task in TASKS}


def test_claims_of_spectra():
    steep, flat = 1.1 * 0.5 ** np.arange(40), 0.9 * np.ones(40)
    trained = np.r_[1.1, flat[1:]]
    assert set(verdicts("spectra", with_spectra([steep] * 2, [trained] * 2)).values()) == {"holds"}
    found = verdicts("spectra", with_spectra([flat] * 2, [flat] * 2))
    assert found["romo: rank contrast"] == found["romo: outlier"] == "fails"
    assert found["romo: bulk stays"] == "holds"


def test_claims_of_size():
    sizes = np.array([64, 128, 256])
    norm = 0.9 * np.sqrt(sizes)
    data = xr.Dataset(
        {name: ("hidden_size", x) for name, x in {"trained_norm": norm, "change_norm": 0 * norm}.items()}
        | {"functional_rank": ("hidden_size", [4.0, 5.0, 6.0])},
        {"hidden_size": sizes, "task": "mante", "gain": 0.9},
    )
    found = verdicts("size", data)
    assert {claim: verdict for claim, verdict in found.items() if "mante" in claim} == {
        "mante: |W| grows": "holds",
        "mante: rank does not grow": "holds",
        "mante: |dW| of infinitely many units": "not in this run",
    }
    assert found["romo: |W| grows"] == "not in this run"
    wrong = data.assign(trained_norm=data["trained_norm"] ** 2, functional_rank=data["functional_rank"] ** 2)
    assert [v for claim, v in verdicts("size", wrong).items() if "mante" in claim] == [
        "fails",
        "fails",
        "not in this run",
    ]


def test_the_change_at_g_0_is_judged_by_the_limit():
    limit = size_limit.limits()["flipflop", "change_norm"]
    sizes = np.array([256, 1024])
    norms = limit.value + np.array([[0.4, 0.5, 0.6], [0.01, 0.0, np.nan]])
    data = xr.Dataset(
        {
            "change_norm": (("hidden_size", "sample"), norms),
            "convergence_epoch": (("hidden_size", "sample"), 70 + 0 * norms),
            "loss": (("hidden_size", "sample", "epoch"), np.ones((2, 3, 1000))),
            "learning_rate": ("hidden_size", 0.05 / sizes),
        },
        {"hidden_size": sizes, "task": "flipflop", "gain": 0.0, "sample": range(3)},
    )
    name = "flipflop: |dW| of infinitely many units"
    assert verdicts("size", data)[name] == "holds"
    assert verdicts("size", data.isel(hidden_size=[0]))[name] == "fails"
    assert verdicts("size", data.assign_coords(gain=0.9))[name] == "not in this run"


def test_values_at_a_place_of_any_grid():
    data = made_up(**AS_CLAIMED)
    assert values(data, "convergence_epoch", task="mante", gain=0.9).tolist() == [40, 40]
    assert values(data.isel(gain=1), "convergence_epoch", task="mante", gain=0.9).tolist() == [40, 40]
    assert values(data, "convergence_epoch", task="mante", gain=0.3).size == 0
    assert values(data.isel(gain=1), "convergence_epoch", task="mante", gain=0.0).size == 0
    assert values(data, "no_such_variable").size == 0
    assert list(by_gain(data, "change_norm", task="romo")) == GAINS
    data["curve"] = (("sample", "rank"), [[1.0, 2.0, np.nan], [np.nan] * 3])
    assert [row.tolist() for row in rows(data, "curve", "rank")] == [[1, 2]]


def test_agreement_with_a_reference(tmp_path):
    data = made_up(**AS_CLAIMED, samples=4)
    data["change_norm"] = data["change_norm"] + xr.DataArray([0.0, 0.1, 0.2, 0.3], dims="sample")

    def reference(shift):
        networks = [
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
        path.write_text(json.dumps(networks))
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
