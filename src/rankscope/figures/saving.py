"""Save figures to files in one or several formats."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.figure import Figure

from rankscope.io.atomic import replacing
from rankscope.plot.style import styled
from rankscope.validation import choice

FORMATS = ("png", "pdf", "svg")


def save_figure(figure: Figure, path: str | os.PathLike[str], formats: tuple[str, ...] | None = None) -> list[Path]:
    """Write `figure` to `path`, or once for each of `formats` with the suffix replaced, and return the paths.

    Parameters
    ----------
    path
        Its suffix is the format, unless `formats` is given.
    formats
        Of "png", "pdf", "svg".

    Raises
    ------
    InputError
        If a format is unknown or the folder cannot be written to.
    """
    paths = figure_paths(path, formats)
    for written in paths:
        # Without this a PDF contains its creation date, and equal figures differ.
        metadata = {"CreationDate": None} if written.suffix == ".pdf" else None
        with replacing(written) as temporary, styled():
            figure.savefig(temporary, format=written.suffix.lstrip("."), metadata=metadata)
    return paths


def figure_paths(path: str | os.PathLike[str], formats: tuple[str, ...] | None = None) -> list[Path]:
    """Return the paths that `save_figure` would write; call it to validate formats before long work.

    Raises
    ------
    InputError
        If a format is unknown.
    """
    target = Path(path)
    kinds = formats if formats is not None else (target.suffix.lstrip("."),)
    return [target.with_suffix("." + choice("format", kind, FORMATS)) for kind in kinds]
