"""The result of a comparison: one object a matrix, as a table, a CSV file or plain mappings."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.checkpoints.pairs import Skipped
from rankscope.checkpoints.table import write_rows
from rankscope.lowrank.noise_edges import FRACTIONS, Measures

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ComparedMatrix:
    """Measures of the change of one matrix, or of a block of it."""

    name: str  # key of the tensor; for a block, with the block in brackets
    tensor: str
    block: str | None  # gate or head; None for the whole matrix
    shape: tuple[int, ...]  # as stored; a convolution is measured as the matrix (out, in k k)
    dtype: str  # as stored, after learning
    initial_norm: float | None  # |W0|; None where there is no W0
    relative_norm: float | None  # |dW| / |W0|; None where there is no W0, or it is zero
    measures: Measures

    def row(self) -> dict[str, Any]:
        """Return everything as one flat mapping."""
        own = {key: value for key, value in vars(self).items() if key != "measures"}
        return own | asdict(self.measures)


@dataclass(frozen=True)
class Comparison:
    """Measured matrices and skipped tensors, in the order of the checkpoint; how names were matched, if not exactly."""

    matrices: tuple[ComparedMatrix, ...]
    skipped: tuple[Skipped, ...]
    note: str | None = None

    def write_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write one row for each matrix; bounds are two columns, and ten leading singular values s1, s2, ..."""
        return write_rows(path, [matrix.row() for matrix in self.matrices])

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row for each matrix, indexed by name; skipped tensors are in `attrs["skipped"]`."""
        import pandas as pd

        columns = ["name", *ROW]
        frame = pd.DataFrame([matrix.row() for matrix in self.matrices], columns=columns).set_index("name")
        # A nullable type keeps the known ranks whole numbers beside an unknown one.
        frame = frame.astype(dict.fromkeys(WHOLE, "Int64") | dict.fromkeys(MAYBE, float))
        frame.attrs["skipped"] = [one._asdict() for one in self.skipped]
        frame.attrs["note"] = self.note
        return frame


ROW = ("tensor", "block", "shape", "dtype", "initial_norm", "relative_norm", *Measures.__dataclass_fields__)
RANKS = tuple(f"{which}rank_{share}" for which in ("", "rest_") for share in FRACTIONS)
WHOLE = (*RANKS, "numerical_rank", "above_random_edge", "standing_out", "visible", "intruders")
MAYBE = (
    *("initial_norm", "relative_norm", "noise_edge", "initial_cosine", "scaling", "rest_norm", "initial_edge"),
    "intruder_share",
)
"""Numbers that not every matrix has."""
