"""The house is as the README says: every room is named there, and what a room imports is never above it."""

import ast
import re
from pathlib import Path

import pytest

import rankscope

PACKAGE = Path(rankscope.__file__).parent
README = (Path(__file__).parents[1] / "README.md").read_text()
ROOMS = re.findall(r"`(\w+)`", re.findall(r"rooms of the house, from the top: (.*?)\. Each", README, re.DOTALL)[0])


def imported(module):
    """The rooms that a module takes something from, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *rest = name.split(".")
            if first == "rankscope" and rest and rest[0] in ROOMS:
                yield rest[0]


def test_every_room_is_named():
    assert {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_downwards(room):
    above = ROOMS[: ROOMS.index(room)]
    modules = list((PACKAGE / room).rglob("*.py"))
    assert modules
    assert not {(module.name, taken) for module in modules for taken in imported(module) if taken in above}


def test_what_is_below_all_rooms_imports_none():
    for name in ("arguments", "durable", "errors", "version"):
        assert not list(imported(PACKAGE / f"{name}.py"))
