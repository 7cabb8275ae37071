"""Theories of learning: exact ones of linear networks, an expansion, and nonlinear networks from g = 0."""

from rankscope.theory.finite_width import FiniteWidth as FiniteWidth
from rankscope.theory.infinite_width import InfiniteWidth as InfiniteWidth
from rankscope.theory.noisy_linear import NoisyLinear as NoisyLinear
from rankscope.theory.nonlinear_limit import NonlinearLimit as NonlinearLimit
from rankscope.theory.perturbation import ThirdOrder as ThirdOrder
from rankscope.theory.single_network import SingleNetwork as SingleNetwork
