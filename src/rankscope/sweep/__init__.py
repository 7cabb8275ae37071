"""Running many independent pieces of work, and keeping what comes of them."""

from rankscope.sweep.job import Done as Done
from rankscope.sweep.job import Job as Job
from rankscope.sweep.processes import run_side_by_side as run_side_by_side
from rankscope.sweep.results import open_run as open_run
from rankscope.sweep.runner import SweepReport as SweepReport
from rankscope.sweep.runner import run_sweep as run_sweep
from rankscope.sweep.store import RunFolder as RunFolder
