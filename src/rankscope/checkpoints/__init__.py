"""Checkpoints of any PyTorch model: readers, comparison of two checkpoints, and low-rank factors."""

from rankscope.checkpoints.along import Growth as Growth
from rankscope.checkpoints.along import Stage as Stage
from rankscope.checkpoints.along import compare_along as compare_along
from rankscope.checkpoints.compare import compare as compare
from rankscope.checkpoints.compare import inspect as inspect
from rankscope.checkpoints.comparison import ComparedMatrix as ComparedMatrix
from rankscope.checkpoints.comparison import Comparison as Comparison
from rankscope.checkpoints.factors import LowRankFactors as LowRankFactors
from rankscope.checkpoints.factors import low_rank_factors as low_rank_factors
from rankscope.checkpoints.load import load_weights as load_weights
from rankscope.checkpoints.opening import open_checkpoint as open_checkpoint
