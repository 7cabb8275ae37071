"""Which tensors of two checkpoints belong together, by their names.

Names may differ by the components that wrappers insert, such as `module.` (DataParallel) or `_orig_mod.`
(torch.compile), and by one prefix that all of them have in one checkpoint and not in the other, such as `backbone.`.
Names that are ambiguous without these are not matched. Other differences are given as a `Renaming`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from rankscope.errors import InputError

PREFIXES = ("module.", "base_model.model.", "model.", "transformer.", "network.", "net.")
"""Of wrappers, and of the attribute that a model with a head keeps the model without one in."""

WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_fpw_module)\.")
"""Components that torch.compile, activation checkpointing and FSDP insert anywhere in a name."""


class Renaming(NamedTuple):
    """Changes of names before they are matched, in both checkpoints; names in results stay those of the files.

    Parameters
    ----------
    prefix
        Removed where a name begins with it. Of two names that are then equal, the one that had it counts.
    rename
        Texts and their replacements, anywhere in a name, one after the other. Not regular expressions.
    """

    prefix: str | None = None
    rename: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, prefix: str | None, rename: Mapping[str, str] | None) -> Renaming:
        """Return a checked renaming from the options of `compare`.

        Raises
        ------
        InputError
            If one of the two is of another type, or empty.
        """
        if prefix is not None and (not isinstance(prefix, str) or not prefix):
            raise InputError(f"prefix must be the beginning of names, such as 'model.', got {prefix!r}")
        if rename is not None and not isinstance(rename, Mapping):
            raise InputError(f"rename must map texts to texts, as {{'old': 'new'}}, got {rename!r}")
        changes = tuple((rename or {}).items())
        for old, new in changes:
            if not isinstance(old, str) or not isinstance(new, str) or not old:
                raise InputError(f"rename must map texts to texts, as {{'old': 'new'}}, got {old!r}: {new!r}")
        return cls(prefix, changes)

    def __bool__(self) -> bool:
        return self.prefix is not None or bool(self.rename)

    def apply(self, name: str) -> str:
        """Return the name that a tensor is matched by."""
        if self.prefix is not None:
            name = name.removeprefix(self.prefix)
        for old, new in self.rename:
            name = name.replace(old, new)
        return name


class Matched(NamedTuple):
    """Names before and after learning in pairs, None where one is missing; and the prefix by which all differ.

    `hidden` are names of tensors that another one replaces, as it has their name without the given prefix.
    """

    pairs: list[tuple[str | None, str | None]]
    note: str | None
    hidden: list[str]


def match(before: Iterable[str], after: Iterable[str], renaming: Renaming | None = None) -> Matched:
    """Return which tensors of two checkpoints belong together, in the order of `before`.

    Raises
    ------
    InputError
        If the renaming applies to no name, or gives one name to two tensors.
    """
    if not renaming:
        return Matched(*_match(list(before), list(after)), [])
    old, new = list(before), list(after)
    _check_used(renaming, old, new)
    left, right = _renamed(renaming, old), _renamed(renaming, new)
    pairs, note = _match(list(left), list(right))
    hidden = [name for names, kept in ((old, left), (new, right)) for name in set(names) - set(kept.values())]
    return Matched([(a and left[a], b and right[b]) for a, b in pairs], note, sorted(hidden))


def _check_used(renaming: Renaming, old: list[str], new: list[str]) -> None:
    """Raise `InputError` if one of the changes applies to no name."""
    every = [*old, *new]
    if (prefix := renaming.prefix) is not None and not any(name.startswith(prefix) for name in every):
        raise InputError(f"prefix must begin names of before or after, got {prefix!r}; names are {_two(old, new)}")
    every = [renaming._replace(rename=()).apply(name) for name in every]
    for change in renaming.rename:
        if not any(change[0] in name for name in every):
            raise InputError(
                f"rename must replace texts in names of before or after, got {change[0]!r}; names are {_two(old, new)}"
            )
        every = [name.replace(*change) for name in every]


def _two(old: list[str], new: list[str]) -> str:
    return ", ".join(repr(names[0]) for names in (old, new) if names) or "none"


def _renamed(renaming: Renaming, names: list[str]) -> dict[str, str]:
    """Return new names with the old ones."""
    prefix = renaming.prefix
    found: dict[str, str] = {}
    for name in names:
        new = renaming.apply(name)
        if new not in found:
            found[new] = name
            continue
        first, second = (prefix is not None and one.startswith(prefix) for one in (found[new], name))
        if first == second:
            raise InputError(f"rename must keep names apart, but {found[new]!r} and {name!r} both become {new!r}")
        if second:
            found[new] = name
    return found


def _match(old: list[str], new: list[str]) -> tuple[list[tuple[str | None, str | None]], str | None]:
    same = set(old) & set(new)
    left = {_bare(name): name for name in _unambiguous(name for name in old if name not in same)}
    right = {_bare(name): name for name in _unambiguous(name for name in new if name not in same)}
    partner = {name: name for name in same} | {left[bare]: right[bare] for bare in left.keys() & right.keys()}
    taken = set(partner.values())
    left, right = (
        {bare: name for bare, name in left.items() if bare not in right},
        {bare: name for bare, name in right.items() if name not in taken},
    )
    note = None
    for shorter, longer, where in ((left, right, "after"), (right, left, "before")):
        prefix = _prefix(shorter, longer)
        if prefix is not None:
            found = {name: longer[prefix + bare] for bare, name in shorter.items() if prefix + bare in longer}
            partner |= found if where == "after" else {a: b for b, a in found.items()}
            note = f"names {where} learning begin with {prefix!r}, which was ignored"
            break
    taken = set(partner.values())
    pairs: list[tuple[str | None, str | None]] = [(name, partner.get(name)) for name in old]
    return pairs + [(None, name) for name in new if name not in taken], note


def _prefix(shorter: Collection[str], longer: Collection[str]) -> str | None:
    """Return the prefix with which most names of `shorter` are names of `longer`.

    None if it applies to less than half of the smaller collection, or if another one applies to as many names.
    """
    counts = Counter(
        name[:end]
        for name in longer
        for end in (dot.end() for dot in re.finditer(r"\.", name))
        if name[end:] in shorter
    )
    (prefix, most), (_, second) = [*counts.most_common(2), ("", 0), ("", 0)][:2]
    return prefix if most > second and 2 * most >= min(len(shorter), len(longer)) else None


def _unambiguous(names: Iterable[str]) -> list[str]:
    listed = list(names)
    counts = Counter(_bare(name) for name in listed)
    return [name for name in listed if counts[_bare(name)] == 1]


def _bare(name: str) -> str:
    name = WRAPPERS.sub("", name)
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name[len(prefix) :]
    return name


def common_start(names: Collection[str]) -> str:
    """Return what all names begin with, up to a point; nothing for a single name."""
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind(".", 0, same) + 1]
