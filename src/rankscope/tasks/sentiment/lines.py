"""Lines of untrusted text files: limited in length, decoded from UTF-8, numbered for error messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from rankscope.errors import InputError

LONGEST_LINE = 1_000_000
"""Limit in bytes. The longest line of the treebank has 3,000, of GloVe's vectors 10,000."""


def numbered_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without the end of line), skipping empty lines.

    Parameters
    ----------
    name
        Name of the file in error messages.

    Raises
    ------
    InputError
        If a line is not UTF-8 or exceeds the limit.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise InputError(f"{name}, line {number}: must have at most {LONGEST_LINE} bytes, got more")
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}, line {number}: must be UTF-8, got the byte 0x{line[error.start]:02x}; convert the file"
            ) from error
        if text.strip():
            yield number, text
