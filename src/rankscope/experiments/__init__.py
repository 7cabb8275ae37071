"""What to train and measure."""

from rankscope.experiments.cell import Cell as Cell
from rankscope.experiments.cell import Outcome as Outcome
from rankscope.experiments.cell import run as run
from rankscope.experiments.cell import store as store
from rankscope.experiments.demo import demo_cells as demo_cells
from rankscope.experiments.demo import run_demo as run_demo
