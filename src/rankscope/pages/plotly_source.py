"""plotly.js, from the Python package plotly, so that pip brings it and no page has to fetch it."""

from __future__ import annotations

import re
from functools import cache

_STYLED_BY = re.compile(r'getElementById\("([0-9a-f]{64})"\)')


@cache
def plotly_javascript() -> str:
    """Return the source of plotly.js: about 5 MB, the one bundle that the Python package has."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


@cache
def style_guards() -> tuple[str, ...]:
    """Return the ids of elements whose presence keeps plotly.js from adding styles for maps, which we do not draw.

    Without them a strict policy refuses those styles, and browsers complain about it.
    """
    return tuple(dict.fromkeys(_STYLED_BY.findall(plotly_javascript())))
