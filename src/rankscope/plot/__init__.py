"""Plots of networks and trainings on matplotlib axes, and their displays in notebooks.

Each function draws into `ax`, or into a new figure of pyplot, and returns the axes. The figures of the experiments are
drawn with the same functions.
"""

from rankscope.plot.curves import loss as loss
from rankscope.plot.curves import singular_values as singular_values
from rankscope.plot.curves import spectrum as spectrum
from rankscope.plot.curves import truncation as truncation
from rankscope.plot.flow import flow as flow
from rankscope.plot.trial import trial as trial
