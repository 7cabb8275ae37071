"""Reproduction of the paper: all its experiments run one after the other, and every statement with its verdict."""

from rankscope.reproduction.plan import Part as Part
from rankscope.reproduction.plan import make_plan as make_plan
from rankscope.reproduction.results import Outcome as Outcome
from rankscope.reproduction.results import outcome_of as outcome_of
from rankscope.reproduction.work import reproduce as reproduce
