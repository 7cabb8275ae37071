"""The sentiment experiment: what is measured on its network, and its claims on made-up runs."""

import numpy as np
import pytest
import torch
import xarray as xr

import rankscope as rs
from rankscope.experiments import EXPERIMENTS
from rankscope.experiments.claims import check_claims
from rankscope.networks import load_networks
from rankscope.tasks.sentiment.data import save_data
from rankscope.training import validate


@pytest.fixture(scope="module")
def cache(sentiment_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    save_data(sentiment_data, folder / "sentiment-snippets.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKSCOPE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def done(cache):
    (job,) = EXPERIMENTS["sentiment"].jobs("quick")
    changed = {"epochs": 3, "learning_rate": 0.02, "kept_epochs": (1, 3)}
    training = job.training.model_dump(exclude_defaults=True) | changed
    return rs.Job(
        task=job.task,
        network=job.network | {"hidden_size": 8},
        training=training,
        measurements=(*job.measurements, "accuracy_along"),
        labels=job.labels,
    ).run()


def truncated(matrix, rank):
    U, s, Vt = torch.linalg.svd(matrix, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vt[:rank]


def validated(done, replacement):
    """Return loss and accuracy of the trained network with each inner matrix replaced by a function of W0 and W."""
    network = done.after.snapshot()
    inner = {name: dict(done.before.named_parameters())[name] for name in network.inner_names()}
    with torch.no_grad():
        for name, W0 in inner.items():
            weights = network.get_parameter(name)
            weights.copy_(replacement(W0.double(), weights.double()))
    task = done.job.make_task()
    return validate(network, task.validation(), task.loss)


@pytest.mark.parametrize("rank", [0, 1, 4, 8])
def test_truncation_is_that_of_each_matrix_by_itself(done, rank):
    ways = {"change": lambda W0, W: W0 + truncated(W - W0, rank), "trained": lambda W0, W: truncated(W, rank)}
    for name, replacement in ways.items():
        loss, accuracy = validated(done, replacement)
        there = done.measurements.sel(truncated=name, rank=rank)
        assert there["truncation_loss"].item() == pytest.approx(loss, rel=1e-5)
        assert there["truncation_accuracy"].item() == pytest.approx(accuracy, abs=0.011)


def test_the_whole_is_what_training_ended_with(done):
    measured = done.measurements
    assert measured["accuracy"].item() == pytest.approx(measured["validation_accuracy"].values[-1])
    np.testing.assert_allclose(measured["truncation_loss"].sel(rank=8), measured["evaluation_loss"], rtol=1e-5)


def test_norms_and_spectra_are_of_all_inner_matrices(done):
    measured = done.measurements
    assert set(measured["weight"].values) == {"weight_hh_l0", "weight_hh_l1", "weight_ih_l1"}
    s = measured["singular_value"].sel(matrix="change")
    assert measured["change_norm"].item() == pytest.approx(float(np.sqrt((s**2).sum())), rel=1e-6)


def test_functional_ranks_are_those_from_which_on_the_accuracy_stays(done):
    measured = done.measurements
    for name, rank in (("change", "functional_rank"), ("trained", "functional_rank_trained")):
        enough = measured["truncation_accuracy"].sel(truncated=name).values >= measured["accuracy"].item() - 0.01 - 1e-9
        assert enough[int(measured[rank]) :].all()
        assert int(measured[rank]) == 0 or not enough[int(measured[rank]) - 1]


def test_copies_along_training_are_measured_as_the_network_at_the_end(done):
    measured = done.measurements
    np.testing.assert_array_equal(measured["kept_epoch"], [1, 3])
    then, end = (measured["truncation_accuracy_along"].isel(kept_epoch=index) for index in (0, 1))
    np.testing.assert_array_equal(end, measured["truncation_accuracy"])
    assert float(then.sel(truncated="trained", rank=8)) == pytest.approx(measured["validation_accuracy"].values[0])
    of_change = measured["change_singular_value_along"]
    np.testing.assert_allclose(of_change[1], measured["singular_value"].sel(matrix="change"), rtol=1e-6)
    assert (of_change[0] < of_change[1]).any()


def test_copies_are_kept_in_the_folder_of_a_run(done, tmp_path):
    folder = done.save(tmp_path)[0]
    before, then = load_networks(folder, epoch=1)
    change = dict(then.named_parameters())["rnn.weight_hh_l1"] - dict(before.named_parameters())["rnn.weight_hh_l1"]
    expected = done.measurements["change_singular_value_along"].sel(kept_epoch=1, weight="weight_hh_l1")
    np.testing.assert_allclose(torch.linalg.svdvals(change.detach().double()), expected, rtol=1e-5)
    with pytest.raises(rs.InputError, match=r"keeps a network \(1, 3\), got 2"):
        load_networks(folder, epoch=2)


def test_missing_data_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKSCOPE_CACHE", str(tmp_path))
    (job,) = EXPERIMENTS["sentiment"].jobs("quick")
    with pytest.raises(rs.InputError, match="rankscope data sentiment"):
        job.check()


def made_up(
    accuracy=0.78,
    change=lambda r: 0.05 * (r < 8),
    trained=lambda r: 0.2 * (r < 200),
    first=3.5,
    ratio=0.8,
    slow=1,
    end=1,
):
    """One network, by default as in the paper."""
    loss = np.interp(np.arange(1, 501), [1, 20, 33 * slow, 81 * slow, 500], [0.69, 0.69, 0.6, 0.55, 0.38 * end])
    ranks, index = np.arange(256), np.arange(256)
    curves = np.stack([accuracy - np.vectorize(f, otypes=[float])(ranks) for f in (change, trained)])
    s = np.tile(first * ratio**index, (3, 3, 1))
    enough = [float(np.argmax([(curve[r:] >= accuracy - 0.01).all() for r in ranks])) for curve in curves]
    return xr.Dataset(
        {
            "loss": ("epoch", loss),
            "accuracy": accuracy,
            "status": "finished",
            "functional_rank": enough[0],
            "functional_rank_trained": enough[1],
            "truncation_accuracy": (("truncated", "rank"), curves),
            "singular_value": (("weight", "matrix", "singular_index"), s),
        },
        {
            "truncated": ["change", "trained"],
            "rank": ranks,
            "weight": ["weight_hh_l0", "weight_hh_l1", "weight_ih_l1"],
            "matrix": ["initial", "change", "trained"],
        },
    )


@pytest.mark.parametrize(
    ("options", "failing"),
    [
        ({}, None),
        ({"accuracy": 0.7}, "accuracy"),
        ({"end": 1.2}, "training loss"),
        ({"slow": 4}, "course of the loss"),
        ({"change": lambda r: 0.02 * (r < 40)}, "the change is of low rank"),
        ({"trained": lambda r: 0.2 * (r < 100)}, "the weights are not"),
        ({"first": 4.5, "ratio": 0.7}, "largest singular value"),
        ({"ratio": 0.9}, "singular values fall"),
    ],
)
def test_each_claim_fails_where_it_should_and_only_there(options, failing):
    one = made_up(**options)
    together = xr.concat([one, one], "sample")
    for run in (one, together):
        for row in check_claims(EXPERIMENTS["sentiment"].claims, run):
            assert row["verdict"] == ("fails" if row["claim"] == failing else "holds"), row


def test_claims_about_what_is_not_there_have_no_verdict():
    small = made_up().isel(rank=slice(0, 9), weight=[0], epoch=slice(0, 12))
    verdicts = {row["claim"]: row["verdict"] for row in check_claims(EXPERIMENTS["sentiment"].claims, small)}
    assert verdicts.pop("accuracy") == "holds"
    assert set(verdicts.values()) == {"not in this run"}
    other = xr.Dataset({"loss": ("epoch", [1.0])})
    assert {row["verdict"] for row in check_claims(EXPERIMENTS["sentiment"].claims, other)} == {"not in this run"}
