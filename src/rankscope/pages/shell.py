"""The skeleton of a page: a head with a Content-Security-Policy, a header with the title, and the body given.

Scripts and styles are either in the page (`Inline`; the policy names their hashes) or at an address of the same server
(`Linked`; the policy allows the page's own server). Inline event handlers, `eval`, requests to anybody else, and style
attributes in the HTML but for the few that plotly.js writes, are refused by the browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from rankscope.errors import InputError
from rankscope.pages.plotly_source import style_guards
from rankscope.version import __version__

PLOTLY_STYLE = "plotly.js-style-global"
"""The id of the style element into which plotly.js puts its rules, if it is there."""

PLOTLY_TEXT_STYLES = ("font-size:70%", "font-weight:bold", "font-style:italic")
"""The style attributes that plotly.js gives to sub- and superscripts, <b> and <i> in its texts."""


@dataclass(frozen=True)
class Inline:
    """A script or style written into the page.

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
        """What allows it in a policy: its hash."""
        return _hash_source(self.text)


@dataclass(frozen=True)
class Linked:
    """A script or style that the page asks its own server for.

    Attributes
    ----------
    address
        Relative to the page, or a path.
    """

    address: str

    @property
    def source(self) -> str:
        """What allows it in a policy: the page's own server."""
        return "'self'"


@dataclass(frozen=True)
class Data:
    """Values for the scripts: `JSON.parse(document.getElementById(id).textContent)`.

    Attributes
    ----------
    id
        Of the element.
    value
        What JSON can hold. Its texts need not be trusted.
    """

    id: str
    value: Any

    @property
    def json(self) -> Markup:
        """The values, in characters that cannot end the element they are in."""
        text = json.dumps(self.value, allow_nan=False, separators=(",", ":"))
        return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def page(
    title: str,
    body: str,
    *,
    scripts: Sequence[Inline | Linked] = (),
    styles: Sequence[Inline | Linked] = (),
    data: Sequence[Data] = (),
    lead: str = "",
    connect: Sequence[str] = (),
) -> str:
    """Return a whole HTML page.

    Parameters
    ----------
    title
        Its heading, and its name in the browser. Plain text, escaped here.
    body
        Trusted HTML for the main part (say, of a jinja2 template that escapes).
    scripts, styles
        In their order; scripts run after the body was read. `shared()` has those that every page wants.
    data
        Values for the scripts.
    lead
        One sentence under the title. Plain text, escaped here.
    connect
        What scripts may make requests to, in the words of a policy: ("'self'",) for a page with a server of its own,
        nothing for a page that stands alone.
    """
    template = _environment().get_template("shell.html")
    return template.render(
        title=title,
        lead=lead,
        body=Markup(body),
        policy=policy(scripts, styles, connect),
        scripts=scripts,
        styles=styles,
        data=data,
        plotly_style=PLOTLY_STYLE,
        guards=style_guards(),
        version=__version__,
        is_inline=lambda part: isinstance(part, Inline),
        Markup=Markup,
    )


def policy(scripts: Iterable[Inline | Linked], styles: Iterable[Inline | Linked], connect: Iterable[str] = ()) -> str:
    """Return the Content-Security-Policy of such a page, for its head or for a server's header.

    A header may add "; frame-ancestors 'none'", which a page cannot say of itself.
    """
    allowed = {
        "default-src": ["'none'"],
        "script-src": _sources(scripts),
        "style-src": _sources(styles),
        "style-src-attr": ["'unsafe-hashes'", *map(_hash_source, PLOTLY_TEXT_STYLES)],
        # Pictures that plotly draws for downloading.
        "img-src": ["data:", "blob:"],
        "connect-src": list(connect) or ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in allowed.items())


@cache
def shared(name: str) -> str:
    """Return the text of a file of this room: "style.css" or "charts.js"."""
    return (files("rankscope.pages") / name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _sources(parts: Iterable[Inline | Linked]) -> list[str]:
    return list(dict.fromkeys(part.source for part in parts)) or ["'none'"]


@cache
def _environment() -> Environment:
    return Environment(loader=PackageLoader("rankscope.pages"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
