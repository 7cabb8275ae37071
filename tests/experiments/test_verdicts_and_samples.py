"""Verdicts are about networks: no order or number of copies of them changes a verdict, and labels are not mixed."""

import json
import re
import sys
from pathlib import Path

import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.errors import InputError
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.claims import agreement

sys.path.append(str(Path(__file__).parents[1] / "figures"))
from made_up_linear_run import dataset_for as linear_run
from made_up_neurogym_run import make_neurogym_run
from made_up_run import make_run

NONLINEAR = ("tasks", "gain", "spectra", "size")


def small_linear_run(name):
    run = linear_run(name).isel(gain=slice(2), target=slice(2))
    return run.assign(outlier=run["change_norm"] / 4)


RUNS = {
    **{name: make_run((64, 256) if name == "size" else (16,)) for name in NONLINEAR},
    **{name: small_linear_run(name) for name in ("linear", "linear-gain", "linear-log", "divergence")},
    "cosine": linear_run("cosine"),
    "neurogym": make_neurogym_run(),
}


def numbers(name, run):
    """The measured numbers of each claim to 9 digits, with its verdict, without standard errors and counts."""
    rows = EXPERIMENTS[name].verdicts(run.squeeze("hidden_size") if run.sizes.get("hidden_size") == 1 else run)
    return [(row["claim"], re.sub(r" ± [\d.e+-]+", "", row["measured"]), row["verdict"]) for row in rows]


@pytest.mark.parametrize("name", RUNS)
@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_the_order_of_samples_and_dimensions_changes_no_verdict(name, data):
    run = RUNS[name]
    dims = [str(dim) for dim in run["status"].dims]
    changed = run.isel(sample=data.draw(st.permutations(range(run.sizes["sample"]))))
    changed = changed.transpose(*data.draw(st.permutations(dims)), ...)
    assert sorted(numbers(name, changed)) == sorted(numbers(name, run))


@pytest.mark.parametrize("name", NONLINEAR)
def test_copies_of_samples_change_no_number(name):
    run = RUNS[name]
    doubled = xr.concat([run, run], "sample").assign_coords(sample=range(2 * run.sizes["sample"]))
    for (claim, once, verdict), (_, twice, again) in zip(numbers(name, run), numbers(name, doubled), strict=True):
        ratio = re.fullmatch(r"(\d+) of (\d+) converged", once)
        if ratio:
            once = "{} of {} converged".format(*(2 * int(count) for count in ratio.groups()))
        assert (claim, twice, again) == (claim, once, verdict)


def test_the_share_of_directions_is_that_of_each_network():
    run = RUNS["tasks"]
    s = run["singular_value"].sel(matrix="change", task="romo").fillna(0) ** 2
    share = s.isel(singular_index=slice(0, 10)).sum("singular_index") / s.sum("singular_index")
    measured = {claim: text for claim, text, _ in numbers("tasks", run)}["romo: low rank"]
    assert measured.startswith(f"{100 * float(share.sel(gain=0.0).min()):.0f} % at g = 0")


def test_networks_that_differ_by_another_label_are_not_mixed(tmp_path):
    run = RUNS["tasks"].squeeze("hidden_size")
    two = xr.concat([run, run], xr.Variable("learning_rate", [1e-3, 1e-2]), data_vars="all")
    for name in ("tasks", "gain", "spectra"):
        with pytest.raises(InputError, match=r"got a run with learning_rate = 0.001, 0.01; choose .*--select"):
            EXPERIMENTS[name].verdicts(two)
    sizes = make_run((64, 256))
    with pytest.raises(InputError, match="hidden_size = 64, 256"):
        EXPERIMENTS["gain"].verdicts(sizes)
    # The reference is of 256 units.
    four = sizes["change_norm"].sel(task="romo", gain=0.9, hidden_size=256).values
    others = {"convergence_epoch": None, "functional_rank": None, "shuffled_loss_relative": None}
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps([{"task": "romo", "gain": 0.9, "change_norm": x, **others} for x in four]))
    assert agreement(sizes, reference).measured == "1 of 1 within 2 standard errors"


@pytest.mark.parametrize("name", NONLINEAR)
def test_a_run_without_gains_has_no_verdict(name):
    run = RUNS[name].isel(gain=0, drop=True)
    run = run.squeeze("hidden_size") if run.sizes["hidden_size"] == 1 else run
    assert {row["verdict"] for row in EXPERIMENTS[name].verdicts(run)} <= {"not in this run", "holds", "fails"}
