"""Work side by side: order, threads, progress, errors."""

import os

import pytest
import torch

from rankscope.errors import InputError
from rankscope.sweep.processes import available_cores, run_side_by_side


def describe(item, report):
    report(1, 2, 0.5)
    report(2, 2, 0.25)
    return item * 10, os.getpid(), torch.get_num_threads()


def fail_on_three(item, report):
    if item == 3:
        raise InputError("item must not be 3")
    return item


@pytest.mark.usefixtures("forked_workers")
def test_processes_with_one_thread_each_report_and_give_results_in_order():
    heard = []
    results = run_side_by_side(describe, [1, 2, 3], workers=2, on_progress=lambda *report: heard.append(report))
    assert [value for value, _, _ in results] == [10, 20, 30]
    assert os.getpid() not in {pid for _, pid, _ in results}
    assert {threads for _, _, threads in results} == {1}
    # Every item is heard of to its end.
    assert {(index, 2, 2, 0.25) for index in range(3)} <= set(heard)


@pytest.mark.usefixtures("forked_workers")
def test_the_first_error_is_raised_as_it_is():
    with pytest.raises(InputError, match="must not be 3"):
        run_side_by_side(fail_on_three, [1, 2, 3, 4], workers=1)


def test_workers_below_one_are_refused():
    with pytest.raises(InputError, match="workers must be a whole number >= 1, got 0"):
        run_side_by_side(describe, [1], workers=0)


def test_cores_are_counted():
    assert 1 <= available_cores() <= os.cpu_count()
