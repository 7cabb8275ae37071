"""Which tensor of one checkpoint is which of the other.

Names are the same but for what wrappers put in front of them: `module.` (DataParallel), `_orig_mod.` (torch.compile),
`base_model.model.` (PEFT), or the attribute that a headless model hangs under in a whole one. Where leaving these out
leaves two tensors with one name, nothing is guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

PREFIXES = ("module.", "_orig_mod.", "base_model.model.", "model.", "transformer.", "network.", "net.")


def match(before: Iterable[str], after: Iterable[str]) -> list[tuple[str | None, str | None]]:
    """Return pairs of names, in the order of `before`; None stands where the other side has no such tensor."""
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
