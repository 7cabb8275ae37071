"""Figures of experiments: each function takes the Dataset of a run and returns a matplotlib Figure.

Missing or diverged networks are allowed. A figure raises `InputError` if the dataset is of another experiment, or its
networks differ by a label that the figure does not show. `sweep` shows any labels, `anatomy` and `flow` one network.
"""

from collections.abc import Callable

import xarray as xr
from matplotlib.figure import Figure

from rankscope.figures.alignment import alignment as alignment
from rankscope.figures.anatomy import anatomy as anatomy
from rankscope.figures.cosine import cosine as cosine
from rankscope.figures.divergence import divergence as divergence
from rankscope.figures.flow import flow as flow
from rankscope.figures.gain import gain as gain
from rankscope.figures.linear import linear as linear
from rankscope.figures.linear_gain import linear_gain as linear_gain
from rankscope.figures.linear_log import linear_log as linear_log
from rankscope.figures.needed import needed as needed
from rankscope.figures.neurogym import neurogym as neurogym
from rankscope.figures.populations import populations as populations
from rankscope.figures.regimes import regimes as regimes
from rankscope.figures.rounding import rounding as rounding
from rankscope.figures.saving import save_figure as save_figure
from rankscope.figures.sentiment import sentiment as sentiment
from rankscope.figures.size import size as size
from rankscope.figures.spectra import spectra as spectra
from rankscope.figures.sweep import sweep as sweep
from rankscope.figures.tasks import tasks as tasks

#: The figure of each experiment, by the experiment's name.
FIGURES: dict[str, Callable[[xr.Dataset], Figure]] = {
    "demo": tasks,
    "tasks": tasks,
    "gain": gain,
    "rounding": rounding,
    "spectra": spectra,
    "alignment": alignment,
    "regimes": regimes,
    "size": size,
    "linear": linear,
    "linear-gain": linear_gain,
    "linear-log": linear_log,
    "divergence": divergence,
    "cosine": cosine,
    "sentiment": sentiment,
    "needed": needed,
    "neurogym": neurogym,
    "populations": populations,
}
