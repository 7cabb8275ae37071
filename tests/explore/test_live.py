"""A run folder while it grows, seen from beside it."""

import json
import os
import shutil

import numpy as np
import pytest
import xarray as xr
from explore_cases import jobs

import rankscope as rs
from rankscope.explore import live as live_module
from rankscope.explore.live import LiveRun, encoded, update
from rankscope.sweep import RunFolder, locks
from rankscope.sweep.result_file import write_result


def first_of(folder):
    """Digest and measurements file of the first finished job."""
    path = sorted((folder / "jobs").iterdir())[0]
    return path.name, path / "measurements.safetensors"


@pytest.fixture
def growing(finished_jobs, tmp_path):
    """A run without results, and a function that finishes its next job."""
    run = RunFolder(tmp_path / "growing")
    run.prepare(jobs(), {"experiment": "gain"})
    left = list(finished_jobs)

    def finish():
        digest = left.pop(0)
        run.save(finished_jobs[digest])
        return digest

    return run, finish


def test_networks_appear_as_jobs_finish(growing):
    run, finish = growing
    live = LiveRun(run.path)
    assert live.snapshot().counts == {"total": 4, "done": 0, "failed": 0, "running": 0, "waiting": 4}
    known = {}
    for done in (1, 2, 3, 4):
        digest = finish()
        snapshot = live.snapshot()
        news = update(snapshot, known)
        assert list(news["networks"]) == [digest]
        assert (news["counts"]["done"], news["counts"]["waiting"]) == (done, 4 - done)
        known = snapshot.networks
    assert update(live.snapshot(), known)["networks"] == {}


def test_values_are_those_of_open_run(finished_run):
    networks, run = LiveRun(finished_run).snapshot().networks, rs.open_run(finished_run)
    assert len(networks) == 4
    for one in networks.values():
        same = run.sel(gain=one["labels"]["gain"], sample=one["labels"]["sample"])
        assert one["labels"]["task"] == "flipflop"
        assert one["labels"]["hidden_size"] == 12
        assert one["measured"]["change_norm"] == pytest.approx(float(same["change_norm"]), rel=1e-5)
        np.testing.assert_allclose(one["loss"], same["loss"].values, rtol=1e-5)
        assert one["epoch"] == list(range(12))
        assert one["status"] == "finished"
        assert one["measured"]["convergence_epoch"] is None  # 12 epochs do not suffice


def test_a_long_curve_is_thinned_to_its_ends(finished_run, monkeypatch):
    monkeypatch.setattr(live_module, "CURVE_POINTS", 5)
    cell = next(iter(LiveRun(finished_run).snapshot().networks.values()))
    assert len(cell["loss"]) == 5
    assert (cell["epoch"][0], cell["epoch"][-1]) == (0, 11)


def test_what_is_trained_and_what_failed(growing):
    run, _ = growing
    waiting = list(run.manifest().jobs)
    run.fail(waiting[1], "ValueError", "<b>no</b>")
    with locks.acquire(run.lock_path(waiting[2])):
        snapshot = LiveRun(run.path).snapshot()
    assert snapshot.counts == {"total": 4, "done": 0, "failed": 1, "running": 1, "waiting": 2}
    assert snapshot.failed[waiting[1]]["message"] == "<b>no</b>"
    assert snapshot.running[waiting[2]]["labels"]["task"] == "flipflop"
    left = run.lock_path(waiting[2])
    left.write_text("by a process that died")
    os.utime(left, (1e9, 1e9))
    assert LiveRun(run.path).snapshot().counts["running"] == 0


def test_counts_are_those_of_status(growing):
    run, finish = growing
    finish()
    run.fail(list(run.manifest().jobs)[2], "ValueError", "no")
    counts = run.counts()
    assert LiveRun(run.path).snapshot().counts == {
        name: getattr(counts, name) for name in ("total", "done", "failed", "running", "waiting")
    }


def test_hundreds_come_a_part_at_a_time(finished_run, monkeypatch):
    monkeypatch.setattr(live_module, "BATCH", 3)
    live = LiveRun(finished_run)
    first, second = live.snapshot(), live.snapshot()
    assert (len(first.networks), first.complete, first.counts["done"]) == (3, False, 4)
    assert (len(second.networks), second.complete) == (4, True)


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"\xff" * 100])
def test_a_damaged_result_is_read_again_once_it_changes(finished_run, content):
    digest, path = first_of(finished_run)
    whole = path.read_bytes()
    live = LiveRun(finished_run)
    path.write_bytes(content)
    assert live.snapshot().counts["done"] == 3
    with pytest.raises(rs.InputError):
        live.detail(digest)
    path.write_bytes(whole)
    assert live.snapshot().counts["done"] == 4


def test_a_damaged_result_does_not_stop_the_others(finished_run, monkeypatch):
    monkeypatch.setattr(live_module, "BATCH", 1)
    first_of(finished_run)[1].write_bytes(b"half")
    live = LiveRun(finished_run)
    snapshots = [live.snapshot() for _ in range(5)]
    assert [len(one.networks) for one in snapshots] == [0, 1, 2, 3, 3]
    assert [one.complete for one in snapshots] == [False, False, False, True, True]


def test_a_removed_result_is_reported(finished_run):
    live = LiveRun(finished_run)
    known = live.snapshot().networks
    digest, path = first_of(finished_run)
    shutil.rmtree(path.parent)
    assert update(live.snapshot(), known)["gone"] == [digest]


def test_links_out_of_the_folder_are_not_followed(finished_run, tmp_path):
    digest, path = first_of(finished_run)
    outside = tmp_path / digest
    path.parent.rename(outside)
    path.parent.symlink_to(outside)
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"error": "secret", "message": "", "traceback": "", "host": "", "time": ""}))
    (finished_run / "failed" / f"{digest}.json").symlink_to(secret)
    snapshot = LiveRun(finished_run).snapshot()
    assert snapshot.counts["done"] == 3
    assert digest not in snapshot.networks
    assert "secret" not in encoded(update(snapshot, {})).decode()
    assert LiveRun(finished_run).detail(digest) is None


def test_details_of_one_network(finished_run):
    found = LiveRun(finished_run).detail(first_of(finished_run)[0])
    run = rs.open_run(finished_run).sel(gain=found["labels"]["gain"], sample=found["labels"]["sample"])
    np.testing.assert_allclose(found["truncation_loss"], run["truncation_loss"].values, rtol=1e-5)
    np.testing.assert_allclose(found["singular_value"], run["singular_value"].sel(matrix="change").values, rtol=1e-5)
    assert "finished" in found["provenance"]
    json.loads(encoded(found))
    for name in ("none", "../run", "", "a/b"):
        assert LiveRun(finished_run).detail(name) is None


def test_results_of_other_experiments_are_read(tmp_path):
    job = jobs()[0]
    run = RunFolder(tmp_path / "run")
    run.prepare([job])
    measured = xr.Dataset(
        {"accuracy": 0.7, "note": "x" * 5000, "singular_value": (("weight", "matrix", "i"), np.ones((2, 2, 2)))},
        {"task": "sentiment", "gain": np.nan, "seed": 2**60},
    )
    path = run.measurements_path(job.digest)
    path.parent.mkdir()
    write_result(path, measured, job, ["score"], network_kept=False)
    live = LiveRun(run.path)
    one = live.snapshot().networks[job.digest]
    assert one["measured"]["accuracy"] == 0.7
    assert one["labels"] == {"task": "sentiment", "gain": None}
    assert (one["loss"], one["epoch"]) == ([], [])
    assert len(one["measured"]["note"]) < 5000
    assert live.detail(job.digest)["singular_value"] == []


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(rs.InputError, match="does not exist"):
        LiveRun(tmp_path / "none")
    with pytest.raises(rs.InputError, match=r"run\.json"):
        LiveRun(tmp_path)


def test_a_folder_that_goes_is_an_error_with_a_update(finished_run):
    live = LiveRun(finished_run)
    finished_run.rename(finished_run.with_name("elsewhere"))
    with pytest.raises(rs.InputError, match=r"run\.json"):
        live.snapshot()
