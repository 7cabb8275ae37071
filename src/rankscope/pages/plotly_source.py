"""plotly.js, from the Python package plotly."""

from __future__ import annotations

import re
from functools import cache

from rankscope.extras import needs

_STYLE_ID = re.compile(r'getElementById\("([0-9a-f]{64})"\)')


@cache
def plotly_javascript() -> str:
    """Return the source of plotly.js (5 MB, the only bundle in the Python package)."""
    with needs("report", "a page with charts"):
        from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


@cache
def style_guards() -> tuple[str, ...]:
    """Return the ids of elements whose presence keeps plotly.js from adding styles for maps.

    A strict policy blocks those styles, and the browser would report it on the console.
    """
    return tuple(dict.fromkeys(_STYLE_ID.findall(plotly_javascript())))
