"""Commands of the command line, run in this process."""

import pytest

from rankscope.cli import main


def call(capsys, *arguments):
    """Return the exit status of a command, what it prints, and its errors."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err
