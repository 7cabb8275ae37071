"""Flow of the states of a network: fixed points, and the vector field in the plane of one or two directions."""

from rankscope.dynamics.fixed_points import FixedPoints as FixedPoints
from rankscope.dynamics.fixed_points import fixed_points as fixed_points
from rankscope.dynamics.flow import flow as flow
from rankscope.dynamics.trajectories import trajectories as trajectories
