"""Figures into files, in as many formats as asked for, atomically."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.figure import Figure

from rankscope.figures.style import styled
from rankscope.io.atomic import replacing
from rankscope.validation import choice

FORMATS = ("png", "pdf", "svg")


def save_figure(figure: Figure, path: str | os.PathLike[str], formats: tuple[str, ...] | None = None) -> list[Path]:
    """Write `figure` to `path`, or beside it once for each of `formats`.

    Parameters
    ----------
    path
        Its suffix is the format, unless `formats` says more.
    formats
        Of "png", "pdf", "svg".

    Returns
    -------
    The paths written.

    Raises
    ------
    InputError
        If a format is unknown or the folder cannot be written to.
    """
    paths = figure_paths(path, formats)
    for written in paths:
        # A PDF carries its date of making otherwise, and two runs would differ in nothing else.
        metadata = {"CreationDate": None} if written.suffix == ".pdf" else None
        with replacing(written) as temporary, styled():
            figure.savefig(temporary, format=written.suffix.lstrip("."), metadata=metadata)
    return paths


def figure_paths(path: str | os.PathLike[str], formats: tuple[str, ...] | None = None) -> list[Path]:
    """Return where `save_figure` would write, which is worth knowing before long work.

    Raises
    ------
    InputError
        If a format is unknown.
    """
    target = Path(path)
    wanted = formats if formats is not None else (target.suffix.lstrip("."),)
    return [target.with_suffix("." + choice("format", kind, FORMATS)) for kind in wanted]
