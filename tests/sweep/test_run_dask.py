"""Sweeps on a Dask cluster: a real scheduler and two real worker processes on loopback."""

import signal
import subprocess
import sys
import threading

import pytest
from sweep_cases import assert_complete, cases, noted, script_environment, wait_until, work

from rankscope.sweep import RunFolder, run_sweep


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
