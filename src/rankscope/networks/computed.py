"""Matrices that a module computes: by a method, a property, or `torch.nn.utils.parametrize`.

A network that obeys Dale's law by hand computes ``|V| * mask * signs`` in its forward pass. Where it does so in a
method or a property, the name of this member stands for the matrix:

    class Mine(nn.Module):
        def effective(self):
            return self.V.abs() * self.mask * self.signs

    rs.train(network, task, matrices=["effective"])

A truncation overrides the member in a copy of the network, so that its forward pass runs with the truncated matrix.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from rankscope.errors import InputError


def computed_matrix(network: object, name: str) -> Tensor | None:
    """Return the matrix that the method or property `name` computes; None if there is none of that name.

    Parameters
    ----------
    name
        Name of a member without arguments, behind the path of its module: "effective", "core.effective".

    Raises
    ------
    InputError
        If the member returns something else than a matrix of floating type.
    """
    found = _member(network, name)
    if found is None:
        return None
    module, attribute = found
    value = getattr(module, attribute)
    matrix = value() if callable(value) else value
    if not isinstance(matrix, Tensor) or matrix.ndim != 2 or not matrix.is_floating_point():
        got = f"shape {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else type(matrix).__name__
        raise InputError(f"matrices must name members that return a matrix, got {name!r}, which returns {got}")
    return matrix


def possible_names(network: object) -> list[str]:
    """Return the names of the members of a user's class that take no arguments, and so might compute a matrix."""
    kind = type(network)
    if kind.__module__.startswith(("rankscope.", "torch.")):
        return []
    members = {name: member for name, member in vars(kind).items() if not name.startswith("_")}
    return [
        name
        for name, member in members.items()
        if isinstance(member, property)
        or (inspect.isfunction(member) and len(inspect.signature(member).parameters) == 1 and name != "recurrent_names")
    ]


class Names(set[str]):
    """A set of names that copies of a module share."""

    def __deepcopy__(self, memo: object) -> Names:
        return self


def replace_matrix(network: nn.Module, name: str, used: Names | None = None) -> Tensor:
    """Return a weight of `network` to write into.

    That of a parametrized weight, or of a member that computes one, is a constant from then on.

    Parameters
    ----------
    network
        A copy, which is changed.
    used
        Where the name is added whenever the network reads such a constant.
    """
    path, _, attribute = name.rpartition(".")
    module: Any = network.get_submodule(path)
    if parametrize.is_parametrized(module, attribute):
        # `remove_parametrizations` would change the class, which a copied module shares with the original.
        constant: Tensor = getattr(module, attribute).detach().clone()
        module.parametrizations[attribute] = _Constant(constant, name, used)
        return constant
    computed = computed_matrix(network, name)
    if computed is not None:
        constant = computed.detach().clone()
        _override(module, attribute, _Constant(constant, name, used).forward)
        return constant
    weight: Tensor = getattr(module, attribute)
    return weight.detach()


def _override(module: nn.Module, attribute: str, value: Callable[[], Tensor]) -> None:
    """Make a method or property of one module return `value()`, by a subclass of its own."""
    kind = type(module)
    if isinstance(inspect.getattr_static(kind, attribute), property):
        member: Any = property(lambda self: value())
    else:
        module.__dict__.pop(attribute, None)
        member = lambda self, *args, **options: value()  # noqa: E731
    module.__class__ = type(kind.__name__, (kind,), {attribute: member, "__module__": kind.__module__})


def _member(network: object, name: str) -> tuple[nn.Module, str] | None:
    """Return the module and the name of a method or property defined by its class."""
    path, _, attribute = name.rpartition(".")
    if not isinstance(network, nn.Module):
        return None
    try:
        module = network.get_submodule(path)
    except AttributeError:
        return None
    if hasattr(nn.Module, attribute) or attribute.startswith("__"):
        return None
    member = inspect.getattr_static(type(module), attribute, None)
    if isinstance(member, property):
        # The class of a parametrized module has a property for each of its weights.
        return None if parametrize.is_parametrized(module, attribute) else (module, attribute)
    if not inspect.isfunction(member):
        return None
    parameters = list(inspect.signature(member).parameters.values())[1:]
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return None if required else (module, attribute)


class _Constant(nn.Module):
    """Stands in for a parametrization or a member, and returns a given matrix."""

    value: Tensor

    def __init__(self, value: Tensor, name: str, used: Names | None) -> None:
        super().__init__()
        self.register_buffer("value", value)
        self._name, self._used = name, used

    def forward(self) -> Tensor:
        """Return the matrix."""
        if self._used is not None:
            self._used.add(self._name)
        return self.value
