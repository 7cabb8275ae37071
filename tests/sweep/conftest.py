"""What the tests of sweeps share."""

import pytest


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "log")
