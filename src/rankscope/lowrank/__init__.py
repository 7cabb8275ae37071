"""Measurements of what learning wrote into a network."""

from rankscope.lowrank.change import Change as Change
from rankscope.lowrank.change import change as change
from rankscope.lowrank.change import functional_rank as functional_rank
from rankscope.lowrank.change import shuffled_loss as shuffled_loss
from rankscope.lowrank.change import truncation_losses as truncation_losses
from rankscope.lowrank.change import variance_explained as variance_explained
from rankscope.lowrank.joint_truncation import truncated_together as truncated_together
from rankscope.lowrank.spectra import eigenvalues as eigenvalues
from rankscope.lowrank.spectra import spectra as spectra
from rankscope.training.convergence import convergence_epoch as convergence_epoch
