"""Which parameter of a module the factors of PEFT's `target_parameters` belong to.

PEFT wraps the module once for each of its parameters, in the order in which the module defines them, and names the
factors after the module: `M.base_layer.lora_A` is of the first of two parameters, `M.lora_A` of the second. The names
in the configuration do not give this order, and neither does a file with sorted names. So the factors are assigned if
the shapes allow one way only, or if the module is one of torch's recurrent layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import permutations

from rankscope.checkpoints.source import Entry

RECURRENT = re.compile(r"weight_(?P<which>ih|hh|hr)_l(?P<layer>\d+)(?P<reverse>_reverse)?")

MOST = 6
"""Parameters of one module that are tried in every order."""


def is_target(name: str, targets: Sequence[str]) -> bool:
    """Return whether PEFT adapts the parameter of that name."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def only_target(module: str, targets: Sequence[str]) -> str | None:
    """Return the one parameter of a module that the names of the targets allow; None if there are more or none.

    A target that is only the last component of a name may be a parameter of any module.
    """
    found = set()
    for target in targets:
        owner, _, parameter = target.rpartition(".")
        if not owner or module == owner or module.endswith(f".{owner}"):
            found.add(parameter)
    return next(iter(found)) if len(found) == 1 else None


def modules_of(base: Mapping[str, Entry]) -> dict[str, list[str]]:
    """Return the parameters of each module, by its name."""
    modules: dict[str, list[str]] = {}
    for name in base:
        owner, _, parameter = name.rpartition(".")
        modules.setdefault(owner, []).append(parameter)
    return modules


def find_module(module: str, modules: Mapping[str, list[str]]) -> str | None:
    """Return the module of the base; None unless one has the name, with or without a prefix."""
    if module in modules:
        return module
    found = [one for one in modules if one and (one.endswith(f".{module}") or module.endswith(f".{one}"))]
    return found[0] if len(found) == 1 else None


def assigned(
    levels: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
    parameters: Mapping[str, tuple[tuple[int, ...], int | None]],
) -> list[str] | None:
    """Return the parameter of each level of wrapping, the innermost first; None if the shapes do not decide.

    Parameters
    ----------
    levels
        Shapes of A and B of each.
    parameters
        Shape of each parameter that is adapted, and the rank of the change of one matrix, if it is known.
    """
    names = list(parameters)
    if len(names) != len(levels):
        return None
    recurrent = [RECURRENT.fullmatch(name) for name in names]
    if all(recurrent):
        # torch's order: layer by layer, forward before backward, inputs before the recurrent weights.
        key = [(int(m["layer"]), bool(m["reverse"]), ("ih", "hh", "hr").index(m["which"])) for m in recurrent if m]
        orders = [[name for _, name in sorted(zip(key, names, strict=True))]]
    elif len(names) > MOST:
        return None
    else:
        orders = [list(order) for order in permutations(names)]
    fitting = [
        order
        for order in orders
        if all(_fits(A, B, *parameters[name]) for (A, B), name in zip(levels, order, strict=True))
    ]
    return fitting[0] if len(fitting) == 1 else None


def _fits(A: tuple[int, ...], B: tuple[int, ...], shape: tuple[int, ...], rank: int | None) -> bool:
    """Return whether A (E r, in) and B (out, E r) can be of a parameter (out, in), (E, out, in) or (E, in, out)."""
    if len(A) != 2 or len(B) != 2:
        return False
    matrix = (B[0], A[1])
    if len(shape) == 2:
        return shape == matrix and rank in (None, A[0])
    return (
        len(shape) == 3
        and shape[1:] in (matrix, matrix[::-1])
        and A[0] % shape[0] == 0
        and (rank is None or A[0] == shape[0] * rank)
    )
