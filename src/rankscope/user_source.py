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
from types import CodeType
from typing import Any

SOURCE_TEXT = "__rankscope_source__"
"""Attribute of a module that was executed from a file: the text that was executed."""
NOT_OF_THE_SOURCE = (
    *("__module__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__"),
    "__slotnames__",  # which the first pickling of an instance adds to its class
)
"""Attributes of a class that depend on where it stands or how it was used, or are documentation."""


def source_text(named: Any) -> str:
    """Return the source of a function or class and, in the order of the file, of all it uses from its module.

    Raises
    ------
    OSError, TypeError
        If there is no source, for example for a function of an extension module.

    Notes
    -----
    A class of a notebook has no file: its text is that of its functions and values, and of what they use.
    """
    if is_interactive(named):
        return _interactive_text(named)
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


def is_interactive(named: Any) -> bool:
    """Return whether a function or class was defined in a cell of a notebook or at a prompt."""
    main = getattr(named, "__module__", None) == "__main__"
    return main and getattr(sys.modules["__main__"], "__file__", None) is None


def _interactive_text(named: Any) -> str:
    namespace = vars(sys.modules["__main__"])
    pieces: list[str] = []
    seen: set[int] = set()

    def add(name: str, thing: Any) -> None:
        for wrapped in ("__func__", "fget", "func", "__wrapped__"):
            thing = getattr(thing, wrapped, thing) if not isinstance(thing, type) else thing
        if id(thing) in seen:
            return
        if isinstance(thing, type) and thing.__module__ == "__main__":
            seen.add(id(thing))
            pieces.append(f"class {name} of {[base.__qualname__ for base in thing.__bases__]}")
            for base in thing.__bases__:
                add(base.__qualname__, base)
            for key, value in vars(thing).items():
                add(key, value)
        elif inspect.isfunction(thing) and thing.__module__ == "__main__":
            seen.add(id(thing))
            pieces.append(_function_text(thing) + repr(thing.__defaults__) + repr(thing.__kwdefaults__))
            for used in _names_in(thing.__code__):
                if used in namespace:
                    add(used, namespace[used])
        elif _is_plain(thing) and name not in NOT_OF_THE_SOURCE:
            pieces.append(f"{name} = {thing!r}")

    add(named.__qualname__, named)
    return "\n".join(pieces)


def _function_text(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # a prompt keeps no source
        return _code_text(function.__code__)


def _code_text(code: CodeType) -> str:
    constants = [_code_text(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return " ".join([code.co_code.hex(), *code.co_names, *code.co_varnames, *constants])


def _names_in(code: CodeType) -> list[str]:
    inner = [name for one in code.co_consts if isinstance(one, CodeType) for name in _names_in(one)]
    return [*code.co_names, *inner]


def _is_plain(thing: Any) -> bool:
    if isinstance(thing, dict):
        return all(_is_plain(one) for pair in thing.items() for one in pair)
    if isinstance(thing, list | tuple):
        return all(map(_is_plain, thing))
    return thing is None or isinstance(thing, bool | int | float | complex | str | bytes)


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
