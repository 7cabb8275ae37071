"""The networks: weights in a torch module, the equation in words and code, and a fast engine for it."""

from rankscope.networks.fused import fused as fused
from rankscope.networks.gated import GatedRNN as GatedRNN
from rankscope.networks.initialization import draw_weights as draw_weights
from rankscope.networks.many import outputs_of_many as outputs_of_many
from rankscope.networks.nonlinearities import NONLINEARITIES as NONLINEARITIES
from rankscope.networks.protocol import Network as Network
from rankscope.networks.rate import RateRNN as RateRNN
from rankscope.networks.recurrence import Dynamics as Dynamics
from rankscope.networks.recurrence import Weights as Weights
from rankscope.networks.recurrence import plain as plain
from rankscope.networks.text import TextClassifier as TextClassifier
