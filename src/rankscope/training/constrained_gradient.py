"""Gradient of the squared loss of a rate network with constrained weights, by the hand-written passes.

The passes run on a network without constraints that holds the effective weights. Their gradients then go through the
constraints (`networks/parametrizations.py`) by autograd, which costs a few operations on matrices of the size of W; in
autograd's own path the loss and all gradients would be allocated anew in every step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import parametrize

from rankscope.networks.parameters import PARAMETERS
from rankscope.networks.protocol import Network
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Trials
from rankscope.training.gradients import Gradient, LossAndNorm
from rankscope.training.loss import Loss
from rankscope.training.manual_gradient import HOOKS, ManualGradient
from rankscope.training.state import TrainingState
from rankscope.validation import RngLike


class ConstrainedGradient(Gradient):
    """Gradient of one rate network of which some weights are parametrized.

    Parameters
    ----------
    network
        A network for which `fits` is true.
    """

    def __init__(self, network: RateRNN) -> None:
        self._network, self._twin = network, _unconstrained(network)
        self._inner = ManualGradient(self._twin)
        self._originals: dict[str, list[nn.Parameter]] = {}
        for name in PARAMETERS.values():
            if parametrize.is_parametrized(network, name):
                originals = _trained(network, name)
                for one in originals:
                    one.grad = torch.zeros_like(one)
                self._originals[name] = originals
            elif (own := getattr(network, name)) is not None and own.requires_grad:
                own.grad = getattr(self._twin, name).grad
        self._gradients = [p.grad for p in network.parameters() if p.requires_grad and p.grad is not None]

    @staticmethod
    def fits(network: Network, loss: Loss) -> bool:
        """Return whether weights are constrained, the hand-written passes apply, and no hook would be skipped."""
        if not isinstance(network, RateRNN) or not parametrize.is_parametrized(network):
            return False
        if parametrize.type_before_parametrizations(network) is not RateRNN:
            return False
        watched = [*network.modules(), *network.parameters()]
        hooked = any(getattr(thing, hooks, None) for thing in watched for hooks in HOOKS)
        return not hooked and ManualGradient.fits(_unconstrained(network), loss)

    def __call__(self, states: Sequence[TrainingState], batches: Sequence[Trials]) -> Sequence[LossAndNorm]:
        """Write the gradient; return loss and gradient norm."""
        return [self.loss_and_norm(batches[0], states[0].rng)]

    def loss_and_norm(self, trials: Trials, rng: RngLike) -> LossAndNorm:
        """Write the gradient into the `grad` of the trained parameters; return the loss and the norm of the gradient.

        Parameters
        ----------
        rng
            Source of the network's noise.
        """
        with torch.enable_grad():
            effective = {name: getattr(self._network, name) for name in self._originals}
        with torch.no_grad():
            for name, weights in effective.items():
                getattr(self._twin, name).copy_(weights)
        loss, _ = self._inner.loss_and_norm(trials, rng)
        for name, originals in self._originals.items():
            if originals:
                found = torch.autograd.grad(effective[name], originals, getattr(self._twin, name).grad)
                for one, gradient in zip(originals, found, strict=True):
                    assert one.grad is not None
                    one.grad.copy_(gradient)
        return loss, float(torch.nn.utils.get_total_norm(self._gradients))

    def step(self, states: Sequence[TrainingState]) -> None:
        """Update the weights, unless the training diverges."""
        self._inner.step(states)


def _trained(network: RateRNN, name: str) -> list[nn.Parameter]:
    constraints = network.parametrizations[name]  # type: ignore[index]
    return [one for one in constraints.parameters() if one.requires_grad]  # type: ignore[union-attr]


def _unconstrained(network: RateRNN) -> RateRNN:
    """Return a network with the effective weights, which shares the memory of those without constraints."""
    weights = [None if one is None else one.detach() for one in network.weights]
    twin = RateRNN(*weights, **network.architecture(), engine=network.engine)  # type: ignore[arg-type]
    for name in PARAMETERS.values():
        own = getattr(network, name)
        if own is None:
            continue
        constrained = parametrize.is_parametrized(network, name)
        learns = bool(_trained(network, name)) if constrained else own.requires_grad
        values = getattr(twin, name).detach() if constrained else own.detach()
        setattr(twin, name, nn.Parameter(values, requires_grad=learns))
    return twin
