"""What the tests of the explorer share."""

import shutil

import pytest
from explore_cases import SWEEP

from rankscope.sweep import RunFolder, Sweep


@pytest.fixture(scope="session")
def finished_jobs(tmp_path_factory):
    """Four finished jobs by digest."""
    path = tmp_path_factory.mktemp("sweep") / "sweep.yaml"
    path.write_text(SWEEP)
    return {job.digest: job.run() for job in Sweep.from_yaml(path).jobs()}


@pytest.fixture(scope="session")
def _finished(finished_jobs, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("explore") / "run")
    run.prepare([done.job for done in finished_jobs.values()], {"sweep": SWEEP})
    for done in finished_jobs.values():
        run.save(done)
    return run.path


@pytest.fixture
def finished_run(_finished, tmp_path):
    """A copy of the folder of a finished run of four networks."""
    return shutil.copytree(_finished, tmp_path / "run")
