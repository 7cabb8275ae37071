"""Command line for runs: run, measure, status, export, figure, check, and one-line errors."""

import json
import re

import numpy as np
import pytest
import xarray as xr

import rankscope as rs
from commands import call
from rankscope.cli import main
from rankscope.experiments import EXPERIMENTS

SWEEP = """
task: flipflop
hidden_size: 16
epochs: 10
grid:
  gain: [0.0, 0.9]
  learning_rate: [0.001, 0.004]
samples: 2
measurements: [norms, shuffle, spectra]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, forked_workers):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "sweep.yaml").write_text(SWEEP)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder / "sweep.yaml"), "--out", str(folder / "run"), "--workers", "2"])
    assert stop.value.code == 0
    return folder / "run"


def test_a_run_is_one_dataset_with_its_networks(finished):
    data = rs.open_run(finished)
    sizes = {"gain": 2, "sample": 2, "learning_rate": 2, "epoch": 10}
    assert {name: data.sizes[name] for name in sizes} == sizes
    assert data["loss"].notnull().all()
    before, after = rs.load_networks(finished, gain=0.9, sample=0, learning_rate=0.004)
    stored = data["change_norm"].sel(gain=0.9, sample=0, learning_rate=0.004)
    assert rs.change(before, after).norm == pytest.approx(float(stored))


def test_run_prints_its_cost_before_it_begins_and_does_nothing_twice(capsys, tmp_path, finished):
    status, out, err = call(capsys, "run", finished.parent / "sweep.yaml", "--out", finished, "--json")
    assert (status, err) == (0, "")
    counts = json.loads(out)
    assert (counts["finished"], counts["already_done"], counts["failed"]) == (0, 8, 0)
    (tmp_path / "impossible.yaml").write_text(SWEEP)
    _, _, err = call(capsys, "run", tmp_path / "impossible.yaml", "--out", tmp_path / "impossible.yaml" / "run")
    assert err.startswith("8 networks: about ")
    assert re.search(r" \d\S* (s|min) in \d+ process(es)?, \d\S* [kMG]B in ", err)


def test_run_closes_with_a_table_over_the_grid(capsys, finished):
    _, out, _ = call(capsys, "run", finished.parent / "sweep.yaml", "--out", finished, "--workers", "1")
    data = rs.open_run(finished)["change_norm"].sel(gain=0.9, learning_rate=0.004)
    assert f"{float(data.mean()):.3g} ± {float(data.std(ddof=1)):.2g}" in out
    assert f"rankscope report {finished}" in "".join(out.split("\n"))


def test_another_sweep_in_the_folder_is_refused_and_numbers_are_numbers(capsys, finished, tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("0.001", "1e-3").replace("0.004", "4e-3"))
    status, out, _ = call(capsys, "run", tmp_path / "sweep.yaml", "--out", finished, "--json")
    assert (status, json.loads(out)["already_done"]) == (0, 8)
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("16", "12"))
    status, _, err = call(capsys, "run", tmp_path / "sweep.yaml", "--out", finished)
    assert status == 2
    assert "network.hidden_size = 16 there, 12 here. Choose another folder" in err


def test_weights_are_exported_and_a_network_of_a_run_is_inspected(capsys, finished, tmp_path):
    assert call(capsys, "export", finished, "--weights", "--out", tmp_path / "w")[0] == 0
    assert len((tmp_path / "w" / "networks.csv").read_text().splitlines()) == 9
    before, after = rs.load_networks(finished, gain=0, sample=1, learning_rate=0.001)
    stored = np.load(tmp_path / "w" / "gain=0.0_learning_rate=0.001_sample=1.npz")
    np.testing.assert_array_equal(stored["before.recurrent_weights"], before.recurrent_weights.detach())
    np.testing.assert_array_equal(stored["after.recurrent_weights"], after.recurrent_weights.detach())
    select = [word for text in ("gain=0", "sample=1", "learning_rate=1e-3") for word in ("--select", text)]
    rows = json.loads(call(capsys, "inspect", finished, *select, "--json")[1])["matrices"]
    assert "recurrent_weights" in {row["name"] for row in rows}
    status, _, err = call(capsys, "inspect", finished)
    assert (status, "they differ in gain, learning_rate, sample" in err) == (2, True)


def test_status(capsys, finished):
    counts = json.loads(call(capsys, "status", finished, "--json")[1])
    assert (counts["total"], counts["done"], counts["failures"]) == (8, 8, [])
    assert "done" in call(capsys, "status", finished)[1]


def test_a_measurement_is_added_without_training(capsys, finished):
    assert "outlier" not in rs.open_run(finished)
    before = rs.open_run(finished)["loss"].load()
    status, out, _ = call(capsys, "measure", finished, "--add", "outlier,norms", "--workers", "1", "--json")
    assert (status, json.loads(out)["finished"]) == (0, 8)
    after = rs.open_run(finished)
    assert after["outlier"].notnull().all()
    xr.testing.assert_identical(after["loss"].load(), before)
    assert "outlier" in call(capsys, "measure")[1]


@pytest.mark.parametrize("kind", ["nc", "zarr", "csv", "parquet"])
def test_export(capsys, finished, tmp_path, kind):
    pytest.importorskip({"nc": "h5netcdf", "zarr": "zarr", "csv": "csv", "parquet": "arro3.io"}[kind])
    out = tmp_path / f"all.{kind}"
    status, _, err = call(capsys, "export", finished, "--out", out)
    assert status == 0, err
    data = rs.open_run(finished)
    if kind == "csv":
        lines = out.read_text().splitlines()
        assert len(lines) == 9
        assert lines[0].startswith("gain,sample,")
    elif kind == "parquet":
        from arro3.io import read_parquet

        table = read_parquet(out).read_all()
        assert sorted(table.column("change_norm").to_pylist()) == sorted(data["change_norm"].values.ravel())
    else:
        with xr.open_dataset(out, engine="h5netcdf" if kind == "nc" else "zarr") as back:
            xr.testing.assert_equal(back["loss"].load(), data["loss"].load())


def test_check_is_over_networks(capsys, finished):
    select = ("--select", "learning_rate=0.004", "--json")
    status, out, _ = call(capsys, "check", "gain", "--from", finished, *select)
    rows = {row["claim"]: row["verdict"] for row in json.loads(out)}
    lines = call(capsys, "check", "gain", "--from", finished, *select[:2])[1].splitlines()
    left = [claim for claim, verdict in rows.items() if verdict == "not in this run"]
    assert lines[-1] == f"{len(left)} not in this run: {'; '.join(left)}"
    assert len(left) == sum(claim in line for claim in left for line in lines) > 5
    assert rows["mante: change shrinks"] == "not in this run"
    # Ten epochs do not learn the task, and only networks that learned are judged.
    assert rows["flipflop: tied to its W0"] == "not in this run"
    assert status == 0
    # The share of ten directions is that of each network, not of all samples together.
    status, out, _ = call(capsys, "check", "tasks", "--from", finished, *select)
    rows = json.loads(out)
    assert status == 1
    (row,) = [row for row in rows if row["claim"] == "flipflop: low rank"]
    s2 = rs.open_run(finished)["singular_value"].sel(matrix="change", learning_rate=0.004) ** 2
    share = (s2.isel(singular_index=slice(10)).sum("singular_index") / s2.sum("singular_index")).min("sample")
    assert row["verdict"] == "holds"
    for gain in (0.0, 0.9):
        assert f"{100 * float(share.sel(gain=gain)):.0f} % at g = {gain:g}" in row["measured"]


def test_figure_of_a_sweep_with_another_axis(capsys, finished, tmp_path):
    arguments = ("figure", "gain", "--from", finished, "--out", tmp_path / "f.png")
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "--select learning_rate=VALUE" in err
    assert err.count("\n") == 1
    call(capsys, "measure", finished, "--add", "truncation", "--workers", "1")
    assert call(capsys, *arguments, "--select", "learning_rate=0.004")[0] == 0
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    options = ("--x", "learning_rate", "--color", "gain", "--show", "change_norm,loss_ratio")
    assert "show must be one of" in call(capsys, "figure", "sweep", *arguments[2:], *options)[2]
    assert call(capsys, "figure", "sweep", *arguments[2:], *options[:4])[0] == 0
    assert "--x must be given with the figure 'sweep'" in call(capsys, *arguments, "--x", "gain")[2]


def test_every_figure_and_check_of_any_run_is_drawn_or_one_line(capsys, finished, tmp_path):
    for name in EXPERIMENTS:
        for arguments in (
            ("figure", name, "--from", finished, "--out", tmp_path / "f.png"),
            ("check", name, "--from", finished),
        ):
            status, _, err = call(capsys, *arguments)
            assert status == 2, arguments
            assert "--select" in err
            assert err.count("\n") == 1
        # Without a traceback, whatever it finds.
        call(capsys, "check", name, "--from", finished, "--select", "learning_rate=0.004", "--select", "sample=0")


def test_experiments_are_listed_with_their_cost(capsys):
    rows = json.loads(call(capsys, "experiments", "--json")[1])
    paper = {row["experiment"]: row["networks"] for row in rows if row["preset"] == "paper"}
    assert paper["gain"] == 145
    assert set(paper) >= {"tasks", "spectra", "size", "linear", "divergence", "cosine", "sentiment", "neurogym"}
    assert all(row["minutes"] > 0 and row["bytes"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "gian", "--out", "OUT"], ["'gian'", "'gain'"]),
        (["run", "gain", "--preset", "full", "--out", "OUT"], ["preset", "'full'", "'paper'"]),
        (["run", "nowhere.yaml", "--out", "OUT"], ["nowhere.yaml", "does not exist"]),
        (["run", "gain", "--workers", "0", "--out", "OUT"], ["workers", "0"]),
        (["status", "OUT"], ["OUT"]),
        (["measure", "OUT", "--add", "norms"], ["OUT"]),
        (["figure", "gain", "--from", "OUT", "--out", "f.png"], ["OUT"]),
        (["figure", "gians", "--from", "OUT", "--out", "f.png"], ["'gians'", "'gain'"]),
        (["check", "gain", "--from", "OUT"], ["OUT"]),
        (["check", "gain", "--from", "OUT", "--reference", "none.json"], ["none.json"]),
        (["export", "OUT", "--out", "x.xls"], ["'xls'"]),
    ],
)
def test_mistakes_are_one_line_and_status_2(capsys, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, *arguments)
    assert status == 2, err
    assert out == ""
    assert err.count("\n") == 1
    for text in named:
        assert text in err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_labels_that_are_not_in_the_run(capsys, finished):
    for select, named in (("learning_rate=1", "0.004"), ("learnin_rate=1", "'learning_rate'")):
        status, _, err = call(capsys, "check", "gain", "--from", finished, "--select", select)
        assert status == 2
        assert named in err


def test_a_scheduler_that_does_not_answer_is_one_line(capsys, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    client = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda address, timeout: client(address, timeout=0.2))
    (tmp_path / "one.yaml").write_text("task: flipflop")
    address = "tcp://127.0.0.1:1"
    status, out, err = call(
        capsys, "run", tmp_path / "one.yaml", "--scheduler", address, "--out", tmp_path / "out", "--json"
    )
    assert (status, out) == (2, "")
    assert f"rankscope: scheduler must be the address of a running one, got '{address}'" in err
    assert not list(tmp_path.rglob("*.safetensors"))
