"""How a training begins, alone or together with others: its options are checked, and its state is laid out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rankscope.errors import InputError
from rankscope.networks.protocol import Network, architecture_of, recurrent_names
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import BuiltInTask, Task, Trials
from rankscope.training.history import MatrixRecords, Records, record_schedule
from rankscope.training.loss import Loss, name_of_loss
from rankscope.training.prefetch import drawn_ahead
from rankscope.training.rules import DEFAULT_EPOCHS, Rules
from rankscope.training.state_file import TrainingState
from rankscope.validation import integer


class Recording(NamedTuple):
    """What to record: the arguments of `train` of these names."""

    recorded_epochs: int | Sequence[int] | None = None
    singular_values: int = 40
    eigenvalues: int = 0
    record_weights: bool = False
    matrices: Iterable[str] | None = None


def begin(
    network: Network,
    task: Task | Iterable[Trials],
    rng: np.random.Generator,
    rules: Rules,
    loss: Loss,
    recording: Recording,
    hidden_size: int,
) -> tuple[TrainingState, dict[str, Any]]:
    """Return the state of a training before its first epoch, and the settings that a checkpoint of it has.

    Raises
    ------
    InputError
        If the network has nothing to train, or it cannot be recorded like that.
    """
    names = recurrent_names(network, recording.matrices)
    settings = rules.settings() | {
        "singular_values": integer("singular_values", recording.singular_values, minimum=1),
        "eigenvalues": integer("eigenvalues", recording.eigenvalues, minimum=0),
        "record_weights": bool(recording.record_weights),
        "architecture": architecture_of(network),
        "weights": {name: [str(w.dtype), *w.shape] for name, w in network.state_dict().items()},
        "task": _described(task),
        "loss": name_of_loss(loss),
        "matrices": list(names),
    }
    parameters = dict(network.named_parameters())
    epochs = DEFAULT_EPOCHS if rules.total is None else rules.total
    records = Records(
        matrices={name: MatrixRecords(parameters[name].detach().clone()) for name in names},
        schedule=record_schedule(epochs, recording.recorded_epochs, hidden_size),
        singular_count=settings["singular_values"],
        keep_weights=settings["record_weights"],
        eigenvalue_count=settings["eigenvalues"],
    )
    if settings["eigenvalues"] and not any(seen.is_square for seen in records.matrices.values()):
        raise InputError(
            f"eigenvalues must be 0 as none of the matrices {list(names)} is square, got {settings['eigenvalues']}"
        )
    trained = [weights for weights in network.parameters() if weights.requires_grad]
    if not trained:
        got = f"trained = {network.trained!r}" if isinstance(network, RateRNN) else "no parameter with requires_grad"
        raise InputError(f"network must have something to train, got {got}")
    return TrainingState(network, rules.make_optimizer(trained), rng, records), settings


def batches_of(task: Task | Iterable[Trials], batch_size: int, state: TrainingState) -> Iterator[Trials]:
    """Yield the batches of a training that stands at `state.epoch`, whose source of randomness is `state.rng`."""
    noiseless = isinstance(state.network, RateRNN) and state.network.noise_std == 0
    if noiseless and isinstance(task, BuiltInTask) and task.by_rng_alone:
        return drawn_ahead(task, batch_size, state.rng)
    if isinstance(task, Task):
        return iter(lambda: task.sample(batch_size, state.rng), None)
    return itertools.islice(iter(task), state.epoch, None)


def _described(task: Task | Iterable[Trials]) -> Any:
    """Return what can be written down of a task: all of a built-in one, nothing of any other."""
    if isinstance(task, BuiltInTask):
        return json.loads(json.dumps([task.name, task.parameters()]))
    return None
