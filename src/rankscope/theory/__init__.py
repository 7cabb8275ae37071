"""Theories of learning in the linear network: the paper's third-order expansion and the exact solution."""

from rankscope.theory.finite_width import FiniteWidth as FiniteWidth
from rankscope.theory.infinite_width import InfiniteWidth as InfiniteWidth
from rankscope.theory.perturbation import ThirdOrder as ThirdOrder
from rankscope.theory.single_network import SingleNetwork as SingleNetwork
