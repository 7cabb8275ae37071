"""Networks: rate networks with a hand-differentiated engine, torch's gated layers, and networks in files."""

from rankscope.networks.fused import fused as fused
from rankscope.networks.gated import GatedRNN as GatedRNN
from rankscope.networks.gates import GATES as GATES
from rankscope.networks.initialization import draw_weights as draw_weights
from rankscope.networks.make import check_spec as check_spec
from rankscope.networks.make import make_network as make_network
from rankscope.networks.many import outputs_of_many as outputs_of_many
from rankscope.networks.network_file import kept_epochs as kept_epochs
from rankscope.networks.network_file import load_networks as load_networks
from rankscope.networks.network_file import save_networks as save_networks
from rankscope.networks.nonlinearities import NONLINEARITIES as NONLINEARITIES
from rankscope.networks.parametrizations import Dale as Dale
from rankscope.networks.parametrizations import LowRank as LowRank
from rankscope.networks.parametrizations import Scaled as Scaled
from rankscope.networks.parametrizations import Sparse as Sparse
from rankscope.networks.protocol import Network as Network
from rankscope.networks.protocol import matrices_of as matrices_of
from rankscope.networks.rate import RateRNN as RateRNN
from rankscope.networks.recurrence import Dynamics as Dynamics
from rankscope.networks.recurrence import Weights as Weights
from rankscope.networks.recurrence import plain as plain
