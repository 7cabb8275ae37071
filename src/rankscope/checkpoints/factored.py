"""A matrix given as the product of two factors, and the file of our own that holds such matrices.

The file is a safetensors file with the tensors `NAME.A` (r, columns) and `NAME.B` (rows, r) for each weight, and in its
metadata the shapes of the weights as they are stored. A matrix of a stack of experts is `NAME[expert 3].A`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from rankscope.io.tensor_file import write_tensors

OWN_FILE = "rankscope_factors.safetensors"
FORMAT = "rankscope factors 1"
EXPERT = re.compile(r"(?P<name>.+)\[expert (?P<expert>\d{1,6})\]")


class FactoredMatrix(NamedTuple):
    """dW = B A of one matrix: B (rows, r), A (r, columns), both float32."""

    name: str  # key of the tensor
    module_name: str  # its name in the model: the longer one, where those in the two checkpoints differ
    expert: int | None  # number of the matrix in a stack
    shape: tuple[int, ...]  # of the tensor as stored
    A: Tensor
    B: Tensor
    share: float  # |B A|^2 / |dW|^2 of the change that was truncated

    @property
    def label(self) -> str:
        """The key, with the number of the expert."""
        return self.name if self.expert is None else f"{self.name}[expert {self.expert}]"

    @property
    def rank(self) -> int:
        """Number of columns of B."""
        return self.A.shape[0]


def write_factors(path: Path, matrices: Iterable[FactoredMatrix]) -> None:
    """Write matrices to a file of our own.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    """
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for one in matrices:
        tensors |= {f"{one.label}.A": one.A, f"{one.label}.B": one.B}
        shapes[one.name] = list(one.shape)
    write_tensors(path, tensors, {"format": FORMAT, "shapes": json.dumps(shapes)})
