"""What does learning write into a recurrent network, and how many directions does it need?

    import rankscope as rs

    task = rs.tasks.FlipFlop()
    network = rs.RateRNN.initialize(task, hidden_size=256, gain=0.9, rng=0)
    before = network.snapshot()
    history = rs.train(network, task, epochs=1000, rng=0)
    curve = rs.truncation_curve(before, network, task.sample(512, rng=1))
    print(rs.convergence_epoch(history.losses), rs.functional_rank(curve))

The science is that of Schuessler, Mastrogiuseppe, Dubreuil, Ostojic and Barak, "The interplay between randomness and
structure during learning in RNNs", NeurIPS 2020.

Every public name is imported at its first use (PEP 562): `import rankscope` takes a millisecond, PyTorch two seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rankscope.errors import InputError as InputError
from rankscope.version import __version__ as __version__

if TYPE_CHECKING:
    from rankscope import dynamics as dynamics
    from rankscope import figures as figures
    from rankscope import lowrank as lowrank
    from rankscope import plot as plot
    from rankscope import regime as regime
    from rankscope import tasks as tasks
    from rankscope import theory as theory
    from rankscope.checkpoints import compare as compare
    from rankscope.checkpoints import compare_along as compare_along
    from rankscope.checkpoints import load_weights as load_weights
    from rankscope.checkpoints import low_rank_factors as low_rank_factors
    from rankscope.lowrank import change as change
    from rankscope.lowrank import functional_rank as functional_rank
    from rankscope.lowrank import populations as populations
    from rankscope.lowrank import truncation_curve as truncation_curve
    from rankscope.lowrank.anatomy import anatomy as anatomy
    from rankscope.networks import GatedRNN as GatedRNN
    from rankscope.networks import Network as Network
    from rankscope.networks import RateRNN as RateRNN
    from rankscope.networks import parametrizations as parametrizations
    from rankscope.sweep import Job as Job
    from rankscope.sweep import Sweep as Sweep
    from rankscope.sweep import export_run as export_run
    from rankscope.sweep import load_networks as load_networks
    from rankscope.sweep import measure_run as measure_run
    from rankscope.sweep import open_run as open_run
    from rankscope.sweep import run as run
    from rankscope.tasks import Task as Task
    from rankscope.tasks import Trials as Trials
    from rankscope.training import History as History
    from rankscope.training import TrainingConfig as TrainingConfig
    from rankscope.training import accuracy as accuracy
    from rankscope.training import cross_entropy_loss as cross_entropy_loss
    from rankscope.training import evaluate as evaluate
    from rankscope.training import squared_loss as squared_loss
    from rankscope.training import train as train
    from rankscope.training import train_together as train_together
    from rankscope.training.convergence import convergence_epoch as convergence_epoch

# Public name -> the folder it is imported from; a folder itself has "". A new name also needs its line above, which
# type checkers read.
_PUBLIC = {
    "dynamics": "",
    "figures": "",
    "lowrank": "",
    "plot": "",
    "regime": "",
    "tasks": "",
    "theory": "",
    "compare": "checkpoints",
    "compare_along": "checkpoints",
    "load_weights": "checkpoints",
    "low_rank_factors": "checkpoints",
    "anatomy": "lowrank.anatomy",
    "change": "lowrank",
    "functional_rank": "lowrank",
    "populations": "lowrank",
    "truncation_curve": "lowrank",
    "GatedRNN": "networks",
    "Network": "networks",
    "RateRNN": "networks",
    "parametrizations": "networks",
    "Job": "sweep",
    "Sweep": "sweep",
    "export_run": "sweep",
    "load_networks": "sweep",
    "measure_run": "sweep",
    "open_run": "sweep",
    "run": "sweep",
    "Task": "tasks",
    "Trials": "tasks",
    "History": "training",
    "TrainingConfig": "training",
    "accuracy": "training",
    "convergence_epoch": "training.convergence",
    "cross_entropy_loss": "training",
    "evaluate": "training",
    "squared_loss": "training",
    "train": "training",
    "train_together": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rankscope' has no attribute {name!r}", name=name, obj=import_module(__name__))
    folder = _PUBLIC[name]
    value = getattr(import_module(f"rankscope.{folder}"), name) if folder else import_module(f"rankscope.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, "InputError", "__version__"])
