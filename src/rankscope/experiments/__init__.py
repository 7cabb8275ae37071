"""The paper's experiments and ours, as data: jobs, claims, a figure. One file each, listed in `EXPERIMENTS`."""

from rankscope.experiments.alignment import ALIGNMENT
from rankscope.experiments.base import Experiment as Experiment
from rankscope.experiments.cosine import COSINE
from rankscope.experiments.demo import DEMO
from rankscope.experiments.demo import demo_jobs as demo_jobs
from rankscope.experiments.divergence import DIVERGENCE
from rankscope.experiments.gain import GAIN
from rankscope.experiments.linear import LINEAR
from rankscope.experiments.linear_gain import LINEAR_GAIN
from rankscope.experiments.linear_log import LINEAR_LOG
from rankscope.experiments.needed import NEEDED
from rankscope.experiments.neurogym import NEUROGYM
from rankscope.experiments.populations import POPULATIONS
from rankscope.experiments.regimes import REGIMES
from rankscope.experiments.rounding import ROUNDING
from rankscope.experiments.sentiment import SENTIMENT
from rankscope.experiments.size import SIZE
from rankscope.experiments.spectra import SPECTRA
from rankscope.experiments.tasks import TASKS

#: The named experiments.
EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        TASKS,
        GAIN,
        ROUNDING,
        SPECTRA,
        ALIGNMENT,
        REGIMES,
        SIZE,
        LINEAR,
        LINEAR_GAIN,
        LINEAR_LOG,
        DIVERGENCE,
        COSINE,
        SENTIMENT,
        NEEDED,
        NEUROGYM,
        POPULATIONS,
        DEMO,
    )
}
