"""Source text that identifies a function or class of the user: its own, and that of its module's names that it uses.

A task that calls a helper function or reads a constant of its file is another task once these change. Other definitions
of the file do not count, so that a file may hold several tasks and networks. Imported modules are named by their
import statements only.
"""

from __future__ import annotations

import ast
import inspect
import symtable
import sys
from collections.abc import Mapping
from typing import Any

SOURCE_TEXT = "__rankscope_source__"
"""Attribute of a module that was executed from a file: the text that was executed."""


def source_text(named: Any) -> str:
    """Return the source of a function or class and, in the order of the file, of all it uses from its module.

    Raises
    ------
    OSError, TypeError
        If there is no source, for example for a function of an extension module.
    """
    own = inspect.getsource(named)
    module = sys.modules.get(named.__module__)
    name = str(named.__qualname__).partition(".")[0]
    try:
        text = getattr(module, SOURCE_TEXT, None) or inspect.getsource(module)  # type: ignore[arg-type]
        statements = ast.parse(text).body
    except (OSError, TypeError, SyntaxError):
        return own
    tables = {child.get_name(): child for child in symtable.symtable(text, "", "exec").get_children()}
    bound = [(statement, _bound(statement)) for statement in statements if not _is_main_block(statement)]
    if not any(name in names for _, names in bound):
        return own  # made by another function, or in a cell of a notebook
    used: set[int] = set()
    waiting = [name]
    known = {name}
    while waiting:
        wanted = waiting.pop()
        for index, (statement, names) in enumerate(bound):
            if wanted in names and index not in used:
                used.add(index)
                more = _uses(statement, tables) - known
                known |= more
                waiting += more
    lines = text.splitlines(keepends=True)
    return "".join(_segment(lines, bound[index][0]) for index in sorted(used))


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module defines or changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    names: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {inner.id for inner in ast.walk(node.value) if isinstance(inner, ast.Name)}
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names


def _uses(statement: ast.stmt, tables: Mapping[str, symtable.SymbolTable]) -> set[str]:
    """Return the names of the module that a statement may use; local variables of functions do not count."""
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and statement.name in tables:
        inner = list(statement.body)
        statement.body = []
        outer = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}  # decorators, bases, defaults
        statement.body = inner
        return names & (outer | _globals(tables[statement.name]))
    return names


def _globals(table: symtable.SymbolTable) -> set[str]:
    found = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    return found.union(*map(_globals, table.get_children()))


def _is_main_block(statement: ast.stmt) -> bool:
    """Return whether a statement is `if __name__ == "__main__":`, which runs the code and is no part of it."""
    return isinstance(statement, ast.If) and "__name__" in {
        node.id for node in ast.walk(statement.test) if isinstance(node, ast.Name)
    }


def _segment(lines: list[str], statement: ast.stmt) -> str:
    first = min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", ()))])
    return "".join(lines[first - 1 : statement.end_lineno])
