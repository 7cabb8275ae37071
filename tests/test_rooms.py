"""The house is as the README says: every room is named there, and what a room imports is never above it."""

import ast
import re
from pathlib import Path

import pytest

import rankscope

PACKAGE = Path(rankscope.__file__).parent
README = (Path(__file__).parents[1] / "README.md").read_text()
ROOMS = re.findall(r"`(\w+)`", re.findall(r"rooms of the house, from the top: (.*?)\. Each", README, re.DOTALL)[0])


BELOW = ["arguments", "durable", "errors", "version"]


def imported(module):
    """What a module takes something from, wherever in it: rooms, what is below them, or the whole package."""
    for node in ast.walk(ast.parse(module.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *rest = name.split(".")
            if first == "rankscope":
                yield rest[0] if rest else first


def test_every_room_is_named():
    assert {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_downwards(room):
    allowed = {*ROOMS[ROOMS.index(room) :], *BELOW}
    modules = list((PACKAGE / room).rglob("*.py"))
    assert modules
    assert not {(module.name, taken) for module in modules for taken in imported(module) if taken not in allowed}


@pytest.mark.parametrize("name", BELOW)
def test_what_is_below_all_rooms_imports_none(name):
    assert set(imported(PACKAGE / f"{name}.py")) <= set(BELOW)
