"""What to train and measure."""

from rankscope.experiments.base import AnyCell as AnyCell
from rankscope.experiments.base import Experiment as Experiment
from rankscope.experiments.cell import Cell as Cell
from rankscope.experiments.cell import Outcome as Outcome
from rankscope.experiments.cell import run as run
from rankscope.experiments.cell import store as store
from rankscope.experiments.cosine import COSINE
from rankscope.experiments.demo import demo_cells as demo_cells
from rankscope.experiments.demo import run_demo as run_demo
from rankscope.experiments.divergence import DIVERGENCE
from rankscope.experiments.gain import GAIN
from rankscope.experiments.linear import LINEAR
from rankscope.experiments.linear_gain import LINEAR_GAIN
from rankscope.experiments.linear_log import LINEAR_LOG
from rankscope.experiments.neurogym import NEUROGYM
from rankscope.experiments.neurogym_cell import NeuroGymCell as NeuroGymCell
from rankscope.experiments.running import export_run as export_run
from rankscope.experiments.running import run_cells as run_cells
from rankscope.experiments.running import seconds_for as seconds_for
from rankscope.experiments.sentiment import SENTIMENT
from rankscope.experiments.size import SIZE
from rankscope.experiments.spectra import SPECTRA
from rankscope.experiments.tasks import TASKS
from rankscope.experiments.text_cell import TextCell as TextCell
from rankscope.experiments.text_cell import state_dicts as state_dicts

#: The named experiments.
EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        TASKS,
        GAIN,
        SPECTRA,
        SIZE,
        LINEAR,
        LINEAR_GAIN,
        LINEAR_LOG,
        DIVERGENCE,
        COSINE,
        SENTIMENT,
        NEUROGYM,
    )
}
