from __future__ import annotations

import threading

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

import rankscope as rs
from rankscope.linalg.threads import threads_for


def counts():
    return [torch.get_num_threads(), *(library["num_threads"] for library in threadpool_info())]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2):
        yield
    torch.set_num_threads(before)


def test_small_matrices_get_one_thread_and_the_counts_come_back(two_threads):
    before = counts()
    with threads_for(256):
        assert set(counts()) == {1}
        with threads_for(256):
            pass
        assert set(counts()) == {1}
    assert counts() == before


def test_large_matrices_keep_their_threads(two_threads):
    before = counts()
    with threads_for(2048):
        assert counts() == before


def test_counts_come_back_after_an_error(two_threads):
    before = counts()
    with pytest.raises(ZeroDivisionError), threads_for(8):
        _ = 1 / 0
    assert counts() == before


def test_python_threads_side_by_side_restore_their_own(two_threads):
    found = []

    def other():
        torch.set_num_threads(2)
        with threads_for(8):
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())

    before = counts()
    with threads_for(8):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [1, 2]
    assert counts() == before


def test_training_and_measuring_are_single_threaded_and_leave_no_trace(two_threads):
    before = counts()
    seen = []
    task = rs.tasks.FlipFlop()
    network = rs.RateRNN.initialize(task, hidden_size=16, rng=0)
    start = network.snapshot()
    rs.train(network, task, epochs=2, rng=0, progress=lambda *_: seen.append(counts()))
    rs.truncation_curve(start, network, task.sample(4, rng=0), ranks=[0, 1])
    assert all(set(threads) == {1} for threads in seen)
    assert counts() == before
