"""Runs of many networks from the command line: run, status, export, figure, check, and one-line errors."""

import json

import pytest
import xarray as xr

import rankscope as rs
from rankscope.cli import main

SWEEP = """
task: flipflop
hidden_size: 16
epochs: 10
grid:
  gain: [0.0, 0.9]
samples: 2
"""


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.fixture(scope="module")
def finished(tmp_path_factory, forked_workers):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "sweep.yaml").write_text(SWEEP)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder / "sweep.yaml"), "--out", str(folder / "run"), "--workers", "2"])
    assert stop.value.code == 0
    return folder / "run"


def test_a_run_is_one_dataset(finished):
    data = rs.open_run(finished)
    assert {name: data.sizes[name] for name in ("gain", "sample", "epoch")} == {"gain": 2, "sample": 2, "epoch": 10}
    assert data["loss"].notnull().all()


def test_what_is_done_is_not_done_again(capsys, finished):
    status, out, _ = call(capsys, "run", finished.parent / "sweep.yaml", "--out", finished, "--json")
    assert status == 0
    counts = json.loads(out)
    assert (counts["finished"], counts["already_done"], counts["failed"]) == (0, 4, 0)


def test_status(capsys, finished):
    counts = json.loads(call(capsys, "status", finished, "--json")[1])
    assert (counts["total"], counts["done"], counts["failures"]) == (4, 4, [])
    assert "done" in call(capsys, "status", finished)[1]


@pytest.mark.parametrize("kind", ["nc", "csv", "zarr"])
def test_export(capsys, finished, tmp_path, kind):
    if kind == "zarr":
        pytest.importorskip("zarr")
    out = tmp_path / f"all.{kind}"
    assert call(capsys, "export", finished, "--out", out, "--format", kind)[0] == 0
    data = rs.open_run(finished)
    if kind == "csv":
        lines = out.read_text().splitlines()
        assert len(lines) == 5
        assert lines[0].startswith("gain,sample,")
    else:
        with xr.open_dataset(out, engine="h5netcdf" if kind == "nc" else "zarr") as back:
            xr.testing.assert_equal(back["loss"].load(), data["loss"].load())


def test_check_fails_where_a_claim_does(capsys, finished):
    status, out, _ = call(capsys, "check", "gain", "--from", finished, "--json")
    rows = {row["claim"]: row["verdict"] for row in json.loads(out)}
    assert rows["mante: change shrinks"] == "not in this run"
    # Ten epochs do not learn the task, so that at g = 0 shuffling cannot leave it learned.
    assert rows["flipflop: tied to its W0"] == "fails"
    assert status == 1


def test_experiments_are_listed_with_their_cost(capsys):
    rows = json.loads(call(capsys, "experiments", "--json")[1])
    assert {(row["experiment"], row["networks"]) for row in rows if row["preset"] == "paper"} == {
        ("tasks", 6),
        ("gain", 145),
        ("spectra", 9),
        ("size", 225),
        ("linear", 150),
        ("linear-gain", 150),
        ("linear-log", 150),
        ("divergence", 40),
        ("cosine", 15),
        ("sentiment", 1),
        ("neurogym", 81),
        ("demo", 2),
    }
    assert all(row["minutes"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "gian", "--out", "OUT"], ["'gian'", "'gain'"]),
        (["run", "gain", "--preset", "full", "--out", "OUT"], ["preset", "'full'", "'paper'"]),
        (["run", "nowhere.yaml", "--out", "OUT"], ["nowhere.yaml", "does not exist"]),
        (["run", "gain", "--workers", "0", "--out", "OUT"], ["workers", "0"]),
        (["status", "OUT"], ["OUT"]),
        (["figure", "gain", "--from", "OUT", "--out", "f.png"], ["folder must hold finished jobs"]),
        (["figure", "gians", "--from", "OUT", "--out", "f.png"], ["'gians'", "'gain'"]),
        (["check", "gain", "--from", "OUT"], ["folder must hold finished jobs"]),
        (["check", "gain", "--from", "OUT", "--reference", "none.json"], ["none.json"]),
        (["export", "OUT", "--out", "x", "--format", "xls"], ["format", "'xls'"]),
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
    assert not list(tmp_path.rglob("*.nc"))


def test_a_scheduler_that_does_not_answer_is_one_line(capsys, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    client = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda address, timeout: client(address, timeout=0.2))
    address = "tcp://127.0.0.1:1"
    status, out, err = call(capsys, "run", "gain", "--scheduler", address, "--out", tmp_path / "out")
    assert (status, out) == (2, "")
    assert err.startswith(f"rankscope: scheduler must be the address of a running one, got '{address}'")
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob("*.nc"))


def test_an_impossible_folder_is_refused_before_any_training(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, _, err = call(capsys, "run", "gain", "--out", tmp_path / "file" / "run")
    assert status == 2
    assert err.count("\n") == 1
