"""Sweeps on processes that are killed, or terminated, at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import sweep_cases
from sweep_cases import Case, assert_complete, cases, noted, script_environment, wait_until, work

from forking import Program
from rankscope.sweep import RunFolder, locks, run_sweep


def start_forked(folder, log, count, workers=2, seconds=0.01):
    return Program(Path(log).parent, sweep_cases.main, folder, log, count, workers, seconds)


def start_by_itself(folder, log, count, workers=2, seconds=0.01):
    """As users do: a fresh interpreter, and fresh ones for the workers. That takes seconds."""
    code = "import sys, sweep_cases; sweep_cases.main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, *map(str, (folder, log, count, workers, seconds))]
    return subprocess.Popen(
        command, env=script_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end_program(program):
    output, errors = program.communicate(timeout=180)
    assert program.returncode == 0, errors
    return tuple(map(int, output.split()))


@pytest.mark.usefixtures("forked_workers")
def test_processes_have_one_thread_each_and_report_and_a_dead_one_is_replaced(tmp_path, log):
    some = [Case(0, log), Case(1, log, fate="die once"), Case(2, log), Case(3, log, fate="die"), Case(4, log, 0.5)]
    heard = []
    report = run_sweep(work, some, tmp_path / "run", workers=2, on_progress=lambda *told: heard.append(told))
    assert report.failed == {"case0003": "WorkerDied: 3 processes died working on this cell"}
    assert sorted(report.finished + report.elsewhere) == ["case0000", "case0001", "case0002", "case0004"]
    times = Counter(noted(log))
    assert (times["case0001"], times["case0003"]) == (2, 3)
    store = RunFolder(tmp_path / "run")
    assert store.read("case0000").attrs["threads"] == 1
    # Not from every cell: a process that dies while it writes to the queue of reports silences its neighbor.
    assert any(told[1:] == (1, 2, 0.5) for told in heard)
    assert {told[:3] for told in heard if told[2] == 1} == {(index, 1, 1) for index in range(5)}
    assert list((store.path / "claims").iterdir()) == []


def test_terminated_it_leaves_at_once_with_its_processes(tmp_path, log):
    program = start_by_itself(tmp_path / "run", log, 4, seconds=600)
    wait_until(lambda: len(noted(log)) == 2)
    store = RunFolder(tmp_path / "run")
    workers = {locks.owner(store.claim_path(digest)).pid for digest in noted(log)}
    began = time.monotonic()
    program.send_signal(signal.SIGTERM)
    _, errors = program.communicate(timeout=180)
    assert program.returncode == 143, errors
    assert time.monotonic() - began < 60  # its cells take ten minutes
    assert errors == ""
    assert len(workers) == 2
    assert all(locks._born(pid) is None for pid in workers)
    assert list((store.path / "claims").iterdir()) == []


def kill_and_restart(start, tmp_path, log, rounds, count, seconds, workers):
    """Kill a sweep at random moments, looking each time that nothing finished is begun again; then let it finish."""
    store = RunFolder(tmp_path / "run")
    rng = random.Random(0)
    finished_before, interrupted = set(), 0
    for _ in range(rounds):
        already = len(noted(log))
        program = start(store.path, log, count, workers, seconds)
        wait_until(lambda already=already: len(noted(log)) > already)
        time.sleep(rng.uniform(0, 12 * seconds))
        program.kill()
        program.communicate()
        interrupted += workers
        assert finished_before.isdisjoint(noted(log)[already:])
        finished_before = set(store.done())
    already = len(noted(log))
    finished, already_done, elsewhere = end_program(start(store.path, log, count, workers, seconds))
    assert finished_before.isdisjoint(noted(log)[already:])
    assert already_done + finished + elsewhere == count
    assert already_done >= len(finished_before)
    assert count <= len(noted(log)) <= count + interrupted
    assert_complete(store.path, count)


def test_killed_at_a_random_moment_it_goes_on(tmp_path, log):
    kill_and_restart(start_by_itself, tmp_path, log, rounds=1, count=12, seconds=0.05, workers=1)


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_goes_on(tmp_path, log):
    kill_and_restart(start_forked, tmp_path, log, rounds=10, count=150, seconds=0.02, workers=2)


@pytest.mark.slow
def test_workers_killed_at_random_moments_cost_nothing_that_is_finished(tmp_path, log):
    store = RunFolder(tmp_path / "run")
    rng = random.Random(1)
    program = start_forked(store.path, log, 40, seconds=0.1)
    for _ in range(4):
        already = len(noted(log))
        # Past the cells that were interrupted before: three deaths would make one a failure.
        wait_until(lambda already=already: len(noted(log)) > already + 4)
        time.sleep(rng.uniform(0, 0.2))
        owners = filter(None, (locks.owner(path) for path in (store.path / "claims").iterdir()))
        victims = [owner.pid for owner in owners if locks._born(owner.pid) == owner.born]
        if victims:
            os.kill(rng.choice(victims), signal.SIGKILL)
    finished, _, elsewhere = end_program(program)
    assert finished + elsewhere == 40
    assert 40 <= len(noted(log)) <= 40 + 4 * 2
    assert_complete(store.path, 40)


@pytest.mark.slow
def test_two_programs_at_once_do_every_cell_once(tmp_path, log):
    programs = [start_forked(tmp_path / "run", log, 60, seconds=0.05) for _ in range(2)]
    counts = [end_program(program) for program in programs]
    assert Counter(noted(log)) == Counter(case.digest for case in cases(60))
    assert sum(finished for finished, _, _ in counts) == 60
    assert all(sum(count) == 60 for count in counts)
    assert_complete(tmp_path / "run", 60)
