"""Measurements of what learning wrote into a network."""

from rankscope.analysis.change import Change as Change
from rankscope.analysis.change import change as change
from rankscope.analysis.change import functional_rank as functional_rank
from rankscope.analysis.change import shuffled_loss as shuffled_loss
from rankscope.analysis.change import truncation_losses as truncation_losses
from rankscope.analysis.change import variance_explained as variance_explained
from rankscope.analysis.convergence import convergence_epoch as convergence_epoch
from rankscope.analysis.joint_truncation import truncated_together as truncated_together
from rankscope.analysis.spectrum import eigenvalues as eigenvalues
from rankscope.analysis.spectrum import spectra as spectra
