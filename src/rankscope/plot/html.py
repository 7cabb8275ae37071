"""HTML displays of objects in notebooks: a small table beside small plots, as one piece of text."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from rankscope.plot.style import styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes"], object]
PANEL = (2.5, 1.9)  # inches


def card(title: str, rows: Mapping[str, object], draw: Sequence[Draw] = ()) -> str:
    """Return a title, a table of names and values, and plots as inline SVG.

    Parameters
    ----------
    rows
        Name -> value, shown as text.
    draw
        A function for each plot, which draws into given axes.
    """
    cell = "padding:1px 10px 1px 0;text-align:left;vertical-align:top"
    body = "".join(
        f'<tr><td style="{cell};opacity:0.7">{escape(str(name))}</td><td style="{cell}">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    table = f'<table style="border:none;margin:0"><tbody>{body}</tbody></table>'
    plots = f'<div style="background:white">{svg(draw)}</div>' if draw else ""
    return (
        f'<div><strong>{escape(title)}</strong><div style="display:flex;flex-wrap:wrap;gap:16px;align-items:center">'
        f"<div>{table}</div>{plots}</div></div>"
    )


def svg(draw: Sequence[Draw]) -> str:
    """Return panels side by side as one <svg> element; pyplot and its settings are not involved."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    text = io.StringIO()
    with styled():
        figure = Figure(figsize=(PANEL[0] * len(draw), PANEL[1]), layout="constrained")
        FigureCanvasSVG(figure)
        for number, one in enumerate(draw):
            one(figure.add_subplot(1, len(draw), number + 1))
        figure.savefig(text, format="svg", metadata={"Date": None})
    content = text.getvalue()
    return content[content.index("<svg") :]
