"""Meters of the regime in which a network has learned: aligned or oblique, rich or lazy. One file a meter."""

from rankscope.regime.activity import TRIALS as TRIALS
from rankscope.regime.activity import Activity as Activity
from rankscope.regime.activity import activity as activity
from rankscope.regime.alignment import Alignment as Alignment
from rankscope.regime.alignment import alignment as alignment
from rankscope.regime.dimensions import Dimensions as Dimensions
from rankscope.regime.dimensions import dimensions as dimensions
from rankscope.regime.kernel import KernelAlignment as KernelAlignment
from rankscope.regime.kernel import kernel_alignment as kernel_alignment
from rankscope.regime.noise import NoiseLoss as NoiseLoss
from rankscope.regime.noise import noise_loss as noise_loss
from rankscope.regime.representation import RepresentationAlignment as RepresentationAlignment
from rankscope.regime.representation import representation_alignment as representation_alignment
