"""Running many independent pieces of work."""

from rankscope.sweep.processes import run_side_by_side as run_side_by_side
