"""Matching of the tensor names of two checkpoints.

Names may differ by the prefixes of wrappers: `module.` (DataParallel), `_orig_mod.` (torch.compile),
`base_model.model.` (PEFT), or the attribute of a headless model inside the whole one. Names that are ambiguous without
their prefixes are not matched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

PREFIXES = ("module.", "_orig_mod.", "base_model.model.", "model.", "transformer.", "network.", "net.")


def match(before: Iterable[str], after: Iterable[str]) -> list[tuple[str | None, str | None]]:
    """Return pairs of names, in the order of `before`; None for a tensor that the other does not have."""
    old, new = list(before), list(after)
    same = set(old) & set(new)
    left = {_bare(name): name for name in _unambiguous(name for name in old if name not in same)}
    right = {_bare(name): name for name in _unambiguous(name for name in new if name not in same)}
    partner = {name: name for name in same} | {left[bare]: right[bare] for bare in left.keys() & right.keys()}
    taken = set(partner.values())
    return [(name, partner.get(name)) for name in old] + [(None, name) for name in new if name not in taken]


def _unambiguous(names: Iterable[str]) -> list[str]:
    listed = list(names)
    counts = Counter(_bare(name) for name in listed)
    return [name for name in listed if counts[_bare(name)] == 1]


def _bare(name: str) -> str:
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name[len(prefix) :]
    return name
