"""Pickles as data: containers and numbers are built, what would be imported or called is recorded, nothing is run.

A pickle is a program for a stack machine (`pickletools` describes its instructions). Two of them matter for safety:
one imports a class or function by its name, one calls it. Here, an import gives an `Imported` with the name, and a call
a `Made` with its arguments, except for a table of functions of ours, such as the ones that describe a tensor.

All work is linear in the size of the pickle: keys of dictionaries are only numbers and texts (the hash of nested tuples
takes exponential time), memo and sets are dictionaries and lists.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Mapping
from typing import Any

LONGEST_NAME = 1000
"""Characters of a name that is imported."""

RUNS_CODE = re.compile(
    r"(?:posix|nt|os|sys|subprocess|_posixsubprocess|pty|runpy|imp|importlib|pkgutil|codeop|marshal|ctypes|_ctypes"
    r"|types\.(?:CodeType|FunctionType)|socket|_socket|http|urllib|urllib2|ftplib|requests|webbrowser|shutil|timeit"
    r"|pdb|bdb|pip|setuptools|_?pickle|cPickle|asyncio|_?operator\.(?:attrgetter|methodcaller)|torch\.(?:load|hub)"
    r"|torch\.utils\.cpp_extension|builtins|__builtin__)(?:\..*)?"
)
"""Modules that no checkpoint needs, and that are imported to run code, open files or reach the network."""

HARMLESS = re.compile(
    r"(?:builtins|__builtin__)\.(?:set|frozenset|list|dict|tuple|slice|range|complex|bytes|bytearray|int|float|bool|str"
    r"|unicode|long|object|type|Ellipsis|NotImplemented|\w*(?:Error|Exception|Warning))"
)
"""Names among the built-in ones that cannot run anything."""


class RunsCode(Exception):  # noqa: N818
    """Raised for a pickle that imports something to run code; the message is its name."""


class Imported:
    """A class or function that a pickle imports."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Made:
    """What a pickle would make with an imported class or function: an instance, or the result of a call."""

    __slots__ = ("arguments", "items", "name", "pairs", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None
        self.items: list[Any] | None = None  # of a list or set
        self.pairs: dict[Any, Any] | None = None  # of a dictionary


Calls = Mapping[str, Callable[..., Any]]

PUSHED = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
STORES = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
FETCHES = frozenset(("GET", "BINGET", "LONG_BINGET"))
SKIPPED = frozenset(("PROTO", "FRAME"))


def interpret(pickled: Any, calls: Calls, persistent: Callable[[Any], Any]) -> Any:
    """Return what a pickle describes.

    Parameters
    ----------
    pickled
        Bytes, or a file whose `read` does not allocate memory for more than is there, such as a `mmap`. It is read up
        to the end of the pickle.
    calls
        Functions of ours by the names of those that they replace.
    persistent
        Returns the object of a persistent id, which is data outside the pickle.

    Raises
    ------
    RunsCode
        If a name is imported that can run code.
    Exception
        Nearly any other, if the pickle is damaged.
    """
    machine = _Machine(calls, persistent)
    for operation, argument, _ in pickletools.genops(pickled):
        machine.step(operation.name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack, the marks on it and the memo."""

    def __init__(self, calls: Calls, persistent: Callable[[Any], Any]) -> None:
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []  # one stack for each mark
        self._memo: dict[int, Any] = {}
        self._calls, self._persistent = calls, persistent
        self._operations: dict[str, Callable[[Any], None]] = {
            name.upper().strip("_"): getattr(self, name)
            for name in dir(type(self))
            if re.fullmatch("_[a-z_0-9]+_", name)
        }

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in PUSHED:
            self.stack.append(argument)
        elif name in STORES:
            self._memo[argument] = self.stack[-1]
        elif name in FETCHES:
            self.stack.append(self._memo[argument])
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name not in SKIPPED:
            self._operations[name](argument)

    def _stop_(self, _: Any) -> None:
        """Leave the result on the stack."""

    def _memoize_(self, _: Any) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    # The stack

    def _mark_(self, _: Any) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _above_mark(self) -> list[Any]:
        above, self.stack = self.stack, self._below.pop()
        return above

    def _pop_(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._above_mark()

    def _pop_mark_(self, _: Any) -> None:
        self._above_mark()

    def _dup_(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    # Containers

    def _empty_list_(self, _: Any) -> None:
        self.stack.append([])

    def _empty_dict_(self, _: Any) -> None:
        self.stack.append({})

    def _empty_set_(self, _: Any) -> None:
        self.stack.append(Made("builtins.set", ()))

    def _list_(self, _: Any) -> None:
        items = self._above_mark()
        self.stack.append(items)

    def _frozenset_(self, _: Any) -> None:
        made = Made("builtins.frozenset", ())
        made.items = self._above_mark()
        self.stack.append(made)

    def _dict_(self, _: Any) -> None:
        items = self._above_mark()
        self.stack.append({})
        self._put(items)

    def _tuple_(self, _: Any) -> None:
        items = self._above_mark()
        self.stack.append(tuple(items))

    def _tuple1_(self, _: Any) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def _tuple2_(self, _: Any) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _tuple3_(self, _: Any) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _append_(self, _: Any) -> None:
        item = self.stack.pop()
        self._extend([item])

    def _appends_(self, _: Any) -> None:
        items = self._above_mark()
        self._extend(items)

    _additems_ = _appends_

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Made):
            target.items = target.items if target.items is not None else []
            target = target.items
        if not isinstance(target, list):
            raise TypeError(f"items are added to a {type(target).__name__}")
        target.extend(items)

    def _setitem_(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def _setitems_(self, _: Any) -> None:
        items = self._above_mark()
        self._put(items)

    def _put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Made):
            target.pairs = target.pairs if target.pairs is not None else {}
            target = target.pairs
        if not isinstance(target, dict):
            raise TypeError(f"a key is set in a {type(target).__name__}")
        target.update((as_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    # Imports and calls

    def _import(self, name: str) -> Imported:
        if len(name) > LONGEST_NAME:
            raise RunsCode(f"{name[:40]}..., a name of {len(name)} characters")
        if RUNS_CODE.fullmatch(name) and not HARMLESS.fullmatch(name):
            raise RunsCode(name)
        return Imported(name)

    def _global_(self, argument: str) -> None:
        self.stack.append(self._import(argument.replace(" ", ".")))

    def _stack_global_(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self._import(f"{module}.{name}"))

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple) or not isinstance(function, (Imported, Made)):
            raise TypeError(f"a {type(function).__name__} is called with a {type(arguments).__name__}")
        ours = self._calls.get(function.name) if isinstance(function, Imported) else None
        self.stack.append(ours(*arguments) if ours else Made(function.name, arguments))

    def _reduce_(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self._call(function, arguments)

    _newobj_ = _reduce_

    def _newobj_ex_(self, _: Any) -> None:
        named, arguments, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._call(function, (*arguments, *named.values()))

    def _inst_(self, argument: str) -> None:
        arguments = tuple(self._above_mark())
        self._call(self._import(argument.replace(" ", ".")), arguments)

    def _obj_(self, _: Any) -> None:
        function, *arguments = self._above_mark()
        self._call(function, tuple(arguments))

    def _build_(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Made):
            target.state = state
        elif not isinstance(target, (dict, list)):  # these have only attributes beside, such as `_metadata`
            raise TypeError(f"a state is given to a {type(target).__name__}")

    def _binpersid_(self, _: Any) -> None:
        self.stack.append(self._persistent(self.stack.pop()))

    def _persid_(self, argument: str) -> None:
        self.stack.append(self._persistent(argument))


def as_key(key: Any) -> Any:
    """Return a key that is hashed fast: a number or text; any other is replaced by an object that equals no other.

    Texts are hashed with a secret of the process, but for integers above 2^61 anybody can find many of the same hash.
    """
    if (
        key is None
        or isinstance(key, (str, bytes, float, Imported, Made))
        or (isinstance(key, int) and abs(key) < 2**60)
    ):
        return key
    return Made("a key", (key,))
