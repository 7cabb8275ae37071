"""Sweeps: nothing finished is lost or done twice, whatever happens to whom."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sweep_cases import Case, cases, content, noted, work, work_with_checkpoint

from rankscope.errors import InputError
from rankscope.sweep import RunFolder, claims, run_sweep
from rankscope.sweep import run as run_module

HERE = Path(__file__).parent


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "log")


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def assert_complete(folder, count):
    """Every result is there, equal to the bit to that of an undisturbed run, and nothing else is left over."""
    store = RunFolder(folder)
    assert store.done() == [case.digest for case in cases(count)]
    for case in cases(count):
        found = store.read(case.digest).drop_attrs()
        expected = content(case.number).drop_attrs()
        assert found.identical(expected)
        assert found["values"].values.tobytes() == expected["values"].values.tobytes()
    assert list((store.path / "claims").iterdir()) == []
    assert list(store.path.rglob("*.part")) == []


def script_environment():
    paths = [str(HERE), str(HERE.parents[1] / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def start_program(folder, log, count, workers=2, seconds=0.01):
    code = "import sys, sweep_cases; sweep_cases.main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, *map(str, (folder, log, count, workers, seconds))]
    return subprocess.Popen(
        command, env=script_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end_program(program):
    output, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    return tuple(map(int, output.split()))


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


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
    assert "truncated" in report.set_aside[0].reason
    assert "signature" in report.set_aside[1].reason
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
    claim = claims.acquire(store.claim_path("case0000"))

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


def test_an_executor_that_is_gone_is_said_so(tmp_path):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(InputError, match="executor must take work until the sweep ends"):
        run_sweep(work, cases(2), tmp_path / "run", executor=executor)


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
        with pytest.raises(InputError, match="No space left on device"):
            run_sweep(noise, cases(20), store.path, executor=threads)
        done = store.done()
        assert 1 <= len(done) < 20
        assert all(store.is_done(digest) for digest in done)
        assert list(store.path.rglob("*.part")) == []
        subprocess.run(["mount", "-o", "remount,size=30m", mounted], check=True)
        report = run_sweep(noise, cases(20), store.path, executor=threads)
        assert list(report.already_done) == done
        assert len(store.done()) == 20
    finally:
        subprocess.run(["umount", mounted], check=True)


# On processes


def test_processes_have_one_thread_each_and_report_and_a_dead_one_is_replaced(tmp_path, log):
    """One pool for several questions, because processes take seconds to start."""
    some = [Case(0, log), Case(1, log, fate="die once"), Case(2, log), Case(3, log, fate="die"), Case(4, log)]
    heard = []
    report = run_sweep(work, some, tmp_path / "run", workers=2, on_progress=lambda *told: heard.append(told))
    assert report.failed == {"case0003": "WorkerDied: 3 processes died working on this cell"}
    assert sorted(report.finished + report.elsewhere) == ["case0000", "case0001", "case0002", "case0004"]
    times = Counter(noted(log))
    assert (times["case0001"], times["case0003"]) == (2, 3)
    store = RunFolder(tmp_path / "run")
    assert store.read("case0000").attrs["threads"] == 1
    assert {(0, 2, 2, 0.25), (2, 2, 2, 0.25)} <= set(heard)
    assert {told[:3] for told in heard if told[2] == 1} == {(index, 1, 1) for index in range(5)}
    assert list((store.path / "claims").iterdir()) == []


def test_terminated_it_leaves_at_once_with_its_processes(tmp_path, log):
    program = start_program(tmp_path / "run", log, 4, seconds=600)
    wait_until(lambda: len(noted(log)) == 2)
    store = RunFolder(tmp_path / "run")
    workers = {claims.owner(store.claim_path(digest)).pid for digest in noted(log)}
    began = time.monotonic()
    program.send_signal(signal.SIGTERM)
    _, errors = program.communicate(timeout=30)
    assert program.returncode == 143, errors
    assert time.monotonic() - began < 5
    assert errors == ""
    assert len(workers) == 2
    assert all(claims._born(pid) is None for pid in workers)
    assert list((store.path / "claims").iterdir()) == []


def kill_and_restart(tmp_path, log, rounds, count, seconds, workers):
    """Kill a sweep at random moments, looking each time that nothing finished is begun again; then let it finish."""
    store = RunFolder(tmp_path / "run")
    rng = random.Random(0)
    finished_before, interrupted = set(), 0
    for _ in range(rounds):
        already = len(noted(log))
        program = start_program(store.path, log, count, workers, seconds)
        wait_until(lambda already=already: len(noted(log)) > already)
        time.sleep(rng.uniform(0, 12 * seconds))
        program.kill()
        program.communicate()
        interrupted += workers
        assert finished_before.isdisjoint(noted(log)[already:])
        finished_before = set(store.done())
    already = len(noted(log))
    finished, already_done, elsewhere = end_program(start_program(store.path, log, count, workers, seconds))
    assert finished_before.isdisjoint(noted(log)[already:])
    assert already_done + finished + elsewhere == count
    assert already_done >= len(finished_before)
    assert count <= len(noted(log)) <= count + interrupted
    assert_complete(store.path, count)


def test_killed_at_a_random_moment_it_goes_on(tmp_path, log):
    kill_and_restart(tmp_path, log, rounds=1, count=12, seconds=0.05, workers=1)


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_goes_on(tmp_path, log):
    kill_and_restart(tmp_path, log, rounds=10, count=150, seconds=0.05, workers=2)


@pytest.mark.slow
def test_workers_killed_at_random_moments_cost_nothing_that_is_finished(tmp_path, log):
    store = RunFolder(tmp_path / "run")
    rng = random.Random(1)
    program = start_program(store.path, log, 40, seconds=0.1)
    for _ in range(4):
        already = len(noted(log))
        # Past the cells that were interrupted before: three deaths would make one a failure.
        wait_until(lambda already=already: len(noted(log)) > already + 4)
        time.sleep(rng.uniform(0, 0.2))
        owners = filter(None, (claims.owner(path) for path in (store.path / "claims").iterdir()))
        victims = [owner.pid for owner in owners if claims._born(owner.pid) == owner.born]
        if victims:
            os.kill(rng.choice(victims), signal.SIGKILL)
    finished, _, elsewhere = end_program(program)
    assert finished + elsewhere == 40
    assert 40 <= len(noted(log)) <= 40 + 4 * 2
    assert_complete(store.path, 40)


@pytest.mark.slow
def test_two_programs_at_once_do_every_cell_once(tmp_path, log):
    programs = [start_program(tmp_path / "run", log, 60, seconds=0.05) for _ in range(2)]
    counts = [end_program(program) for program in programs]
    assert Counter(noted(log)) == Counter(case.digest for case in cases(60))
    assert sum(finished for finished, _, _ in counts) == 60
    assert all(sum(count) == 60 for count in counts)
    assert_complete(tmp_path / "run", 60)


# On a Dask cluster


@pytest.fixture
def cluster(tmp_path):
    """A client of a real scheduler with two real worker processes on loopback, and these processes."""
    distributed = pytest.importorskip("distributed")
    address_file = tmp_path / "scheduler.json"
    log_file = (tmp_path / "dask.log").open("w")

    def start(*arguments):
        command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
        return subprocess.Popen(
            command, env=script_environment(), cwd=tmp_path, stdout=log_file, stderr=subprocess.STDOUT
        )

    loopback = ("--host", "127.0.0.1")
    started = [
        start("dask_scheduler", *loopback, "--port", "0", "--no-dashboard", "--scheduler-file", str(address_file))
    ]
    wait_until(address_file.exists)
    worker = ("dask_worker", "--scheduler-file", str(address_file), *loopback, "--nthreads", "1", "--no-dashboard")
    started += [start(*worker, "--no-nanny", "--name", str(number)) for number in range(2)]
    client = distributed.Client(scheduler_file=str(address_file), set_as_default=False)
    try:
        client.wait_for_workers(2, timeout=60)
        yield client, started[1:]
    finally:
        client.close()
        for process in started:
            process.kill()
            process.wait()
        log_file.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_that_loses_a_worker_gives_the_same_bits(tmp_path, log, cluster):
    client, workers = cluster
    some = cases(24, log=log, seconds=0.1)
    killed = threading.Thread(
        target=lambda: (wait_until(lambda: len(noted(log)) > 6), workers[0].send_signal(signal.SIGKILL))
    )
    killed.start()
    report = run_sweep(work, some, tmp_path / "dask", executor=client.get_executor())
    killed.join()
    assert workers[0].wait(timeout=5) == -signal.SIGKILL
    assert len(report.finished) + len(report.elsewhere) == 24
    assert report.failed == {}
    assert 24 <= len(noted(log)) <= 25
    assert_complete(tmp_path / "dask", 24)
    run_sweep(work, cases(24), tmp_path / "local", workers=2)
    for case in some:
        on_dask, here = (RunFolder(tmp_path / name).read(case.digest) for name in ("dask", "local"))
        assert on_dask.identical(here)
