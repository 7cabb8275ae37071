"""Fixtures of the explorer's tests: four finished jobs, and the folder of their run."""

import shutil

import pytest
from explore_cases import jobs

from forking import forked
from rankscope.explore import networks
from rankscope.sweep import RunFolder


@pytest.fixture(scope="session", autouse=True)
def _forked_trainings():
    with forked(networks):
        yield


@pytest.fixture(scope="session")
def finished_jobs():
    """Four finished jobs by digest."""
    return {job.digest: job.run() for job in jobs()}


@pytest.fixture(scope="session")
def _finished(finished_jobs, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("explore") / "run")
    run.prepare(jobs(), {"sweep": "a sweep"})
    for done in finished_jobs.values():
        run.save(done)
    return run.path


@pytest.fixture
def finished_run(_finished, tmp_path):
    """A copy of the folder of a finished run of four networks."""
    return shutil.copytree(_finished, tmp_path / "run")
