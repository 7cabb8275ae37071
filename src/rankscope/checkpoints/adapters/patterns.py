r"""Patterns of layer names in an adapter's configuration, matched by PEFT's rule without backtracking.

PEFT (0.21, `get_pattern_key`) takes the first key of `rank_pattern` or `alpha_pattern` for which
``re.match(r"(.*\.)?(KEY)$", name)`` holds: KEY is a regular expression for the last components of a name. As Python's
matcher can take time exponential in the length of a name, a file from elsewhere could stop the program. Here each
element of a pattern maps a set of positions to a set of positions, so the time is polynomial.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, TypeVar

from rankscope.errors import InputError

Value = TypeVar("Value")
Positions = frozenset[int]
Node = Callable[[str, Positions], Positions]

LONGEST = 500
"""Characters of a pattern."""

DEEPEST = 8
"""Groups inside each other."""

ATOM = re.compile(r"\\[dDwWsS]|\\[^a-zA-Z0-9]|\[\^?\]?(?:[^\]\\]|\\.)*\]|[^\\\[\](){}*+?|^$]")
"""One character: a class of characters, an escaped character, a dot, or a character itself."""

REPEAT = re.compile(r"(?:([*+?])|\{(\d{1,4})(,(\d{1,4})?)?\})\??")
"""Whether a repetition is greedy makes no difference to a match of the whole name."""


class Pattern:
    """A regular expression of characters, classes, groups, alternatives, repetitions and the anchors ^ and $.

    Raises
    ------
    ValueError
        If the text is something else: a reference to a group, a condition, a look-ahead. The message is the reason.
    """

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise ValueError(f"it has {len(text)} characters, more than {LONGEST}")
        self._text, self._at = text, 0
        self._node = self._alternatives(0)
        if self._at < len(text):
            raise ValueError(f"unexpected {text[self._at]!r}")

    def ends(self, name: str) -> bool:
        """Return whether the last components of a name, or all of it, are matched."""
        starts = frozenset([0, *(dot.end() for dot in re.finditer(r"\.", name))])
        return len(name) in self._node(name, starts)

    def _alternatives(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise ValueError(f"groups are nested more than {DEEPEST} times")
        branches = [self._sequence(depth)]
        while self._text.startswith("|", self._at):
            self._at += 1
            branches.append(self._sequence(depth))
        return lambda name, at: frozenset().union(*(branch(name, at) for branch in branches))

    def _sequence(self, depth: int) -> Node:
        nodes: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            nodes.append(self._repeated(self._element(depth)))
        return lambda name, at: reduce(lambda positions, node: node(name, positions), nodes, at)

    def _element(self, depth: int) -> Node:
        text, at = self._text, self._at
        if text[at] in "^$":
            self._at += 1
            start = text[at] == "^"
            return lambda name, at: at & {0 if start else len(name)}
        if text[at] == "(":
            if text.startswith("(?", at) and not text.startswith("(?:", at):
                raise ValueError("only plain groups are read")
            self._at += 3 if text.startswith("(?:", at) else 1
            inner = self._alternatives(depth + 1)
            if not text.startswith(")", self._at):
                raise ValueError("a group without an end")
            self._at += 1
            return inner
        found = ATOM.match(text, at)
        if found is None:
            raise ValueError(f"{text[at : at + 2]!r} is not read")
        self._at = found.end()
        try:
            one = re.compile(found[0])
        except re.error as error:
            raise ValueError(str(error)) from error
        return lambda name, at: frozenset(i + 1 for i in at if i < len(name) and one.fullmatch(name[i]))

    def _repeated(self, node: Node) -> Node:
        found = REPEAT.match(self._text, self._at)
        if found is None:
            return node
        self._at = found.end()
        if REPEAT.match(self._text, self._at) or self._text.startswith("+", self._at):
            raise ValueError("a repetition of a repetition")
        if found[1]:
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[1]]
        else:
            least = int(found[2])
            most = least if not found[3] else int(found[4]) if found[4] else None
        if most is not None and most < least:
            raise ValueError(f"{found[0]!r} is not read")
        return lambda name, at: _repeat(node, name, at, least, most)


def _repeat(node: Node, name: str, at: Positions, least: int, most: int | None) -> Positions:
    """Return the positions after `least` to `most` matches of an element."""
    for _ in range(least):
        following = node(name, at)
        if following == at:
            break
        at = following
    reached, new, count = at, at, least
    while new and (most is None or count < most):
        new = node(name, new) - reached
        reached |= new
        count += 1
    return reached


class Patterns:
    """Values for the layers that patterns name; the first pattern that fits a layer decides."""

    def __init__(self, given: Any, where: str, option: str) -> None:
        if not isinstance(given, Mapping):
            raise InputError(f"{where} must have an object as {option}, got {given!r:.100}")
        self._given = given
        self._patterns: dict[str, Pattern] = {}
        for text in given:
            try:
                self._patterns[text] = Pattern(text)
            except ValueError as error:
                raise InputError(f"{where} must name layers in {option} plainly, got {text!r:.100}: {error}") from error

    def value(self, layer: str, default: Any) -> Any:
        """Return the value for a layer."""
        for text, pattern in self._patterns.items():
            if pattern.ends(layer):
                return self._given[text]
        return self._given.get(layer, default)
