"""Skeleton of a page: a head with a Content-Security-Policy, a header with the title, and a body.

Scripts and styles are either in the page (`Inline`; the policy lists their hashes) or on the page's own server
(`Linked`). The browser blocks inline event handlers, `eval`, requests to other servers, and style attributes in the
HTML, except for the few that plotly.js writes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from rankscope.errors import InputError
from rankscope.extras import needs
from rankscope.pages.plotly_source import style_guards
from rankscope.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

PLOTLY_STYLE = "plotly.js-style-global"
"""Id of the style element to which plotly.js adds its rules if it exists."""

PLOTLY_TEXT_STYLES = ("font-size:70%", "font-weight:bold", "font-style:italic")
"""Style attributes that plotly.js sets on sub- and superscripts, <b> and <i>."""


@dataclass(frozen=True)
class Inline:
    """A script or style in the page itself.

    Attributes
    ----------
    text
        Trusted source code.

    Raises
    ------
    InputError
        If the text would end its own element.
    """

    text: str

    def __post_init__(self) -> None:
        lower = self.text.lower()
        for forbidden in ("</script", "</style", "<!--"):
            if forbidden in lower:
                raise InputError(f"text of a script or style must not contain {forbidden!r}")

    @property
    def source(self) -> str:
        """Its source expression in a policy: a hash."""
        return _hash_source(self.text)


@dataclass(frozen=True)
class Linked:
    """A script or style that the page loads from its own server.

    Attributes
    ----------
    address
        Relative to the page, or a path.
    """

    address: str

    @property
    def source(self) -> str:
        """Its source expression in a policy."""
        return "'self'"


@dataclass(frozen=True)
class Data:
    """Values for the scripts: `JSON.parse(document.getElementById(id).textContent)`.

    Attributes
    ----------
    id
        Of the element.
    value
        Any JSON value. Its strings need not be trusted.
    """

    id: str
    value: Any

    @property
    def json(self) -> str:
        """The value as JSON, escaped so that it cannot end its element."""
        text = json.dumps(self.value, allow_nan=False, separators=(",", ":"))
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(
    title: str,
    body: str,
    *,
    scripts: Sequence[Inline | Linked] = (),
    styles: Sequence[Inline | Linked] = (),
    data: Sequence[Data] = (),
    lead: str = "",
    connect: Sequence[str] = (),
    charts: bool = True,
) -> str:
    """Return a whole HTML page.

    Parameters
    ----------
    title
        Heading and title of the window. Plain text, escaped here.
    body
        Trusted HTML, for example from a jinja2 template with autoescape.
    scripts, styles
        In order; scripts run after the body is parsed. `shared()` returns those of every page.
    data
        Values for the scripts.
    lead
        One sentence below the title. Plain text, escaped here.
    connect
        Source expressions to which scripts may make requests: ("'self'",) for a page with its own server, none for a
        standalone page.
    charts
        Whether the page has charts of plotly.js.
    """
    return (
        templates("rankscope.pages")
        .get_template("shell.html")
        .render(
            title=title,
            lead=lead,
            body=body,
            policy=policy(scripts, styles, connect),
            scripts=scripts,
            styles=styles,
            data=data,
            plotly_style=PLOTLY_STYLE,
            guards=style_guards() if charts else (),
            version=__version__,
        )
    )


def policy(scripts: Iterable[Inline | Linked], styles: Iterable[Inline | Linked], connect: Iterable[str] = ()) -> str:
    """Return the Content-Security-Policy of a page, for its head or for a server's header.

    Only a header may add "; frame-ancestors 'none'".
    """
    allowed = {
        "default-src": ["'none'"],
        "script-src": _sources(scripts),
        "style-src": _sources(styles),
        "style-src-attr": ["'unsafe-hashes'", *map(_hash_source, PLOTLY_TEXT_STYLES)],
        # Images that plotly renders for download.
        "img-src": ["data:", "blob:"],
        "connect-src": list(connect) or ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in allowed.items())


@cache
def shared(name: str) -> str:
    """Return the text of a shared file: "style.css" or "charts.js"."""
    return (files("rankscope.pages") / name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _sources(elements: Iterable[Inline | Linked]) -> list[str]:
    return list(dict.fromkeys(element.source for element in elements)) or ["'none'"]


@cache
def templates(package: str) -> Environment:
    """Return the jinja2 environment of the templates in a package, with autoescape.

    Raises
    ------
    InputError
        If jinja2 is not installed.
    """
    with needs("report", "an HTML page"):
        from jinja2 import Environment, PackageLoader
    return Environment(loader=PackageLoader(package), autoescape=True, trim_blocks=True, lstrip_blocks=True)
