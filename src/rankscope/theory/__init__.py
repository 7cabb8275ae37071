"""Theories of learning: exact and third-order ones of the linear network, and one of nonlinear networks at g = 0."""

from rankscope.theory.finite_width import FiniteWidth as FiniteWidth
from rankscope.theory.infinite_width import InfiniteWidth as InfiniteWidth
from rankscope.theory.nonlinear_limit import NonlinearLimit as NonlinearLimit
from rankscope.theory.perturbation import ThirdOrder as ThirdOrder
from rankscope.theory.single_network import SingleNetwork as SingleNetwork
