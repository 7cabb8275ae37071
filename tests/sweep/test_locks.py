"""Claims: one holder at a time, the dead give way, the living do not."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from forking import SERVER
from rankscope.sweep import locks


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cell"


def write_claim(path, host=None, pid=None, born=None, age=0.0):
    host = locks.this_host() if host is None else host
    values = {"host": host, "pid": pid or os.getpid(), "born": born or locks._born(os.getpid()), "token": "theirs"}
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


def test_a_living_claim_of_another_host_stands(path):
    write_claim(path, host="elsewhere", pid=1, age=locks.STALE_AFTER / 2)
    assert locks.is_held(path)
    assert locks.acquire(path) is None


def test_a_claim_without_a_heartbeat_is_taken_over(path):
    write_claim(path, host="elsewhere", pid=1, age=locks.STALE_AFTER + 5)
    assert not locks.is_held(path)
    with locks.acquire(path) as claim:
        assert locks.owner(path) == claim.owner


def test_a_claim_of_a_dead_process_of_this_host_is_taken_over_at_once(path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_claim(path, pid=dead.pid)
    with locks.acquire(path) as claim:
        assert claim is not None


def test_a_zombie_and_a_successor_in_number_are_dead(path):
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    while locks._born(zombie.pid) is not None:
        time.sleep(0.01)
    os.kill(zombie.pid, 0)  # The number is in use still.
    write_claim(path, pid=zombie.pid, born="1")
    assert not locks.is_held(path)
    zombie.wait()
    write_claim(path, pid=os.getpid(), born="1")
    assert not locks.is_held(path)


def test_an_unreadable_claim_lives_until_it_is_old(path):
    path.touch()
    assert locks.acquire(path) is None
    os.utime(path, (1, 1))
    with locks.acquire(path) as claim:
        assert claim is not None


def test_the_heart_beats(path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_EVERY", 0.02)
    monkeypatch.setattr(locks, "_heart", None)
    with locks.acquire(path):
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 60
        while not locks.is_held(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert locks.is_held(path)


def test_who_lost_a_claim_leaves_the_new_one_alone(path):
    claim = locks.acquire(path)
    path.unlink()
    write_claim(path, host="elsewhere", pid=1, age=10)
    before = path.stat().st_mtime
    claim.touch()
    claim.release()
    assert locks.owner(path).host == "elsewhere"
    assert path.stat().st_mtime == before


def test_age_is_read_off_the_file_systems_clock(path, monkeypatch):
    write_claim(path, host="elsewhere", pid=1)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert locks.is_held(path)


def test_dead_claims_are_removed_and_living_ones_stay(tmp_path):
    write_claim(tmp_path / "dead", host="elsewhere", pid=1, age=1000)
    write_claim(tmp_path / "dead.burial", host="elsewhere", pid=1, age=1000)
    write_claim(tmp_path / "alive", host="elsewhere", pid=1)
    locks.remove_dead(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["alive"]


def test_many_threads_at_a_dead_claim_have_one_winner(path):
    for _ in range(20):
        write_claim(path, host="elsewhere", pid=1, age=1000)
        together = threading.Barrier(8)
        won = []

        def try_it(together=together, won=won):
            together.wait()
            claim = locks.acquire(path)
            if claim is not None:
                won.append(claim)

        threads = [threading.Thread(target=try_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # All may see the burial under way and leave it for later, but never do two win.
        assert len(won) <= 1
        for claim in won:
            claim.release()
        path.unlink(missing_ok=True)


def race(folder, rounds, begin, wins):
    for number in range(rounds):
        begin.wait()
        claim = None
        deadline = time.monotonic() + 60
        while claim is None and time.monotonic() < deadline:
            claim = locks.acquire(folder / str(number))
            if claim is None and locks.is_held(folder / str(number)):
                break
        if claim is not None:
            wins.put(number)
    begin.wait()  # the claims of one that has ended are free for who comes late


@pytest.mark.slow
def test_many_processes_at_dead_claims_have_one_winner_each(tmp_path):
    rounds, racers = 40, 4
    for number in range(rounds):
        write_claim(tmp_path / str(number), host="elsewhere", pid=1, age=1000)
    begin, wins = SERVER.Barrier(racers), SERVER.Queue()
    processes = [SERVER.Process(target=race, args=(tmp_path, rounds, begin, wins)) for _ in range(racers)]
    for process in processes:
        process.start()
    won = [wins.get(timeout=180) for _ in range(rounds)]
    for process in processes:
        process.join()
    assert sorted(won) == list(range(rounds))
    assert wins.empty()
