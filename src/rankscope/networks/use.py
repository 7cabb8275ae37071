"""How a network uses its inputs and its matrices, found by running it once or twice on a few trials.

Two mistakes give wrong numbers without an error: a network that is time-first treats trials as time steps, and a matrix
that the forward pass transforms (``|W| * mask``) is not the connectivity. The first shows as outputs of one trial that
depend on the inputs of another. The second shows in autograd's graph: an effective matrix only ever meets something
that depends on the inputs. A layer written as a `torch.autograd.Function` hides what it does with its arguments.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from rankscope.errors import InputError
from rankscope.networks.computed import replace_matrix
from rankscope.networks.gated import GatedRNN
from rankscope.networks.protocol import Network, evaluating, outputs_of
from rankscope.networks.rate import RateRNN
from rankscope.tasks.trials import Trials

TRIALS = 3
_collected: ContextVar[list[str] | None] = ContextVar("_collected", default=None)

_VIEWS = {
    *("T", "Transpose", "Permute", "View", "UnsafeView", "ReshapeAlias", "Expand", "Unsqueeze", "Squeeze", "Select"),
    *("Slice", "Split", "UnsafeSplit", "SplitWithSizes", "Unbind", "Index", "IndexSelect", "AsStrided"),
    *("Clone", "Alias", "ToCopy", "Cat", "Stack"),
}
_PRODUCTS = ["Mm", "Addmm", "Bmm", "Baddbmm", "Mv", "Addmv", "Linear", "Dot", "Einsum", "Addbmm", "Mul"]
_ADDITIVE = ["Add", "Sub", "Rsub", "Where", "Maximum", "Minimum", "Lerp", "Max", "Min"]


def check_use(network: Network, trials: Trials, names: Iterable[str]) -> None:
    """Check that trials are independent of each other, and that measured matrices are what the forward pass uses.

    The networks of this package are not run.

    Parameters
    ----------
    trials
        A batch, of which a few trials are run.
    names
        The matrices that are recorded or truncated.

    Warns
    -----
    UserWarning
        If the forward pass transforms a matrix before using it.

    Raises
    ------
    InputError
        If outputs of a trial depend on the inputs of another, or the forward pass does not use a computed matrix.
    """
    if not isinstance(network, nn.Module) or type(network) in _OURS:
        return
    names = list(names)
    try:
        twin = copy.deepcopy(network)
    except (RuntimeError, TypeError) as error:  # a module that holds the result of a computation
        if not names:
            return
        raise InputError(
            f"network must be one that copy.deepcopy copies, got {type(network).__name__}: {error!s:.150}; "
            "torch.nn.utils.parametrizations has weight_norm and spectral_norm that can be copied"
        ) from error
    inputs, lengths = _few(twin, trials)
    with evaluating(twin):
        _check_independent(twin, inputs, lengths)
        for name, operation in _transformed(twin, inputs, lengths, names).items():
            if operation is None:
                raise InputError(
                    f"matrices must name what the forward pass uses, got {name!r}, which it does not use; compute the "
                    "matrix in a method and multiply by what this method returns"
                )
            issue(
                f"{name!r} is measured as it is stored, but the forward pass of {type(network).__name__} transforms it "
                f"first ({operation}): its spectrum, change and truncation are not those of the connectivity. Compute "
                "the connectivity in a method without arguments, and name the method: matrices=['method']; or use "
                "torch.nn.utils.parametrize"
            )


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect what `issue` warns of in this thread, once each, for the duration of a `with` block."""
    found: list[str] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def issue(text: str) -> None:
    """Issue a `UserWarning`, or add it to those of `collected_warnings`."""
    collected = _collected.get()
    if collected is None:
        warnings.warn(text, stacklevel=3)
    elif text not in collected:
        collected.append(text)


def _few(network: nn.Module, trials: Trials) -> tuple[Tensor, Tensor | None]:
    """Return inputs and lengths of a few trials, at least two; of all where the network runs no other number."""
    few = trials[:TRIALS]
    if len(few) == 1:
        return few.inputs.repeat(2, 1, 1), None if few.lengths is None else few.lengths.repeat(2)
    try:
        with torch.no_grad(), evaluating(network):
            outputs_of(network, few.inputs, 0, few.lengths)
    except RuntimeError:
        few = trials
    return few.inputs, few.lengths


def _check_independent(network: nn.Module, inputs: Tensor, lengths: Tensor | None) -> None:
    if not inputs.is_floating_point() or bool((inputs == inputs.round()).all() and inputs.abs().max() > 1):
        changed = inputs.roll(1, 0)  # words, or other whole numbers
        changed[-1] = inputs[-1]
    else:
        changed = inputs.clone()
        changed[0] = inputs[0].roll(1, 0) + 0.5
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        before = outputs_of(network, inputs, 0, lengths)[-1]
        network.load_state_dict(state)
        after = outputs_of(network, changed, 0, lengths)[-1]
    if not torch.allclose(before, after, rtol=1e-3, atol=1e-6, equal_nan=True):
        raise InputError(
            "network must treat each trial of inputs (batch, time, in) by itself, got one in which the outputs of a "
            "trial depend on the inputs of another: it is time-first or mixes the batch; pass batch_first=True to "
            "torch's layers, or transpose inputs and outputs in forward"
        )


def _transformed(network: nn.Module, inputs: Tensor, lengths: Tensor | None, names: list[str]) -> dict[str, str | None]:
    """Return matrix -> operation that transforms it before use, or None if it is a member that is not used.

    Empty if autograd's graph does not show it. `network` is changed.
    """
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    parameters = dict(network.named_parameters())
    is_member = {name: name not in parameters for name in names}
    leaves = {}
    for name in names:
        constant = replace_matrix(network, name)
        leaves[name] = parameters[name] if name in parameters else constant.requires_grad_()
    inputs = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        outputs = outputs_of(network, inputs, 0, lengths)
    if outputs.grad_fn is None:
        return {}
    consumers: dict[Any, list[Any]] = defaultdict(list)
    leaf_nodes: dict[int, Any] = {}
    for node in _nodes(outputs.grad_fn):
        if hasattr(node, "variable"):
            leaf_nodes[id(node.variable)] = node
        for source, _ in node.next_functions:
            if source is not None:
                consumers[source].append(node)
    if id(inputs) not in leaf_nodes:
        return {}  # indices of words: nothing depends on them in the graph
    driven = _after(leaf_nodes[id(inputs)], consumers)
    found: dict[str, str | None] = {}
    for name, leaf in leaves.items():
        node = leaf_nodes.get(id(leaf))
        if node is None:
            if is_member[name]:
                found[name] = None
        elif operation := _first_transformation(node, consumers, driven):
            found[name] = operation
    return found


def _first_transformation(leaf: Any, consumers: dict[Any, list[Any]], driven: set[Any]) -> str | None:
    """Return the operation that changes a leaf before it meets something driven by the inputs."""
    waiting, seen, met = [leaf], {leaf}, False
    constants: str | None = None
    while waiting:
        source = waiting.pop()
        for node in consumers[source]:
            kind: str = node.name().removesuffix("Backward").rstrip("0123456789").removesuffix("Backward")
            others = [other for other, _ in node.next_functions if other not in seen]
            if kind in _VIEWS:
                if node not in seen:
                    seen.add(node)
                    waiting.append(node)
            elif kind not in _ADDITIVE and any(other in driven for other in others):
                met = True
            elif kind in _PRODUCTS:  # of an initial state that does not depend on the inputs, or of two parameters
                constants = kind.lower()
            else:
                return kind.lower()
    return None if met else constants


def _nodes(root: Any) -> Iterator[Any]:
    waiting, seen = [root], {root}
    while waiting:
        node = waiting.pop()
        yield node
        for source, _ in node.next_functions:
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)


def _after(leaf: Any, consumers: dict[Any, list[Any]]) -> set[Any]:
    """Return all nodes that depend on a leaf."""
    waiting, found = [leaf], {leaf}
    while waiting:
        for node in consumers[waiting.pop()]:
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found


_OURS = (RateRNN, GatedRNN)
