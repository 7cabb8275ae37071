"""TorchScript archives, written by `torch.jit.save`: the state dict of the module, without loading its code.

The module is a pickle of objects whose attributes are tensors and submodules. Which attributes are parameters and
buffers is in the text of the classes, `__parameters__ = ["weight", "bias", ]`; the others are not in the state dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rankscope.checkpoints.formats.pickles import Made
from rankscope.checkpoints.formats.torch_tensors import Stored
from rankscope.checkpoints.source import Entry
from rankscope.errors import InputError

CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:  __\w+__ = .*\n)*)", re.M)
LISTED = re.compile(r"^  __(?:parameters|buffers)__ = \[(.*)\]$", re.M)
QUOTED = re.compile(r'"([^"]*)"')
MOST_NAMES = 300_000


def script_state(root: Any, code: Mapping[str, str], label: str) -> dict[str, Any]:
    """Return the state dict of a module, as `torch.jit.load(path).state_dict()` does.

    Parameters
    ----------
    root
        The object in the archive's pickle.
    code
        Text of the classes, by module.

    Raises
    ------
    InputError
        If it is no module, has no tensors, or has more than `MOST_NAMES`.
    """
    if not isinstance(root, Made) or not root.name.startswith("__torch__."):
        raise InputError(f"{label} must be a TorchScript archive with a module, got another object")
    listed = {f"{module}.{name}": names for module, text in code.items() for name, names in _classes(text)}
    state: dict[str, Any] = {}
    waiting, seen = [("", root, 0)], 0
    while waiting:
        prefix, here, depth = waiting.pop()
        attributes = here.state if isinstance(here.state, dict) else {}
        seen += 1 + len(attributes)
        if seen > MOST_NAMES or depth > 100:
            raise InputError(f"{label} must have at most {MOST_NAMES} tensors, in modules 100 levels deep")
        if here.state is not None and not isinstance(here.state, dict):
            reason = f"packed into an object of the class {here.name[:100]}; save the model before it is quantized"
            state[prefix.removesuffix(".")] = Stored(Entry((), reason))
        own = listed.get(here.name)
        state |= {
            f"{prefix}{name}": value
            for name, value in attributes.items()
            if isinstance(value, Stored) and (own is None or name in own)
        }
        inner = [
            (f"{prefix}{name}.", value, depth + 1) for name, value in attributes.items() if isinstance(value, Made)
        ]
        waiting += reversed([one for one in inner if one[1].name.startswith("__torch__.")])
    if not state:
        raise InputError(
            f"{label} must hold a module with parameters, got a TorchScript archive without any (a frozen module has "
            "constants instead); save it before torch.jit.freeze"
        )
    return state


def _classes(text: str) -> list[tuple[str, set[str]]]:
    return [
        (name, {one for names in LISTED.findall(head) for one in QUOTED.findall(names)})
        for name, head in CLASS.findall(text)
    ]
