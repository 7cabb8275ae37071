"""Runs in processes that are killed or terminated at any moment, and on a Dask cluster."""

import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sweep_cases
from sweep_cases import EPOCHS, assert_complete, batches, job, jobs, networks_of, wait_until

from forking import Program
from rankscope.sweep import RunFolder, locks, run
from rankscope.sweep.leftovers import remove_leftovers


def start_forked(folder, log, count, workers=2, seconds=0.01):
    return Program(Path(log).parent, sweep_cases.main, folder, log, count, workers, seconds)


def start_fresh(folder, log, count, workers=2, seconds=0.01):
    """As users do: a fresh interpreter, and fresh ones for the workers. That takes seconds."""
    paths = [str(sweep_cases.HERE), str(sweep_cases.HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")]
    code = "import sys, sweep_cases; sweep_cases.main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, *map(str, (folder, log, count, workers, seconds))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(program):
    output, errors = program.communicate(timeout=180)
    assert program.returncode == 0, errors
    return tuple(map(int, output.split()))


def worker_pids(store):
    owners = [locks.owner(path) for path in (store.path / "locks").iterdir()]
    return {owner.pid for owner in owners if owner is not None and locks.is_running(owner)}


@pytest.mark.usefixtures("forked_workers")
def test_a_dead_worker_is_replaced_and_a_deadly_job_fails(tmp_path, log):
    some = [job(0, log), job(1, log, fate="die once"), job(2, log), job(3, f"{log}.other", fate="die")]
    told = []
    result = run(some, tmp_path / "run", workers=2, on_progress=lambda *report: told.append(report))
    assert result.failed == {some[3].digest: "WorkerDied: 3 processes died working on this job"}
    assert {*result.finished, *result.elsewhere} == {one.digest for one in some[:3]}
    assert len(batches(f"{log}.other")) == 3
    assert {report[0] for report in told if report[1:3] == (1, 1)} == {0, 1, 2, 3}
    assert any(report[1:3] == (EPOCHS, EPOCHS) for report in told)
    assert list((tmp_path / "run" / "locks").iterdir()) == []


def test_terminated_it_ends_at_once_with_its_worker(tmp_path, log):
    program = start_fresh(tmp_path / "run", log, 2, workers=1, seconds=600)
    wait_until(lambda: len(batches(log)) == 1)
    store = RunFolder(tmp_path / "run")
    owners = [locks.owner(path) for path in (store.path / "locks").iterdir()]
    assert len(owners) == 1
    program.send_signal(signal.SIGTERM)
    _, errors = program.communicate(timeout=180)
    assert (program.returncode, errors) == (143, "")
    wait_until(lambda: not any(map(locks.is_running, owners)))
    remove_leftovers(store)
    assert list((store.path / "locks").iterdir()) == []


def kill_and_restart(tmp_path, log, rounds, count, seconds):
    """Kill a run at random moments; nothing finished is done again, and the final result is that of no kill."""
    store, rng = RunFolder(tmp_path / "run"), random.Random(0)
    finished = {}
    for _ in range(rounds):
        already = len(batches(log))
        program = start_forked(store.path, log, count, 2, seconds)
        wait_until(lambda already=already: len(batches(log)) > already)
        time.sleep(rng.uniform(0, 30 * seconds))
        program.kill()
        program.communicate()
        now = networks_of(store.path)
        assert finished.items() <= now.items()
        finished = now
    counts = end(start_forked(store.path, log, count, 2, seconds))
    assert sum(counts) == count
    assert counts[1] >= len(finished)
    # A killed worker loses the epochs since its last state file: those of one job.
    assert count * EPOCHS <= len(batches(log)) <= (count + 2 * rounds) * EPOCHS
    assert_complete(store.path, jobs(count, log=log, seconds=seconds))


def test_killed_at_four_random_moments_it_continues(tmp_path, log):
    kill_and_restart(tmp_path, log, rounds=4, count=24, seconds=0.01)


@pytest.mark.slow
def test_workers_killed_at_random_moments_lose_nothing_finished(tmp_path, log):
    store, rng = RunFolder(tmp_path / "run"), random.Random(1)
    program = start_forked(store.path, log, 16, seconds=0.04)
    for _ in range(2):
        already = len(batches(log))
        # Beyond the jobs that were interrupted before: three deaths would make one a failure.
        wait_until(lambda already=already: len(batches(log)) > already + 5 * EPOCHS)
        victims = worker_pids(store)
        if victims:
            os.kill(rng.choice(sorted(victims)), signal.SIGKILL)
    finished, _, elsewhere = end(program)
    assert finished + elsewhere == 16
    assert_complete(store.path, jobs(16, log=log, seconds=0.04))


@pytest.mark.slow
def test_two_programs_do_every_job_once(tmp_path, log):
    programs = [start_forked(tmp_path / "run", log, 16, seconds=0.02) for _ in range(2)]
    counts = [end(program) for program in programs]
    assert len(batches(log)) == 16 * EPOCHS
    assert sum(finished for finished, _, _ in counts) == 16
    assert all(sum(count) == 16 for count in counts)
    assert_complete(tmp_path / "run", jobs(16, log=log, seconds=0.02))


def dask(command, folder, *arguments):
    """`dask scheduler` or `dask worker`, which leave files in the current folder."""
    os.chdir(folder)
    importlib.import_module(f"distributed.cli.dask_{command}").main(arguments, standalone_mode=False)


@pytest.fixture
def cluster(tmp_path):
    """A client of a real scheduler with two worker processes on loopback, and these processes."""
    distributed = pytest.importorskip("distributed")
    address_file = tmp_path / "scheduler.json"

    def start(command, *arguments):
        common = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(address_file))
        return Program(tmp_path, dask, command, tmp_path, *common, *arguments)

    started = [start("scheduler", "--port", "0")]
    try:
        wait_until(address_file.exists)
        started += [start("worker", "--nthreads", "1", "--no-nanny", "--name", str(number)) for number in range(2)]
        with distributed.Client(scheduler_file=str(address_file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            yield client, started[1:]
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_that_loses_a_worker_gives_the_same_bits(tmp_path, log, cluster):
    client, workers = cluster
    some = jobs(16, log=log, seconds=0.03)

    def kill_one():
        wait_until(lambda: len(batches(log)) > 6 * EPOCHS)
        workers[0].send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    result = run(some, tmp_path / "dask", executor=client.get_executor())
    killer.join()
    workers[0].communicate()
    assert workers[0].returncode == -signal.SIGKILL
    assert len(result.finished) + len(result.elsewhere) == 16
    assert result.failed == {}
    assert_complete(tmp_path / "dask", some)
