"""The experiment on text: what is measured on a network, its run as a sweep, its claims, and data that is not there."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import rankscope as rs
from rankscope.cli import main
from rankscope.experiments import EXPERIMENTS, TextCell, run_cells, seconds_for, state_dicts
from rankscope.experiments.claims import check_claims
from rankscope.experiments.sentiment import ALL_RANKS, QUICK_RANKS
from rankscope.experiments.text_cell import run_text
from rankscope.networks.text import TextClassifier
from rankscope.tasks.sentiment.batches import in_order
from rankscope.tasks.sentiment.data import save_data
from rankscope.training.text import evaluate

CELL = TextCell(hidden_size=8, epochs=3, ranks=tuple(range(9)), training={"learning_rate": 0.02})


@pytest.fixture(scope="module")
def cache(sentiment_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    save_data(sentiment_data, folder / "sentiment-snippets.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _in_cache(cache, monkeypatch):
    monkeypatch.setenv("RANKSCOPE_CACHE", str(cache))


@pytest.fixture(scope="module")
def measured(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKSCOPE_CACHE", str(cache))
        return run_text(CELL)


def rebuilt(measured, data, which):
    """The trained network, with its inner weights replaced by `which(W0, W)`."""
    before, after = state_dicts(measured)
    network = TextClassifier(data.vectors, 8)
    network.load_state_dict(after, strict=False)
    with torch.no_grad():
        for name, weights in network.inner_weights().items():
            W0, W = (state[f"layers.{name}"].double() for state in (before, after))
            weights.copy_(which(W0, W))
    return network


def cut(matrix, rank):
    U, s, Vt = torch.linalg.svd(matrix, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vt[:rank]


@pytest.mark.parametrize("rank", [0, 1, 4, 8])
def test_truncation_is_that_of_each_matrix_by_itself(measured, sentiment_data, rank):
    held_out = in_order(sentiment_data.validation, 64)
    ways = {"change": lambda W0, W: W0 + cut(W - W0, rank), "trained": lambda W0, W: cut(W, rank)}
    for truncated, which in ways.items():
        loss, accuracy = evaluate(rebuilt(measured, sentiment_data, which), held_out)
        there = measured.sel(truncated=truncated, rank=rank)
        assert there["truncation_loss"].item() == pytest.approx(loss, rel=1e-5)
        assert there["truncation_accuracy"].item() == pytest.approx(accuracy, abs=0.011)


def test_the_whole_is_what_training_ended_with(measured):
    assert measured["accuracy"].item() == measured["validation_accuracy"].values[-1]
    whole = measured.sel(rank=8)
    np.testing.assert_allclose(whole["truncation_loss"], measured["evaluation_loss"], rtol=1e-5)


def test_singular_values_whole_and_by_gate(measured):
    before, after = state_dicts(measured)
    assert measured["weight"].values.tolist() == ["weight_hh_l0", "weight_hh_l1", "weight_ih_l1"]
    for weight in measured["weight"].values:
        W0, W = (state[f"layers.{weight}"].double().numpy() for state in (before, after))
        for matrix, values in {"initial": W0, "change": W - W0, "trained": W}.items():
            here = measured.sel(weight=weight, matrix=matrix)
            np.testing.assert_allclose(here["singular_value"], np.linalg.svdvals(values), atol=1e-6)
            for index, gate in enumerate(("input", "forget", "cell", "output")):
                part = values[8 * index : 8 * (index + 1)]
                np.testing.assert_allclose(
                    here["gate_singular_value"].sel(gate=gate), np.linalg.svdvals(part), atol=1e-6
                )
    norms = [np.linalg.norm(after[f"layers.{w}"] - before[f"layers.{w}"]) for w in measured["weight"].values]
    assert measured["change_norm"].item() == pytest.approx(np.linalg.norm(norms), rel=1e-5)


def test_every_variable_says_what_it_is_and_a_cell_is_repeated_exactly(measured):
    for name, variable in measured.data_vars.items():
        assert variable.attrs.get("long_name"), name
    xr.testing.assert_identical(run_text(CELL).drop_attrs(), measured.drop_attrs())
    assert not run_text(replace(CELL, seed=1)).equals(measured)
    assert json.loads(measured.attrs["data"])["train"] == 200


def test_functional_ranks_are_those_from_which_on_the_accuracy_stays(measured):
    for truncated, name in (("change", "functional_rank"), ("trained", "functional_rank_trained")):
        curve = measured["truncation_accuracy"].sel(truncated=truncated).values
        enough = curve >= measured["accuracy"].item() - 0.01 - 1e-9
        rank = int(measured[name])
        assert enough[rank:].all()
        assert rank == 0 or not enough[rank - 1]


@pytest.mark.parametrize(("cell", "layers"), [("gru", 1), ("rnn", 3)])
def test_other_networks(cell, layers):
    measured = run_text(replace(CELL, cell=cell, layers=layers, epochs=1))
    assert measured.sizes["weight"] == 2 * layers - 1
    assert measured["cell_type"].item() == cell


def test_a_diverged_network_is_a_result():
    measured = run_text(replace(CELL, training={"learning_rate": 1e35}))
    assert measured["status"].item() == "diverged"
    verdicts = {row["verdict"] for row in check_claims(EXPERIMENTS["sentiment"].claims, measured)}
    assert verdicts == {"not in this run"}


def test_a_run_goes_on_is_opened_checked_and_exported(tmp_path, capsys, measured):
    folder = tmp_path / "run"
    report = run_cells([CELL], folder, workers=1)
    assert len(report.finished) == 1
    assert run_cells([CELL], folder, workers=1).already_done == (CELL.digest,)
    data = rs.open_run(folder)
    np.testing.assert_array_equal(data["truncation_accuracy"], measured["truncation_accuracy"])
    for ours, theirs in zip(state_dicts(data), state_dicts(measured), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for arguments, status in (
        (["check", "sentiment", "--from", folder], 1),
        (["figure", "sentiment", "--from", folder, "--out", tmp_path / "f.png"], 0),
        (["export", folder, "--out", tmp_path / "f.csv", "--format", "csv"], 0),
        (["export", folder, "--out", tmp_path / "f.nc"], 0),
    ):
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, arguments)))
        assert stop.value.code == status, arguments
    assert (tmp_path / "f.csv").read_text().count("\n") == 2


def test_missing_data_is_one_line_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANKSCOPE_CACHE", str(tmp_path / "empty"))
    for preset in ("quick", "treebank"):
        with pytest.raises(SystemExit) as stop:
            main(["run", "sentiment", "--preset", preset, "--out", str(tmp_path / "run")])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "rankscope data sentiment" in error
    assert not (tmp_path / "run").exists()


def test_data_is_described(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "sentiment", "--json"])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["validation"] == 100
    with pytest.raises(SystemExit) as stop:
        main(["data", "sentiment", "--treebank", "nowhere"])
    assert stop.value.code == 2
    assert "together" in capsys.readouterr().err


def test_the_users_own_data_is_part_of_what_a_cell_is(sentiment_data, tmp_path, monkeypatch):
    monkeypatch.setenv("RANKSCOPE_CACHE", str(tmp_path))
    cells = EXPERIMENTS["sentiment"].cells
    assert cells("treebank")[0].fingerprint == ""
    save_data(replace(sentiment_data, name="treebank"), tmp_path / "sentiment-treebank.safetensors")
    (cell,) = cells("treebank")
    assert cell.fingerprint == sentiment_data.fingerprint
    cell.check()
    with pytest.raises(rs.InputError, match="must have the fingerprint 1234"):
        replace(cell, fingerprint="1234").check()


def test_presets():
    (paper,), (quick,) = (EXPERIMENTS["sentiment"].cells(preset) for preset in ("paper", "quick"))
    assert (paper.hidden_size, paper.layers, paper.epochs, paper.ranks) == (256, 2, 500, ALL_RANKS)
    assert paper.digest == "262781d61723"
    assert replace(quick, epochs=500, ranks=ALL_RANKS) == paper
    assert set(QUICK_RANKS) <= set(ALL_RANKS)
    assert {10, 128} < set(QUICK_RANKS)
    assert 0 < seconds_for([quick], 2) < seconds_for([paper], 2)
    with pytest.raises(rs.InputError, match="did you mean 'snippets'"):
        TextCell("snipets")
    with pytest.raises(rs.InputError, match="cell must be one of"):
        TextCell(cell="lsmt")


def made_up(accuracy=0.78, change=lambda r: 0.05 * (r < 8), trained=lambda r: 0.2 * (r < 200), first=3.5, ratio=0.8):
    """One network, as the paper has it unless told otherwise."""
    ranks, index = np.arange(256), np.arange(256)
    curves = np.stack([accuracy - np.vectorize(f, otypes=[float])(ranks) for f in (change, trained)])
    s = np.tile(first * ratio**index, (3, 3, 1))
    enough = [float(np.argmax([(curve[r:] >= accuracy - 0.01).all() for r in ranks])) for curve in curves]
    return xr.Dataset(
        {
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
    small = made_up().isel(rank=slice(0, 9), weight=[0])
    verdicts = {row["claim"]: row["verdict"] for row in check_claims(EXPERIMENTS["sentiment"].claims, small)}
    assert verdicts.pop("accuracy") == "holds"
    assert set(verdicts.values()) == {"not in this run"}
    other = xr.Dataset({"loss": ("epoch", [1.0])})
    assert {row["verdict"] for row in check_claims(EXPERIMENTS["sentiment"].claims, other)} == {"not in this run"}
