"""Locks: one holder at a time; those of dead processes are taken over, those of living ones are not."""

import json
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from forking import SERVER
from rankscope.sweep import locks


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cell"


def write_lock(path, host=None, pid=None, started=None, age=0.0):
    host = locks.this_host() if host is None else host
    started = psutil.Process().create_time() if started is None else started
    values = {"host": host, "pid": pid or os.getpid(), "started": started, "token": "theirs"}
    path.write_text(json.dumps(values))
    then = time.time() - age
    os.utime(path, (then, then))


def test_one_holder_at_a_time(path):
    with locks.acquire(path) as first:
        assert first.owner == locks.owner(path)
        assert locks.is_held(path)
        assert locks.acquire(path) is None
    assert not path.exists()
    assert not locks.is_held(path)
    with locks.acquire(path) as again:
        assert again is not None


def test_a_living_lock_of_another_host_stands(path):
    write_lock(path, host="elsewhere", pid=1, age=locks.STALE_AFTER / 2)
    assert locks.is_held(path)
    assert locks.acquire(path) is None


def test_a_lock_that_was_not_renewed_is_taken_over(path):
    write_lock(path, host="elsewhere", pid=1, age=locks.STALE_AFTER + 5)
    assert not locks.is_held(path)
    with locks.acquire(path) as lock:
        assert locks.owner(path) == lock.owner


def test_a_lock_of_a_dead_process_of_this_host_is_taken_over_at_once(path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_lock(path, pid=dead.pid)
    with locks.acquire(path) as lock:
        assert lock is not None


def test_zombies_and_later_processes_with_the_same_number_do_not_hold_a_lock(path):
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(zombie.pid)
    while process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    write_lock(path, pid=zombie.pid, started=process.create_time())
    assert not locks.is_held(path)
    zombie.wait()
    write_lock(path, pid=os.getpid(), started=1.0)
    assert not locks.is_held(path)


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 9000, '{"host": 1, "pid": "x", "started": 1.0, "token": 2}'])
def test_an_unreadable_lock_is_valid_until_it_is_old(path, text):
    path.write_text(text)
    assert locks.owner(path) is None
    assert locks.acquire(path) is None
    os.utime(path, (1, 1))
    with locks.acquire(path) as lock:
        assert lock is not None


def test_held_locks_are_renewed(path, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_TOUCHES", 0.02)
    with locks.acquire(path) as lock:
        os.utime(path, (1, 1))
        lock.touch()
        assert locks.is_held(path)


def test_a_process_that_lost_its_lock_leaves_the_new_one_alone(path):
    lock = locks.acquire(path)
    path.unlink()
    write_lock(path, host="elsewhere", pid=1, age=10)
    before = path.stat().st_mtime
    lock.touch()
    lock.release()
    assert locks.owner(path).host == "elsewhere"
    assert path.stat().st_mtime == before


def test_ages_are_those_of_the_file_systems_clock(path, monkeypatch):
    write_lock(path, host="elsewhere", pid=1)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert locks.is_held(path)


def test_only_stale_locks_are_removed(tmp_path):
    write_lock(tmp_path / "dead", host="elsewhere", pid=1, age=1000)
    write_lock(tmp_path / "dead.removal", host="elsewhere", pid=1, age=1000)
    write_lock(tmp_path / "alive", host="elsewhere", pid=1)
    locks.remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["alive"]


def test_many_threads_at_a_dead_lock_have_one_winner(path):
    for _ in range(20):
        write_lock(path, host="elsewhere", pid=1, age=1000)
        together = threading.Barrier(8)
        won = []

        def try_it(together=together, won=won):
            together.wait()
            lock = locks.acquire(path)
            if lock is not None:
                won.append(lock)

        threads = [threading.Thread(target=try_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # All may see that one is being removed and give up, but never do two win.
        assert len(won) <= 1
        for lock in won:
            lock.release()
        path.unlink(missing_ok=True)


def race(folder, rounds, begin, wins):
    for number in range(rounds):
        begin.wait()
        lock = None
        deadline = time.monotonic() + 60
        while lock is None and time.monotonic() < deadline:
            lock = locks.acquire(folder / str(number))
            if lock is None and locks.is_held(folder / str(number)):
                break
        if lock is not None:
            wins.put(number)
    begin.wait()  # the locks of one that has ended are free for who comes late


@pytest.mark.slow
def test_many_processes_at_dead_locks_have_one_winner_each(tmp_path):
    rounds, racers = 40, 4
    for number in range(rounds):
        write_lock(tmp_path / str(number), host="elsewhere", pid=1, age=1000)
    begin, wins = SERVER.Barrier(racers), SERVER.Queue()
    processes = [SERVER.Process(target=race, args=(tmp_path, rounds, begin, wins)) for _ in range(racers)]
    for process in processes:
        process.start()
    won = [wins.get(timeout=180) for _ in range(rounds)]
    for process in processes:
        process.join()
    assert sorted(won) == list(range(rounds))
    assert wins.empty()
