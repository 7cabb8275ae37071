"""What a run folder is about: FOLDER/run.json.

It holds a description of the sweep, given by whoever started it, and the list of its cells. The same folder may be
used again with more cells: the lists are merged. It is for readers; no cell depends on it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankscope.errors import InputError
from rankscope.io.atomic import replacing
from rankscope.sweep.locks import acquire

FORMAT = "rankscope.sweep.v1"
DIGEST = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""What a cell may be called: its name is that of a file."""


@dataclass(frozen=True)
class Manifest:
    """The content of run.json.

    Attributes
    ----------
    description
        What the sweep is, as plain values.
    cells
        The description of each cell by its digest, in the order they were first asked for.
    """

    description: Mapping[str, Any]
    cells: Mapping[str, Mapping[str, Any]]


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest at `path`, or None if there is none.

    Raises
    ------
    InputError
        If the file cannot be read or is not the manifest of a sweep.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}")
        cells = {str(cell["digest"]): dict(cell["description"]) for cell in values["cells"]}
        foreign = next((digest for digest in cells if not DIGEST.fullmatch(digest)), None)
        if foreign is not None:
            raise ValueError(f"a cell is called {foreign[:40]!r}")
        return Manifest(dict(values["description"]), cells)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path} must be a sweep's run.json ({FORMAT}), got something else ({error!r:.200}); "
            f"choose another folder, or move the file away: no finished cell depends on it"
        ) from error


def merge_manifest(
    path: Path, claim_path: Path, cells: Sequence[tuple[str, Mapping[str, Any]]], description: Mapping[str, Any] | None
) -> Manifest:
    """Add `cells` to the manifest at `path`, and replace its description unless `description` is None.

    Parameters
    ----------
    claim_path
        Held while the file is read and written, so that of two processes neither undoes what the other added.

    Raises
    ------
    InputError
        If the file there is not a manifest, cannot be written, or the descriptions are not JSON.
    """
    while (claim := acquire(claim_path)) is None:
        time.sleep(0.02)
    with claim:
        old = read_manifest(path)
        merged = Manifest(
            (old.description if old else {}) if description is None else description,
            {**(old.cells if old else {}), **dict(cells)},
        )
        listed = [{"digest": digest, "description": cell} for digest, cell in merged.cells.items()]
        values = {"format": FORMAT, "description": merged.description, "cells": listed}
        try:
            text = json.dumps(values, indent=1)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"descriptions of a sweep and its cells must be JSON values: {error}") from error
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return merged
