"""Loss with the initial weights shuffled: how much a change depends on the weights that it was learned on."""

from __future__ import annotations

from collections.abc import Iterable

from rankscope.lowrank.matrices import blocks_of, changes_of
from rankscope.lowrank.replacement import metric_of_replacements
from rankscope.networks.protocol import Network
from rankscope.tasks.trials import Trials
from rankscope.training.loss import Loss, find_loss
from rankscope.validation import RngLike, generator


def shuffled_loss(
    before: Network,
    after: Network,
    trials: Trials,
    rng: RngLike = None,
    loss: str | Loss | None = None,
    matrices: Iterable[str] | None = None,
) -> float:
    """Return the loss of (W0 with its entries randomly permuted) + dW, with all other weights as trained.

    Divided by the loss at epoch 0, this measures how much dW is tied to its own W0 (Schuessler et al. 2020, Fig. 2).

    Parameters
    ----------
    before, after, trials, loss
        As in `truncation_curve`.
    rng
        Seed or Generator of the permutation, and of the network's noise.
    matrices
        As in `truncation_curve`; each is permuted by itself.
    """
    rng = generator(rng)
    blocks = blocks_of(after, matrices)
    shuffled = {
        name: rng.permutation(dW.before.ravel()).reshape(dW.shape) + dW.matrix
        for name, dW in changes_of(before, after, blocks).items()
    }
    return metric_of_replacements(after, blocks, trials, rng, find_loss(loss))([shuffled])[0]
