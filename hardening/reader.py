"""A reader of files, for the fuzzer.

The contract of a reader: for any bytes it returns or raises `InputError`. `read` also uses what was returned as a user
would: it measures the matrices, runs the network, draws the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from fuzz_mutations import Bundle
from rankscope.errors import InputError


@dataclass(frozen=True)
class Reader:
    """A reader, or several that read the same files.

    Attributes
    ----------
    name, about
        Its name, and the files it reads.
    seeds
        Returns valid inputs.
    read
        Reads the files in a folder as a user would.
    words
        Words of its formats, inserted by mutations.
    once
        Returns inputs that are read once and unchanged, such as archives that unpack to gigabytes.
    texts
        For a text format: a hypothesis strategy of whole inputs.
    """

    name: str
    about: str
    seeds: Callable[[], list[Bundle]]
    read: Callable[[Path], object]
    words: tuple[bytes, ...] = ()
    texts: Callable[[], st.SearchStrategy[Bundle]] | None = None
    once: Callable[[], list[Bundle]] = list


def attempt(reader: Reader, folder: Path) -> str:
    """Return "" if the reader returned, or the place in the code that raised InputError."""
    try:
        reader.read(folder)
    except InputError as error:
        return place_of(error)
    return ""


def place_of(error: BaseException) -> str:
    """Return the line of rankscope that raised an error, or its message, to distinguish refusals."""
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
