"""What the tests of the report share: a real run of small networks, and its page."""

import sys
from pathlib import Path

import pytest
from report_cases import HOSTILE, small_jobs, store

from rankscope.report import write

# The made-up runs of all experiments are those of the figures.
sys.path.append(str(Path(__file__).parents[1] / "figures"))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A run folder: seven of eight jobs finished, one failed with a hostile message."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    jobs = small_jobs()
    run = store(folder, jobs, {"sweep": f"task: flipflop  # {HOSTILE}\n"}, skip=1)
    run.fail(jobs[-1].digest, "RuntimeError", f"no luck {HOSTILE}")
    return folder


@pytest.fixture(scope="session")
def small_page(small_run, tmp_path_factory):
    """The address of its page."""
    return write(small_run, tmp_path_factory.mktemp("pages") / "report.html").as_uri()
