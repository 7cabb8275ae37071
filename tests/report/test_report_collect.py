"""What the page is told about a run, without a browser."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from made_up_linear_run import dataset_for, diverge
from made_up_run import SAMPLES, TASKS, fail, forget, make_run
from made_up_sentiment_run import fail_one, make_sentiment_run

import rankscope as rs
from rankscope.report import collect
from rankscope.report.networks import SHOWN
from rankscope.report.packing import unpack
from rankscope.report.provenance import of_dataset, open_folder


@pytest.fixture(scope="module")
def nonlinear():
    """A run without one combination, and with one that did not converge."""
    run = fail(forget(make_run(), task="mante", gain=1.8), task="romo", gain=0.0, sample=[0, 1, 2])
    return run, collect(run)


def network(content, **labels):
    (found,) = [one for one in content["networks"] if one["labels"] == labels]
    return found


def test_every_network_that_was_trained_is_there_once(nonlinear):
    _, content = nonlinear
    assert len(content["networks"]) == (len(TASKS) * 3 - 1) * SAMPLES
    assert {json.dumps(one["labels"]) for one in content["networks"]} == {
        json.dumps({"task": task, "gain": gain, "sample": sample, "hidden_size": 16})
        for task in TASKS
        for gain in (0.0, 0.9, 1.8)
        for sample in range(SAMPLES)
        if (task, gain) != ("mante", 1.8)
    }
    assert content["statuses"] == {"finished": len(content["networks"])}


def test_a_network_has_its_own_numbers_without_padding(nonlinear):
    run, content = nonlinear
    where = {"task": "mante", "gain": 0.9, "sample": 2, "hidden_size": 16}
    found, here = network(content, **where), run.sel(where)
    assert found["name"] == "Mante, g = 0.9, N = 16, sample 2"
    assert found["scalars"]["change_norm"] == float(here["change_norm"])
    epochs, losses = unpack(found["loss"])
    np.testing.assert_array_equal(epochs, run["epoch"])
    np.testing.assert_allclose(losses, here["loss"], rtol=1e-6)
    ranks, curve = unpack(found["truncation"]["values"])
    np.testing.assert_array_equal(ranks, run["rank"])
    np.testing.assert_allclose(curve, here["truncation_loss"], rtol=1e-6)
    trial = found["detail"]["trial"]
    inputs, outputs, steps = TASKS["mante"]
    assert (trial["input"]["shape"], trial["output"]["shape"]) == ([inputs, steps], [outputs, steps])
    np.testing.assert_allclose(unpack(trial["output"])[0], here["example_output"][:steps, 0], rtol=1e-6)
    np.testing.assert_allclose(unpack(trial["time"]), run["time"][:steps])
    spectra = found["detail"]["spectra"]
    np.testing.assert_allclose(unpack(spectra["singular"][0]["values"]), here["singular_value"], rtol=1e-6)
    np.testing.assert_allclose(unpack(spectra["eigen"])[1], here["eigenvalue_imag"], rtol=1e-6)


def test_outside_the_mask_there_is_no_target():
    run = make_run()
    run["example_mask"].loc[{"step": range(5)}] = 0.0
    trial = collect(run)["networks"][0]["detail"]["trial"]
    target = unpack(trial["target"])
    assert np.isnan(target[:, :5]).all()
    assert np.isfinite(target[:, 5:]).all()


def test_means_are_over_the_networks_that_converged(nonlinear):
    run, content = nonlinear
    names = [one["name"] for one in content["dimensions"]]
    assert names == ["task", "gain", "hidden_size"]
    (group,) = [one for one in content["groups"] if one["place"] == [list(TASKS).index("romo"), 0, 0]]
    scalar = group["scalars"]["change_norm"]
    left = run["change_norm"].sel(task="romo", gain=0.0, sample=3, hidden_size=16)
    assert group["total"] == SAMPLES
    assert scalar == {"mean": pytest.approx(float(left)), "std": None, "count": 1}
    (whole,) = [one for one in content["groups"] if one["place"] == [list(TASKS).index("romo"), 1, 0]]
    values = run["change_norm"].sel(task="romo", gain=0.9, hidden_size=16).values
    assert whole["scalars"]["change_norm"]["mean"] == pytest.approx(values.mean())
    assert whole["scalars"]["change_norm"]["std"] == pytest.approx(values.std(ddof=1))
    assert len(content["groups"]) == 8


def test_what_is_drawn_against_what():
    content = collect(make_run((8, 16, 32, 64)))
    assert content["main"] == "gain"
    by_name = {one["name"]: one for one in content["dimensions"]}
    assert [by_name[name]["log"] for name in ("task", "gain", "hidden_size")] == [False, False, True]
    assert by_name["task"]["texts"] == ["flip-flop", "Mante", "Romo"]
    assert not by_name["task"]["numeric"]
    assert [one["name"] for one in content["panels"]] == [
        "convergence_epoch",
        "change_norm",
        "shuffled_loss",
        "functional_rank",
    ]


@pytest.mark.parametrize("name", ["linear", "linear-gain", "linear-log", "divergence", "cosine"])
def test_linear_runs(name):
    run = dataset_for(name)
    content = collect(run, of_dataset(run, name))
    assert content["title"] == f"Experiment {name}"
    assert len(content["networks"]) == run["status"].size
    assert content["claims"]
    assert all("loss" in one for one in content["networks"])
    json.dumps(content, allow_nan=False)


def test_networks_that_diverged_say_so():
    run = diverge(dataset_for("divergence"), 20, gain=0.8, target=2.0, sample=[0, 1])
    content = collect(run)
    assert content["statuses"]["diverged"] == 2
    first, second = [one for one in content["networks"] if one["status"] == "diverged"]
    assert unpack(first["loss"]).shape[1] <= 21
    assert [one["name"] for one in content["diverged"]] == [first["name"], second["name"]]
    last = int(unpack(first["loss"])[0, -1])
    assert content["diverged"][0]["reason"].endswith(f"not finite at epoch {last + 1} or just before")


def test_text_runs():
    run = fail_one(make_sentiment_run(samples=3))
    content = collect(run, of_dataset(run, "sentiment"))
    assert content["main"] == "sample"
    assert content["groups"] == []
    lost, *there = content["networks"]
    assert (lost["status"], "truncation" in lost, lost["detail"]) == ("diverged", False, {})
    assert there[0]["truncation"]["names"] == [
        {"of": "loss", "truncated": "change"},
        {"of": "loss", "truncated": "trained"},
        {"of": "accuracy", "truncated": "change"},
        {"of": "accuracy", "truncated": "trained"},
    ]
    np.testing.assert_allclose(unpack(there[0]["truncation"]["values"])[3], run["truncation_accuracy"][1, 0], rtol=1e-6)
    singular = {one["name"]: unpack(one["values"]) for one in there[0]["detail"]["spectra"]["singular"]}
    assert len(singular) == 3 + 3 * 4
    np.testing.assert_allclose(
        singular["weight_hh_l1, cell"],
        run["gate_singular_value"].sel(weight="weight_hh_l1", gate="cell").isel(sample=1),
        rtol=1e-6,
    )


def test_one_network_needs_no_comparison():
    run = make_run().isel(task=0, gain=1, sample=0, hidden_size=0)
    content = collect(run)
    assert (content["dimensions"], content["main"], content["groups"]) == ([], None, [])
    assert content["networks"][0]["name"] == "the network"
    assert {"title": "task", "text": "flip-flop"} in content["common"]


def test_a_page_that_is_full_keeps_details_of_the_first_samples(monkeypatch):
    run = make_run()
    whole = collect(run)["networks"]
    assert all("detail" in one for one in whole)
    monkeypatch.setattr("rankscope.report.networks.DETAIL_BYTES", 15_000)
    some = [one for one in collect(run)["networks"] if "detail" in one]
    assert 0 < len(some) < len(whole) / 2
    assert {one["labels"]["sample"] for one in some} <= {0, 1}


def test_curves_of_many_networks_are_shorter(monkeypatch):
    run = make_run()
    monkeypatch.setattr("rankscope.report.networks.CURVE_POINTS", (5, 20))
    lengths = []
    for size in (1e6, 5_000, 100):
        monkeypatch.setattr("rankscope.report.networks.CURVE_BYTES", size)
        lengths.append(len(unpack(collect(run)["networks"][0]["loss"])[0]))
    assert 20 >= lengths[0] > lengths[1] > lengths[2] > 1


@pytest.fixture(scope="module")
def small(small_run):
    """A real run: its Dataset, and what the page is told."""
    dataset, provenance = open_folder(small_run)
    return dataset, collect(dataset, provenance)


def test_what_was_recorded_over_the_epochs(small):
    dataset, content = small
    by_task = {one["labels"]["task"]: one for one in content["networks"] if one["labels"]["gain"] == 0.8}
    for task, one in by_task.items():
        here = dataset.sel(one["labels"])
        history = one["detail"]["history"]
        np.testing.assert_array_equal(unpack(history["epochs"]), here["recorded_epoch"])
        np.testing.assert_allclose(
            unpack(history["singular"]), here["singular_value_history"][:, : SHOWN["leading_index"]], rtol=1e-6
        )
        assert ("eigen" in history) == (task == "fixed_point")
    eigen = unpack(by_task["fixed_point"]["detail"]["history"]["eigen"])
    here = dataset.sel(by_task["fixed_point"]["labels"])
    np.testing.assert_allclose(eigen[1], here["eigenvalue_imag_history"], rtol=1e-6)


def test_the_dataset_is_that_of_open_run(small, small_run):
    xr.testing.assert_equal(small[0].load(), rs.open_run(small_run).load())


def test_where_a_run_comes_from(small, small_run):
    _, content = small
    known = content["provenance"]
    assert known["counts"] == {"total": 8, "done": 7, "failed": 1, "running": 0, "waiting": 0}
    assert known["command"] == "rankscope run sweep.yaml --out small"
    assert known["sweep"].startswith("task: flipflop")
    assert known["versions"]["rankscope_version"] == rs.__version__
    (failure,) = known["failures"]
    assert failure["name"] == "fixed_point, g = 0.8, N = 10, sample 1"
    assert (failure["error"], failure["message"][:7]) == ("RuntimeError", "no luck")
    for one in content["networks"]:
        described = (one["job"]["network"]["gain"], one["job"]["task"]["name"])
        assert described == (one["labels"]["gain"], one["labels"]["task"])
        assert (small_run / "jobs" / one["digest"]).exists()
        assert known["finished"][0] <= one["finished"] <= known["finished"][1]
    assert content["claims"] == []


def test_a_damaged_result_is_listed(small_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(small_run, folder)
    damaged = sorted((folder / "jobs").glob("*/measurements.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:500])
    dataset, provenance = open_folder(folder)
    assert len(collect(dataset, provenance)["networks"]) == 6
    assert any(one["error"] == "unreadable" and "not a whole" in one["message"] for one in provenance.failures)


def test_what_is_not_a_run_is_refused():
    with pytest.raises(rs.InputError, match="with a status, got one with a"):
        collect(xr.Dataset({"a": 1}))
    with pytest.raises(rs.InputError, match="must hold a network that was trained"):
        collect(xr.Dataset({"status": ("sample", ["", ""])}, {"sample": [0, 1]}))


def test_overlaps_are_those_of_the_weights_before_learning_and_of_activity_after(nonlinear):
    run, content = nonlinear
    (anatomy,) = network(content, task="flipflop", gain=0.0, sample=0, hidden_size=16)["detail"]["anatomy"]
    one = run.sel(task="flipflop", gain=0.0, sample=0, side="right").isel(block=0, hidden_size=0)
    right = anatomy["right"]
    assert right["names"] == ["inputs", "outputs", "activity after learning", "adjoints after learning"]
    for row, (partner, stage) in enumerate([("inputs", "before"), ("outputs", "before"), ("activity", "after")]):
        at = {"partner": partner, "stage": stage}
        np.testing.assert_allclose(unpack(right["values"])[row], one.overlap.sel(at), rtol=1e-6)
        assert right["nulls"][row] == pytest.approx(float(one.overlap_null.sel(at)))


def test_shares_growth_and_visibility_are_those_of_the_anatomy():
    task, rng = rs.tasks.make("flipflop"), np.random.default_rng(0)
    before = rs.RateRNN.initialize(task, 16, 0.5, rng=0)
    networks = {}
    for epoch in (3, 6):
        after = networks[epoch] = copy.deepcopy(before)
        step = epoch * np.outer(rng.standard_normal(16), rng.standard_normal(16)) / 16
        with torch.no_grad():
            after.recurrent_weights += torch.as_tensor(step)
    found = rs.anatomy(before, after, task, history=networks)
    run = found.expand_dims(sample=[0]).assign(status=("sample", ["finished"]))
    (one,) = collect(run)["networks"][0]["detail"]["anatomy"]
    found = found.isel(block=0)
    assert (one["visible"], one["directions"]) == (int(found.visible.sum()), 1)
    assert one["edge"] == pytest.approx(float(found.visible_edge))
    np.testing.assert_array_equal(unpack(one["growth"]["epochs"]), [0, 3, 6])
    expected = found.growth_strength.dropna("direction").values
    np.testing.assert_allclose(unpack(one["growth"]["strength"]), np.vstack([0 * expected[:1], expected]), rtol=1e-6)
    shares = dict(zip(one["shares"]["names"], unpack(one["shares"]["values"]), strict=True))
    components = unpack(one["shares"]["components"])
    np.testing.assert_allclose(shares["random change"], components / 16, rtol=1e-6)
    after_learning = found.activity_share.sel(stage="after", activity_component=components)
    np.testing.assert_allclose(shares["activity after learning"], after_learning, rtol=1e-6)
