"""Figures: each takes a Dataset and returns a matplotlib Figure."""

from rankscope.figures.learning import learning as learning
from rankscope.figures.saving import save_figure as save_figure
