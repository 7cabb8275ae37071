"""What the tests of the page share."""

import shutil

import pytest
import yaml
from explore_cases import SWEEP

from rankscope.experiments.user_sweep import SweepFile, cells_of
from rankscope.sweep import RunFolder


@pytest.fixture(scope="session")
def measured_cells():
    """Four networks and what was measured of them, by digest."""
    cells = cells_of(SweepFile(**yaml.safe_load(SWEEP)))
    return {cell.digest: (cell, cell.measure(lambda *_: None)) for cell in cells}


@pytest.fixture(scope="session")
def _finished(measured_cells, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("explore") / "run")
    run.prepare([(digest, cell.describe()) for digest, (cell, _) in measured_cells.items()], {"sweep": SWEEP})
    for digest, (_, measured) in measured_cells.items():
        run.save(digest, measured)
    return run.path


@pytest.fixture
def finished_run(_finished, tmp_path):
    """The folder of a finished run of four networks, to do with as one likes."""
    return shutil.copytree(_finished, tmp_path / "run")
