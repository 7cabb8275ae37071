"""Sweeps on a Dask cluster: a real scheduler and two real worker processes on loopback."""

import importlib
import os
import signal
import threading

import pytest
from sweep_cases import assert_complete, cases, noted, wait_until, work

from forking import Program
from rankscope.sweep import RunFolder, run_sweep


def dask(command, folder, *arguments):
    """`dask scheduler` or `dask worker`, which leave things where they run."""
    os.chdir(folder)
    importlib.import_module(f"distributed.cli.dask_{command}").main(arguments, standalone_mode=False)


@pytest.fixture
def cluster(tmp_path):
    """A client of a real scheduler with two real worker processes on loopback, and these processes."""
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
@pytest.mark.usefixtures("forked_workers")
def test_a_dask_cluster_that_loses_a_worker_gives_the_same_bits(tmp_path, log, cluster):
    client, workers = cluster
    some = cases(24, log=log, seconds=0.1)
    killed = threading.Thread(
        target=lambda: (wait_until(lambda: len(noted(log)) > 6), workers[0].send_signal(signal.SIGKILL))
    )
    killed.start()
    report = run_sweep(work, some, tmp_path / "dask", executor=client.get_executor())
    killed.join()
    workers[0].communicate()
    assert workers[0].returncode == -signal.SIGKILL
    assert len(report.finished) + len(report.elsewhere) == 24
    assert report.failed == {}
    assert 24 <= len(noted(log)) <= 25
    assert_complete(tmp_path / "dask", 24)
    run_sweep(work, cases(24), tmp_path / "local", workers=2)
    for case in some:
        on_dask, here = (RunFolder(tmp_path / name).read(case.digest) for name in ("dask", "local"))
        assert on_dask.identical(here)
