"""What a reader of files is to those who try to break it, and how it is tried.

The contract of a reader: for any bytes it returns or raises `InputError`, or what else its module documents. `read`
goes on as a user would with what was returned: it measures the matrices, runs the network, draws the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from fuzz_mutations import Bundle
from rankscope.errors import InputError

Allowed = tuple[type[Exception], ...]


@dataclass(frozen=True)
class Reader:
    """A reader, or several that are given the same files.

    Attributes
    ----------
    name, about
        What it is called, and which files it reads.
    seeds
        Returns valid inputs.
    read
        Reads the files in a folder as a user would.
    words
        Of its formats, to be put anywhere.
    once
        Returns inputs that are to be read once and as they are, such as archives that unpack to very much.
    texts
        For a format of text: a hypothesis strategy of whole inputs; None for others.
    allowed
        What `read` may raise.
    only_if_named
        Whether it is left out where no reader is named.
    """

    name: str
    about: str
    seeds: Callable[[], list[Bundle]]
    read: Callable[[Path], object]
    words: tuple[bytes, ...] = ()
    texts: Callable[[], st.SearchStrategy[Bundle]] | None = None
    once: Callable[[], list[Bundle]] = list
    allowed: Allowed = (InputError,)
    only_if_named: bool = False


def attempt(reader: Reader, folder: Path) -> str:
    """Return "" if the reader returned, or the name of what it raised that it may raise."""
    try:
        reader.read(folder)
    except reader.allowed as error:
        return place_of(error)
    return ""


def place_of(error: BaseException) -> str:
    """Return the line of rankscope that raised an error, or else what it says: what tells one refusal from another."""
    places = [str(error)[:60]]
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if "/rankscope/" in code.co_filename:
            places.append(f"{code.co_filename.rpartition('/rankscope/')[2]}:{step.tb_lineno}")
        step = step.tb_next
    return places[-1]


def one_file(name: str, contents: Iterable[bytes]) -> list[Bundle]:
    """Return inputs of one file each."""
    return [{name: content} for content in contents]
