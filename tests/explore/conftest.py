"""What the tests of the page share."""

import shutil

import pytest
import yaml
from explore_cases import SWEEP

from rankscope.experiments.running import described, stamped
from rankscope.experiments.user_sweep import SweepFile, jobs_of
from rankscope.sweep import RunFolder


@pytest.fixture(scope="session")
def measured_cells():
    """Digest -> job and measurements of four networks."""
    jobs = jobs_of(SweepFile(**yaml.safe_load(SWEEP)))
    return {job.digest: (job, stamped(job.run())) for job in jobs}


@pytest.fixture(scope="session")
def _finished(measured_cells, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("explore") / "run")
    run.prepare([(digest, described(job)) for digest, (job, _) in measured_cells.items()], {"sweep": SWEEP})
    for digest, (_, measured) in measured_cells.items():
        run.save(digest, measured)
    return run.path


@pytest.fixture
def finished_run(_finished, tmp_path):
    """The folder of a finished run of four networks, of the test alone."""
    return shutil.copytree(_finished, tmp_path / "run")
