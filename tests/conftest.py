"""What every room's tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Path]:
    """The path of a file of reference data; the test is skipped where the data is not beside the checkout."""

    def find(name: str) -> Path:
        path = REFERENCE / name
        if not path.exists():
            pytest.skip(f"no reference data at {path}")
        return path

    return find
