r"""Loss under noise along the outputs, along principal components of the states, and along random directions.

Noise :math:`\eta_t = \sqrt{dt}\, \sigma\, Q \xi_t / \sqrt D` is added to the state in every step, with D orthonormal
directions Q, so that its total variance is the same for all three. Its size is relative to the activity:
:math:`\sigma` is `size` times the root mean square of :math:`|h - \bar h|`. Where outputs are read from the leading
components (aligned), noise along both does similar damage; where they are not (oblique), noise along the components is
quenched by the dynamics or not read out. Source: after Schuessler et al., eLife 2024. The null is the loss under noise
along random directions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.errors import InputError
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.anatomy import basis
from rankscope.networks.fused import integrate
from rankscope.networks.rate import RateRNN
from rankscope.regime.activity import TRIALS, within
from rankscope.tasks.trials import Task, Trials, trials_of
from rankscope.training.loss import Loss, find_loss
from rankscope.validation import RngLike, generator, number

SIZE = 0.3


class NoiseLoss(NamedTuple):
    """Losses of a network.

    Attributes
    ----------
    without
        Without added noise.
    outputs, components, random
        With noise along the output vectors, along as many leading principal components of the states, and along as many
        random directions.
    silent
        The loss of outputs of zero, as a scale.
    """

    without: float
    outputs: float
    components: float
    random: float
    silent: float


@torch.no_grad()
def noise_loss(
    network: RateRNN,
    task: Task | Trials,
    size: float = SIZE,
    loss: str | Loss | None = None,
    rng: RngLike = 0,
) -> NoiseLoss:
    """Return the losses of a rate network under added noise.

    Parameters
    ----------
    network
        It is not changed. Noise of its own is added as well, the same in all runs.
    task
        Trials, or a task of which 128 are drawn.
    size
        Standard deviation of the noise in one time constant, relative to the root mean square of the activity.
    loss
        As in `train`; by default that of the task.
    rng
        Source of the trials, of random directions and of noise.

    Raises
    ------
    InputError
        If the network is no RateRNN, or the size is negative.
    """
    if not isinstance(network, RateRNN):
        raise InputError(f"network must be a RateRNN, got {type(network).__name__}")
    size = number("size", size, minimum=0)
    source = generator(rng)
    trials = trials_of(task, TRIALS, source)
    function = find_loss(loss, None if isinstance(task, Trials) else task)
    inputs = network.checked(trials.inputs)
    targets, mask = trials.targets.to(inputs), trials.mask.to(inputs)

    with threads_for(network.hidden_size):
        own = network.draw_noise(inputs, source)
        run = integrate(network, inputs, network.weights, own, return_states=True)
        assert run.states is not None
        states = run.states[within(trials)].double()
        states = states - states.mean(0)
        scale = float(states.square().sum(1).mean().sqrt()) * size * math.sqrt(network.dynamics.dt)
        outputs = basis(network.output_weights.detach().cpu().double().numpy().T)
        D = outputs.shape[1]
        components = torch.linalg.eigh(states.t() @ states)[1].flip(1)[:, :D].cpu().numpy()
        random = np.linalg.qr(source.standard_normal((network.hidden_size, D)))[0]
        xi = torch.from_numpy(source.standard_normal((*inputs.shape[:2], D))).to(inputs)

        def under(directions: NDArray[np.float64]) -> float:
            added = xi @ torch.from_numpy(directions.T.copy()).to(inputs) * (scale / math.sqrt(max(D, 1)))
            noisy: Tensor = integrate(network, inputs, network.weights, added if own is None else own + added).outputs
            return float(function(noisy, targets, mask))

        return NoiseLoss(
            without=float(function(run.outputs, targets, mask)),
            outputs=under(outputs),
            components=under(components),
            random=under(random),
            silent=float(function(torch.zeros_like(run.outputs), targets, mask)),
        )
