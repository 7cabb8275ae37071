"""State dicts inside a loaded object: a file of a training keeps them in groups, beside the state of its optimizer.

A module that was saved as a whole, `torch.save(model, path)`, is read from the attributes in which `torch.nn.Module`
keeps parameters, buffers and submodules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rankscope.checkpoints.formats.pickles import Made
from rankscope.checkpoints.formats.torch_tensors import Stored
from rankscope.checkpoints.source import Entry
from rankscope.errors import InputError
from rankscope.validation import choice

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "weights", "params")
"""Keys under which a file of a training keeps the weights, next to the state of the optimizer."""

DEEPEST = 5
MOST_NAMES = 300_000
"""Modules and tensors of a module that was saved as a whole; shared submodules are counted at every place."""


class NoSuchGroup(InputError):  # noqa: N818
    """Raised where a file has no group of the name that `key` gives."""


class Groups:
    """The groups of tensors in a loaded object."""

    def __init__(self, loaded: Any, label: str) -> None:
        self._loaded, self._label = loaded, label
        self._modules: dict[int, Mapping[Any, Any] | None] = {}
        self._known: dict[tuple[int, int], bool] = {}

    def weights(self, key: str | None = None) -> dict[str, Any]:
        """Return the tensors of a state dict by name, with the object for a value that only holds tensors.

        Parameters
        ----------
        key
            Name of a group, or several joined by dots for one inside another. By default the only group, or the one
            with a name of `WRAPPERS`.

        Raises
        ------
        InputError
            If there are no tensors, several groups without a known name, or none of the name `key`.
        """
        if key is None:
            return self._descend(self._loaded, ())
        chosen = self._find(self._loaded, key)
        if chosen is None:
            known = self._paths(self._loaded)
            if not known:
                raise NoSuchGroup(f"key must be left out, as {self._label} has no groups of tensors, got {key!r}")
            try:
                choice("key", key, known)
            except InputError as error:
                raise NoSuchGroup(f"{error}; these are the groups of tensors in {self._label}") from None
        return self._descend(chosen, (key,))

    def _descend(self, loaded: Any, path: tuple[str, ...]) -> dict[str, Any]:
        group = self._mapping(loaded)
        if group is None or not self._holds(loaded):
            got = loaded.name if isinstance(loaded, Made) else type(loaded).__name__
            raise InputError(f"{self._label} must hold a state dict, names with tensors, got {got} without any")
        inner = [key for key, value in group.items() if self._mapping(value) is not None and self._holds(value)]
        if inner and len(path) < DEEPEST:
            known = [key for key in WRAPPERS if key in inner]
            own = [key for key, value in group.items() if _is_tensor(value) and len(_shape(value)) > 1]
            if known or (len(inner) == 1 and not own):
                name = (known or inner)[0]
                return self._descend(group[name], (*path, str(name)))
            if not own:
                names = ", ".join(repr(".".join((*path, str(key))))[:100] for key in inner[:20])
                raise InputError(
                    f"{self._label} holds several groups of tensors, {names}, and none has a known name "
                    f"({', '.join(WRAPPERS[:4])}); name the one you mean with key= (--key)"
                )
        return {str(name): value for name, value in group.items() if _is_tensor(value) or self._opaque(value)}

    def _find(self, loaded: Any, key: str) -> Any:
        """Return the group of that name; names may have dots themselves."""
        group = self._mapping(loaded)
        if group is None:
            return None
        if key in group:
            return group[key] if self._mapping(group[key]) is not None and self._holds(group[key]) else None
        parts = key.split(".")
        for count in range(1, min(len(parts), DEEPEST + 5)):
            first = ".".join(parts[:count])
            if first in group and (found := self._find(group[first], ".".join(parts[count:]))) is not None:
                return found
        return None

    def _paths(self, loaded: Any, depth: int = 0) -> list[str]:
        """Return the names of the groups, those inside others with dots."""
        found: list[str] = []
        group = self._mapping(loaded) or {}
        for key, value in list(group.items())[:1000]:
            if len(found) < 50 and self._mapping(value) is not None and self._holds(value):
                found.append(str(key)[:100])
                if depth < 1 and not isinstance(value, Made):
                    found += [f"{str(key)[:100]}.{inner}" for inner in self._paths(value, depth + 1)[:10]]
        return found

    def _mapping(self, value: Any) -> Mapping[Any, Any] | None:
        """Return names and values of a dictionary, an instance of a subclass of it, or a module."""
        if not isinstance(value, Made):
            return value if isinstance(value, Mapping) else None
        if id(value) not in self._modules:
            self._modules[id(value)] = module_state(value) if _is_module(value) else value.pairs
        return self._modules[id(value)]

    def _holds(self, value: Any, depth: int = 0) -> bool:
        """Return whether a mapping holds a tensor. Results are kept, as the same mapping can be at many places."""
        place = id(value), depth
        if place not in self._known:
            self._known[place] = any(
                _is_tensor(item)
                or (depth < DEEPEST and self._mapping(item) is not None and self._holds(item, depth + 1))
                for item in (self._mapping(value) or {}).values()
            )
        return self._known[place]

    def _opaque(self, value: Any) -> bool:
        """Return whether a value of a file is a tuple or an object of an unknown class, made from tensors."""
        return isinstance(value, (Made, tuple, list)) and self._mapping(value) is None and _made_from_tensors(value)


def entry_of_object(value: Any) -> Entry:
    """Return the entry of a value that only its library can read."""
    what = f"an object of the class {value.name[:100]}" if isinstance(value, Made) else f"a {type(value).__name__}"
    return Entry((), f"{what}, not a plain tensor")


def module_state(module: Made) -> dict[str, Any]:
    """Return the state dict of a module that was saved as a whole.

    Raises
    ------
    InputError
        If it has more than `MOST_NAMES` modules and tensors, or is nested more than 100 deep.
    """
    state: dict[str, Any] = {}
    waiting, seen = [("", module, 0)], 0
    while waiting:
        prefix, here, depth = waiting.pop()
        seen += 1 + len(here.state["_parameters"]) + len(here.state["_buffers"])
        if seen > MOST_NAMES or depth > 100:
            raise InputError(f"a module in a pickle must have at most {MOST_NAMES} tensors, 100 levels deep")
        left_out = here.state.get("_non_persistent_buffers_set")
        passing = set(map(str, _members(left_out))) if isinstance(left_out, Made) else set()
        own = {**here.state["_parameters"], **here.state["_buffers"]}
        state |= {f"{prefix}{name}": value for name, value in own.items() if value is not None and name not in passing}
        inner = [(f"{prefix}{name}.", value, depth + 1) for name, value in here.state["_modules"].items()]
        waiting += reversed([one for one in inner if isinstance(one[1], Made) and _is_module(one[1])])
    return state


def _members(made: Made) -> list[Any]:
    """Return the members of a set, which protocol 2 stores as a call with a list."""
    given = made.arguments[0] if made.arguments else None
    return [*(made.items or []), *(given if isinstance(given, list) else [])]


def _is_module(value: Made) -> bool:
    keys = ("_parameters", "_buffers", "_modules")
    return isinstance(value.state, dict) and all(isinstance(value.state.get(key), dict) for key in keys)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Stored, Tensor))


def _shape(value: Any) -> tuple[int, ...]:
    return value.entry.shape if isinstance(value, Stored) else tuple(value.shape)


def _made_from_tensors(value: Any, depth: int = 0) -> bool:
    if isinstance(value, Stored):
        return True
    inner: list[Any] = []
    if isinstance(value, Made):
        inner = [*value.arguments[:100], *(value.items or [])[:100], value.pairs, value.state]
    elif isinstance(value, (tuple, list)):
        inner = list(value[:100])
    elif isinstance(value, dict):
        inner = list(value.values())[:100]
    return depth < 3 and any(_made_from_tensors(item, depth + 1) for item in inner)
