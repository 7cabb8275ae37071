r"""The factors of the gradient of a weight matrix: the activity that it multiplies, and the adjoints of its results.

The gradient of the loss is $\sum_t \delta_t r_t^T$ over all steps of all trials, where the matrix maps the activity
$r_t$ to results whose gradient is $\delta_t$. For a rate network of the current convention r is phi(h), for one of the
rate convention h; for a layer with gates r is the state that a step starts from, and $\delta$ has a block for each
gate.

They are known for a `RateRNN`, a `GatedRNN`, and in any other module for `nn.Linear` and for `nn.RNN`, `nn.GRU` and
`nn.LSTM` in one direction.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rankscope.networks.fused import integrate
from rankscope.networks.gated import GatedRNN
from rankscope.networks.gated_layer import LayerProducts, LayerWeights, collected_products, gated_layer
from rankscope.networks.protocol import Network, evaluating, outputs_of
from rankscope.networks.rate import RateRNN
from rankscope.networks.recurrence import Weights, initial_states, step_of
from rankscope.tasks.trials import Trials
from rankscope.training.loss import Loss
from rankscope.validation import RngLike


class Product(NamedTuple):
    """Activity (samples, pre) and adjoints (samples, post): adjoints^T activity is the gradient of the matrix."""

    activity: Tensor
    adjoints: Tensor


def products(network: Network, trials: Trials, loss: Loss, rng: RngLike = None) -> dict[str, Product]:
    """Return the factors of the gradient of each matrix of a network for which they are known, by name.

    Parameters
    ----------
    network
        Neither its weights nor their gradients are changed.
    trials
        Trials on which the gradient is taken, in evaluation mode.
    loss
        As in `train`.
    rng
        Source of the network's noise.
    """
    with torch.enable_grad():
        if isinstance(network, RateRNN):
            return _of_rate_network(network, trials, loss, rng)
        if isinstance(network, GatedRNN):
            return _of_gated_network(network, trials, loss, rng)
        return _of_module(network, trials, loss, rng) if isinstance(network, nn.Module) else {}


def _of_rate_network(network: RateRNN, trials: Trials, loss: Loss, rng: RngLike) -> dict[str, Product]:
    inputs, dynamics = network.checked(trials.inputs), network.dynamics
    weights = Weights(*(None if w is None else w.detach() for w in network.weights))  # type: ignore[arg-type]
    noise = network.draw_noise(inputs, rng)
    batch, steps = inputs.shape[:2]
    # The gradient with respect to increments of the state is the adjoint.
    eta = inputs.new_zeros(batch, steps, network.hidden_size) if noise is None else noise
    eta = eta.detach().requires_grad_()
    run = integrate(network, inputs, weights, eta, return_states=True)
    assert run.states is not None
    (adjoints,) = torch.autograd.grad(_loss(loss, run.outputs, trials), eta)
    h = torch.cat([initial_states(weights, batch)[:, None], run.states.detach()[:, :-1]], 1)
    step = step_of(weights, dynamics)
    if dynamics.convention == "current":
        activity, results = dynamics.nonlinearity(h), adjoints * step
    else:
        argument = h @ weights.recurrent.t() + inputs @ weights.input.t()
        argument = (argument if weights.bias is None else argument + weights.bias).requires_grad_()
        (slope,) = torch.autograd.grad(dynamics.nonlinearity(argument).sum(), argument)
        activity, results = h, adjoints * step * slope
    used = _within(trials, batch, steps)
    return {"recurrent_weights": Product(activity.detach()[used], results.detach()[used])}


def _of_gated_network(network: GatedRNN, trials: Trials, loss: Loss, rng: RngLike) -> dict[str, Product]:
    twin = copy.deepcopy(network).cpu().requires_grad_(True)
    twin.zero_grad(set_to_none=True)
    with evaluating(twin), collected_products() as found:
        outputs = outputs_of(twin, trials.inputs, rng, trials.lengths)
        _loss(loss, outputs, trials).backward()  # type: ignore[no-untyped-call]
    return _of_layers("rnn.", found, trials)


def _of_layers(prefix: str, found: list[LayerProducts], trials: Trials) -> dict[str, Product]:
    """Return the products of layers, of which the last one is the first."""
    named = {}
    batch, steps = trials.inputs.shape[:2]
    for layer, one in enumerate(reversed(found)):
        used: Tensor | slice = slice(None)
        if len(one.states) == batch * steps:  # not packed, and time-major
            used = _within(trials, batch, steps).t().flatten()
        named[f"{prefix}weight_ih_l{layer}"] = Product(one.inputs.detach()[used], one.gates[used])
        named[f"{prefix}weight_hh_l{layer}"] = Product(one.states.detach()[used], one.recurrent[used])
    return named


def _within(trials: Trials, batch: int, steps: int) -> Tensor:
    """Return which steps belong to a trial, (batch, time)."""
    if trials.lengths is None:
        return torch.ones(batch, steps, dtype=torch.bool)
    return torch.arange(steps)[None] < trials.lengths[:, None]


def _loss(loss: Loss, outputs: Tensor, trials: Trials) -> Tensor:
    return loss(outputs, trials.targets.to(outputs), trials.mask.to(outputs))


class _Call(NamedTuple):
    """One call of a module: what it received and returned."""

    given: tuple[Any, ...]
    returned: Any


def _of_module(network: nn.Module, trials: Trials, loss: Loss, rng: RngLike) -> dict[str, Product]:
    """Return the products of the layers of a module that are known, from what they receive and return."""
    try:
        twin = copy.deepcopy(network)
    except (RuntimeError, TypeError):  # a module that holds the result of a computation
        return {}
    twin.requires_grad_(True)
    calls: dict[str, list[_Call]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...], returned: Any) -> None:
            for tensor in _tensors(returned):
                if tensor.requires_grad:
                    tensor.retain_grad()
            calls.setdefault(name, []).append(_Call(given, returned))

        return hook

    layers = {name: module for name, module in twin.named_modules() if isinstance(module, (nn.Linear, nn.RNNBase))}
    for name, module in layers.items():
        module.register_forward_hook(keep(name))
    with evaluating(twin):
        outputs = outputs_of(twin, trials.inputs, rng, trials.lengths)
        _loss(loss, outputs, trials).backward()  # type: ignore[no-untyped-call]
    found: dict[str, Product] = {}
    for name, made in calls.items():
        prefix = f"{name}." if name else ""
        layer = layers[name]
        if isinstance(layer, nn.Linear):
            pairs = [(c.given[0].detach(), c.returned.grad) for c in made if c.returned.grad is not None]
            if pairs:
                rows = [torch.cat([one.flatten(0, -2) for one in side]) for side in zip(*pairs, strict=True)]
                found[f"{prefix}weight"] = Product(*rows)
        elif isinstance(layer, nn.RNNBase) and len(made) == 1:
            found |= _of_torch_layers(prefix, layer, made[0], trials)
    return found


def _of_torch_layers(prefix: str, module: nn.RNNBase, call: _Call, trials: Trials) -> dict[str, Product]:
    """Return the products of torch's recurrent layers, from a second run of them by `gated_layer`."""
    kind = {nn.GRU: "gru", nn.LSTM: "lstm", nn.RNN: "rnn"}.get(type(module))
    x, start = call.given[0], call.given[1] if len(call.given) > 1 else None
    outputs, last = call.returned
    unknown = (
        kind is None
        or isinstance(x, PackedSequence)
        or x.ndim != 3
        or start is not None
        or module.bidirectional
        or module.proj_size
        or not module.bias
        or getattr(module, "nonlinearity", "tanh") != "tanh"
        or x.device.type != "cpu"
    )
    h_last, *cells = last if isinstance(last, tuple) else (last,)
    if unknown or kind is None or any(c.grad is not None for c in cells):
        return {}
    if outputs.grad is None and h_last.grad is None:
        return {}
    if h_last.grad is not None and module.num_layers > 1:
        return {}
    rows = x.detach().transpose(0, 1) if module.batch_first else x.detach()
    grad = torch.zeros_like(outputs) if outputs.grad is None else outputs.grad.clone()
    grad = grad.transpose(0, 1) if module.batch_first else grad
    if h_last.grad is not None:
        grad[-1] += h_last.grad[-1]
    steps, batch = rows.shape[:2]
    states = rows.flatten(0, 1)
    with collected_products() as found:
        for layer in range(module.num_layers):
            weights = LayerWeights(*(getattr(module, f"{name}_l{layer}") for name in LayerWeights._fields))
            states = gated_layer(kind, states, weights, [batch] * steps)
        states.backward(grad.flatten(0, 1))
    return _of_layers(prefix, found, trials)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for one in value for tensor in _tensors(one)] if isinstance(value, (tuple, list)) else []
