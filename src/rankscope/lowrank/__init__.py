"""Low-rank structure of what learning changed: truncation, functional rank, shuffling, spectra."""

from rankscope.lowrank.change import Change as Change
from rankscope.lowrank.change import variance_explained as variance_explained
from rankscope.lowrank.curve import TruncationCurve as TruncationCurve
from rankscope.lowrank.curve import functional_rank as functional_rank
from rankscope.lowrank.matrices import change as change
from rankscope.lowrank.matrices import changes as changes
from rankscope.lowrank.resampling import Populations as Populations
from rankscope.lowrank.resampling import populations as populations
from rankscope.lowrank.shuffle import shuffled_loss as shuffled_loss
from rankscope.lowrank.spectra import eigenvalues as eigenvalues
from rankscope.lowrank.spectra import spectra as spectra
from rankscope.lowrank.truncation import FoundRank as FoundRank
from rankscope.lowrank.truncation import find_functional_rank as find_functional_rank
from rankscope.lowrank.truncation import truncation_curve as truncation_curve
