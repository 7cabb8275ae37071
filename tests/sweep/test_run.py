"""Sweeps: nothing finished is lost or done twice, whatever happens to whom."""

import errno
import os
import subprocess
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from sweep_cases import Case, assert_complete, cases, content, noted, wait_until, work, work_with_checkpoint

from rankscope.errors import InputError
from rankscope.sweep import RunFolder, locks, run_sweep
from rankscope.sweep import runner as run_module
from rankscope.sweep.executors import Elsewhere


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


# On threads: what happens to cells


def test_a_sweep_and_the_same_again(tmp_path, log, threads):
    first = run_sweep(work, cases(4, log=log), tmp_path / "run", executor=threads, description={"name": "test"})
    assert first.finished == ("case0000", "case0001", "case0002", "case0003")
    assert (first.already_done, first.failed, first.elsewhere, first.set_aside) == ((), {}, (), ())
    again = run_sweep(work, cases(6, log=log), tmp_path / "run", executor=threads)
    assert again.already_done == first.finished
    assert again.finished == ("case0004", "case0005")
    assert Counter(noted(log)) == Counter(case.digest for case in cases(6))
    assert_complete(tmp_path / "run", 6)
    manifest = RunFolder(tmp_path / "run").manifest()
    assert manifest.description == {"name": "test"}
    assert manifest.cells == {case.digest: case.describe() for case in cases(6)}


def test_the_order_given_is_kept_and_few_are_handed_out_at_once(tmp_path, log):
    handed_out = []

    class Watched(ThreadPoolExecutor):
        def submit(self, *arguments):
            handed_out.append(len(handed_out) - len(noted(log)))
            return super().submit(*arguments)

    backwards = cases(20, log=log)[::-1]
    with Watched(1) as executor:
        run_sweep(work, backwards, tmp_path / "run", executor=executor)
    assert noted(log) == [case.digest for case in backwards]
    assert max(handed_out) <= 3


def test_cells_named_twice_are_done_once(tmp_path, log, threads):
    report = run_sweep(work, cases(2, log=log) * 2, tmp_path / "run", executor=threads)
    assert report.finished == ("case0000", "case0001")
    assert len(noted(log)) == 2


def test_no_cells(tmp_path):
    assert run_sweep(work, [], tmp_path / "run").finished == ()


def test_a_failed_cell_is_recorded_and_the_others_go_on(tmp_path, log, threads):
    broken = [Case(0, log), Case(1, log, fate="raise"), Case(2, log)]
    report = run_sweep(work, broken, tmp_path / "run", executor=threads)
    assert report.finished == ("case0000", "case0002")
    assert report.failed == {"case0001": "ValueError: case 1 cannot be computed"}
    failure = RunFolder(tmp_path / "run").failures()["case0001"]
    assert "in work" in failure.traceback

    left_alone = run_sweep(work, cases(3, log=log), tmp_path / "run", executor=threads)
    assert left_alone.failed == report.failed
    assert left_alone.finished == ()

    again = run_sweep(work, cases(3, log=log), tmp_path / "run", executor=threads, retry_failed=True)
    assert again.finished == ("case0001",)
    assert again.failed == {}
    assert RunFolder(tmp_path / "run").failures() == {}
    assert Counter(noted(log)) == {"case0000": 1, "case0001": 2, "case0002": 1}
    assert_complete(tmp_path / "run", 3)


def test_work_that_returns_something_else_has_failed(tmp_path, threads):
    report = run_sweep(lambda *_: 3, cases(1), tmp_path / "run", executor=threads)
    assert report.failed == {"case0000": "TypeError: work must return an xarray.Dataset, got int"}


def test_a_result_that_netcdf_cannot_hold_has_failed(tmp_path, threads):
    strange = xr.Dataset(attrs={"strange": object()})
    report = run_sweep(lambda *_: strange, cases(1), tmp_path / "run", executor=threads)
    assert "strange" in report.failed["case0000"] or "TypeError" in report.failed["case0000"]


def test_a_cell_goes_on_from_its_checkpoint(tmp_path, log, threads):
    store = RunFolder(tmp_path / "run")
    store.prepare()
    store.checkpoint_path("case0000").write_text("2")
    run_sweep(work_with_checkpoint, cases(1, log=log), store.path, executor=threads)
    assert Path(log).read_text() == "case0000 from 2\n"
    assert not store.checkpoint_path("case0000").exists()


def test_a_checkpoint_that_a_cell_failed_from_is_not_used_again(tmp_path, log, threads):
    broken = [Case(0, log, fate="raise")]
    store = RunFolder(tmp_path / "run")
    run_sweep(work_with_checkpoint, broken, store.path, executor=threads)
    assert store.checkpoint_path("case0000").read_text() == "2"  # it may well be good
    store.checkpoint_path("case0000").write_text("garbage")
    for _ in range(2):
        run_sweep(work_with_checkpoint, cases(1, log=log), store.path, executor=threads, retry_failed=True)
    assert Path(log).read_text() == "case0000 from 0\n" * 2
    assert [path.read_text() for path in (store.path / "set-aside").glob("*.safetensors")] == ["garbage"]
    assert_complete(store.path, 1)


def test_damaged_cells_are_named_and_computed_again(tmp_path, log, threads):
    store = RunFolder(tmp_path / "run")
    run_sweep(work, cases(4, log=log), store.path, executor=threads)
    whole = store.path_of("case0000").read_bytes()
    store.path_of("case0000").write_bytes(whole[:-100])
    store.path_of("case0001").write_bytes(b"garbage" * 1000)
    store.path_of("case0002").write_bytes(whole)
    report = run_sweep(work, cases(4, log=log), store.path, executor=threads)
    assert report.already_done == ("case0003",)
    assert report.finished == ("case0000", "case0001", "case0002")
    assert [one.name for one in report.set_aside] == ["cells/case0000.nc", "cells/case0001.nc", "cells/case0002.nc"]
    assert "its seal is damaged" in report.set_aside[0].reason
    assert "without a seal" in report.set_aside[1].reason
    assert "not the result of this cell" in report.set_aside[2].reason
    assert_complete(store.path, 4)


def test_progress_tells_of_every_settled_cell(tmp_path, threads):
    heard = []
    run_sweep(work, cases(1), tmp_path / "run", executor=threads)
    both = [*cases(2), Case(2, fate="raise")]
    run_sweep(work, both, tmp_path / "run", executor=threads, on_progress=lambda *told: heard.append(told[:3]))
    assert sorted(heard) == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]


# Others on the same folder


def test_what_others_hold_is_waited_for(tmp_path, log, threads, monkeypatch):
    monkeypatch.setattr(run_module, "SECONDS_BETWEEN_LOOKS", 0.05)
    store = RunFolder(tmp_path / "run")
    store.prepare()
    claim = locks.acquire(store.claim_path("case0000"))

    def other():
        wait_until(lambda: len(noted(log)) == 2)
        store.save("case0000", content(0))
        claim.release()

    thread = threading.Thread(target=other)
    thread.start()
    report = run_sweep(work, cases(3, log=log), store.path, executor=threads)
    thread.join()
    assert report.elsewhere == ("case0000",)
    assert report.finished == ("case0001", "case0002")
    assert sorted(noted(log)) == ["case0001", "case0002"]
    assert_complete(store.path, 3)


def test_what_others_die_of_is_taken_over(tmp_path, log, threads, monkeypatch):
    monkeypatch.setattr(run_module, "SECONDS_BETWEEN_LOOKS", 0.05)
    store = RunFolder(tmp_path / "run")
    store.prepare()
    path = store.claim_path("case0000")
    path.write_text('{"host": "elsewhere", "pid": 1, "born": "", "token": "x"}')

    def die():
        wait_until(lambda: len(noted(log)) == 2)
        os.utime(path, (1, 1))

    thread = threading.Thread(target=die)
    thread.start()
    report = run_sweep(work, cases(3, log=log), store.path, executor=threads)
    thread.join()
    assert report.finished == ("case0000", "case0001", "case0002")
    assert_complete(store.path, 3)


def test_two_sweeps_at_once_do_every_cell_once(tmp_path, log):
    reports = []

    def sweep():
        with ThreadPoolExecutor(2) as executor:
            reports.append(run_sweep(work, cases(40, log=log, seconds=0.005), tmp_path / "run", executor=executor))

    both = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert Counter(noted(log)) == Counter(case.digest for case in cases(40))
    assert sum(len(report.finished) for report in reports) == 40
    for report in reports:
        assert len(report.finished) + len(report.elsewhere) + len(report.already_done) == 40
    assert_complete(tmp_path / "run", 40)


# Folders and executors that do not work


@pytest.mark.parametrize("executor", [None, "threads"])
def test_an_impossible_folder_is_refused_before_any_work(tmp_path, log, executor, request):
    (tmp_path / "file").touch()
    executor = executor and request.getfixturevalue(executor)
    with pytest.raises(InputError, match="cannot make the folder"):
        run_sweep(work, cases(2, log=log), tmp_path / "file" / "run", executor=executor)
    assert noted(log) == []


def test_bad_arguments_are_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match="workers must be a whole number >= 1, got 0"):
        run_sweep(work, cases(1), tmp_path / "run", workers=0)
    with pytest.raises(InputError, match="work must be a function of a module"):
        run_sweep(lambda *_: None, cases(1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def full_disk_after(count, monkeypatch):
    """From the `count`-th result on, pretend that there is no room."""
    write = Path.write_bytes
    written = []

    def write_bytes(self, data):
        written.append(self)
        if len(written) > count:
            write(self, bytes(data)[:100])
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


def test_a_full_disk_ends_the_sweep_and_keeps_what_is_finished(tmp_path, log, monkeypatch):
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as executor:
        full_disk_after(3, patch)
        with pytest.raises(
            InputError, match=r"cannot go on writing in .*run: .*No space left.*what was finished is kept"
        ):
            run_sweep(work, cases(9, log=log), tmp_path / "run", executor=executor)
    store = RunFolder(tmp_path / "run")
    assert store.done() == ["case0000", "case0001", "case0002"]
    assert store.failures() == {}
    with ThreadPoolExecutor(1) as executor:
        report = run_sweep(work, cases(9, log=log), store.path, executor=executor)
    assert len(report.already_done) == 3
    assert_complete(store.path, 9)


def test_no_room_for_a_checkpoint_is_no_failure_of_the_cell(tmp_path, threads):
    def no_room(*_):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise InputError("cannot write a checkpoint") from error

    with pytest.raises(InputError, match="cannot write a checkpoint; what was finished is kept"):
        run_sweep(no_room, cases(2), tmp_path / "run", executor=threads)
    assert RunFolder(tmp_path / "run").failures() == {}


def checkpoint_only(case, report, checkpoint):
    save_file({"large": torch.zeros(10**5)}, checkpoint)
    return content(case.number)


def test_no_room_for_a_safetensors_file_is_no_failure_of_the_cell(tmp_path, threads, mount):
    store = RunFolder(mount("size=300k") / "run")
    with pytest.raises(InputError, match=r"No space left on device.*what was finished is kept"):
        run_sweep(checkpoint_only, cases(2), store.path, executor=threads)
    assert store.failures() == {}


def test_an_executor_that_is_gone_is_said_so(tmp_path):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(InputError, match="executor must take work until the sweep ends"):
        run_sweep(work, cases(2), tmp_path / "run", executor=executor)


class Cluster(ThreadPoolExecutor):
    """Threads that say of themselves how many workers they are, as the client of a Dask cluster does."""

    def __init__(self, counts):
        super().__init__(1)
        self._client = self
        self.counts = list(counts)

    def scheduler_info(self):
        if self.counts[0] is None:
            raise OSError("no answer")
        return {"workers": dict.fromkeys(range(self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]))}


@pytest.mark.parametrize(("counts", "said"), [([0], 1), ([2], 0), ([None], 0), ([0, 0, 1, 1, 0, 0], 2)])
def test_a_cluster_without_workers_is_said_so_once(tmp_path, monkeypatch, caplog, counts, said):
    monkeypatch.setattr("rankscope.sweep.executors.SECONDS_BETWEEN_COUNTS", 0.0)
    with Cluster(counts) as executor:
        team = Elsewhere(work, RunFolder(tmp_path), executor)
        assert [team.reports() for _ in range(6)] == [[]] * 6
    assert [record.message[:26] for record in caplog.records] == ["the cluster has no worker;"] * said


def test_an_executor_of_another_kind_is_not_asked_for_workers(tmp_path, threads, monkeypatch, caplog):
    monkeypatch.setattr("rankscope.sweep.executors.SECONDS_BETWEEN_COUNTS", 0.0)
    run_sweep(work, cases(3), tmp_path / "run", executor=threads)
    assert caplog.records == []


def noise(case, report, checkpoint):
    return xr.Dataset({"noise": ("x", np.random.default_rng(case.number).random(5000))})


def test_a_really_full_disk(tmp_path, threads):
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", mounted], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system needs root")
    try:
        store = RunFolder(mounted / "run")
        # Cells that have begun elsewhere are let finish, so the executor is waited for.
        with ThreadPoolExecutor(2) as executor, pytest.raises(InputError, match="No space left on device"):
            run_sweep(noise, cases(20), store.path, executor=executor)
        done = store.done()
        assert 1 <= len(done) < 20
        assert all(store.is_done(digest) for digest in done)
        assert list(store.path.rglob("*.part")) == []
        subprocess.run(["mount", "-o", "remount,size=30m", mounted], check=True)
        report = run_sweep(noise, cases(20), store.path, executor=threads)
        assert list(report.already_done) == done
        assert len(store.done()) == 20
    finally:
        subprocess.run(["umount", "--lazy", mounted], check=True)
