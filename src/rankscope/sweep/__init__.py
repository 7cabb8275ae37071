"""Jobs, and runs of many jobs: described, executed, stored and read as one labelled Dataset."""

from rankscope.sweep.export import export_run as export_run
from rankscope.sweep.job import Done as Done
from rankscope.sweep.job import Job as Job
from rankscope.sweep.processes import run_side_by_side as run_side_by_side
from rankscope.sweep.results import open_run as open_run
from rankscope.sweep.runner import RunResult as RunResult
from rankscope.sweep.runner import measure_run as measure_run
from rankscope.sweep.runner import run as run
from rankscope.sweep.runner import run_into as run_into
from rankscope.sweep.selection import load_networks as load_networks
from rankscope.sweep.store import RunFolder as RunFolder
from rankscope.sweep.sweep_file import Sweep as Sweep
from rankscope.sweep.sweep_file import job_from_options as job_from_options
from rankscope.sweep.sweep_file import seed_of as seed_of
from rankscope.sweep.weights_export import export_weights as export_weights
