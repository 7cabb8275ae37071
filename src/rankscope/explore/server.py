"""What is answered: two pages, their scripts, and the values that they draw.

    /TOKEN/                             the theory
    /TOKEN/api/curves?gain=&target=     both theories over learning time
    /TOKEN/api/phases                   learning rates over g and z_hat
    /TOKEN/api/networks?gain=&target=&units=   networks as they are foretold and trained (server-sent events)
    /TOKEN/run                          a run folder
    /TOKEN/api/run                      what has become of it (server-sent events)
    /TOKEN/api/run/cells/DIGEST         more of one network

Errors are JSON: {"error": what is wrong}. Everything that takes time happens in another thread or process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from rankscope.errors import InputError
from rankscope.explore.bounds import GAIN, START_UNITS, TARGET, UNITS, for_the_page
from rankscope.explore.curves import curves
from rankscope.explore.guard import Guard
from rankscope.explore.live import LiveRun, encoded, message
from rankscope.explore.networks import Networks
from rankscope.explore.phases import phases
from rankscope.pages import Data, Linked, page, plotly_javascript, policy, shared
from rankscope.validation import choice

JAVASCRIPT, CSS = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
OURS = {"explore.js": JAVASCRIPT, "theory.js": JAVASCRIPT, "run.js": JAVASCRIPT, "explore.css": CSS}
SECONDS_BETWEEN_LOOKS = 0.7
SECONDS_BETWEEN_SIGNS_OF_LIFE = 10.0
CURVES_KEPT = 4096


def application(
    token: str, addresses: list[str], run: LiveRun | None = None, ending: asyncio.Event | None = None
) -> ASGIApp:
    """Return the server.

    Parameters
    ----------
    token
        The first part of every path.
    addresses
        HOST:PORT that it is reached at.
    run
        A run to show.
    ending
        Set when the server is to end: streams end with it.
    """
    server = _Server(run, ending or asyncio.Event())
    routes = [
        Route("/", server.theory_page),
        Route("/static/{name}", server.static),
        Route("/api/curves", server.curves),
        Route("/api/phases", server.phases),
        Route("/api/networks", server.networks),
    ]
    if run is not None:
        routes += [
            Route("/run", server.run_page),
            Route("/api/run", server.run),
            Route("/api/run/cells/{digest}", server.cell),
        ]
    app = Starlette(
        routes=routes,
        lifespan=server.lifespan,
        exception_handlers={InputError: _wrong, HTTPException: _http_error, Exception: _our_fault},
    )
    return Guard(app, token, addresses)


class _Server:
    def __init__(self, run: LiveRun | None, ending: asyncio.Event) -> None:
        self._run = run
        self._ending = ending
        self._networks = Networks()
        self._turn = asyncio.Lock()
        # The theory holds the interpreter's lock: a second thread would only make both wait.
        self._theorist = ThreadPoolExecutor(1, "theory")
        self._reader = ThreadPoolExecutor(1, "run")

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._networks.close()
            for executor in (self._theorist, self._reader):
                executor.shutdown(wait=False, cancel_futures=True)

    async def theory_page(self, request: Request) -> Response:
        self._networks.start()
        start = for_the_page() | {"phases": phases()}
        return _page("Learning in a linear network", "theory", "theory.html", start, self._links("theory"))

    async def run_page(self, request: Request) -> Response:
        assert self._run is not None
        title = await asyncio.get_running_loop().run_in_executor(self._reader, self._run.title)
        return _page(f"Run: {title}", "run", "run.html", {"name": self._run.name}, self._links("run"))

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name == "plotly.js":
            return Response(plotly_javascript(), media_type=JAVASCRIPT)
        if name in ("style.css", "charts.js"):
            return Response(shared(name), media_type=CSS if name.endswith(".css") else JAVASCRIPT)
        if name in OURS:
            return Response(_file(name), media_type=OURS[name])
        raise HTTPException(404)

    async def curves(self, request: Request) -> Response:
        query = _query(request, ("gain", "target"))
        gain, target = GAIN.read("gain", query), TARGET.read("target", query)
        async with self._turn:
            if await request.is_disconnected():
                return Response(status_code=204)
            found = await asyncio.get_running_loop().run_in_executor(self._theorist, _curves, gain, target)
        return Response(found, media_type="application/json")

    async def phases(self, request: Request) -> Response:
        return Response(encoded(phases()), media_type="application/json")

    async def networks(self, request: Request) -> Response:
        query = _query(request, ("gain", "target", "units"))
        gain, target = GAIN.read("gain", query), TARGET.read("target", query)
        units = int(choice("units", query.get("units", str(START_UNITS)), map(str, UNITS)))

        async def events() -> AsyncGenerator[bytes]:
            async with aclosing(self._networks.trained(gain, target, units)) as found:
                async for values in found:
                    yield encoded(values)

        return self._stream(request, events())

    async def run(self, request: Request) -> Response:
        return self._stream(request, self._looks())

    async def cell(self, request: Request) -> Response:
        assert self._run is not None
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._reader, self._run.detail, request.path_params["digest"]
            )
        except OSError as error:
            raise HTTPException(404, "this network's file cannot be read") from error
        if found is None:
            raise HTTPException(404, "no finished network of that name in the run folder")
        return Response(encoded(found), media_type="application/json")

    async def _looks(self) -> AsyncGenerator[bytes]:
        """Yield what is new in the run, now and whenever something is."""
        assert self._run is not None
        known: Mapping[str, Any] = {}
        last: bytes | None = None
        while True:
            try:
                look = await asyncio.get_running_loop().run_in_executor(self._reader, self._run.look)
            except (InputError, OSError) as error:
                known, said = {}, {"error": " ".join(str(error).split()), "cells": {}, "gone": list(known)}
                complete = True
            else:
                said, complete = message(look, known), look.complete
                known = look.cells
            now = encoded(said)
            if now != last:
                yield now
            # New cells are said once; said again and again is only what has not changed.
            last = encoded(said | {"cells": {}, "gone": []})
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS if complete else 0)

    def _links(self, here: str) -> str:
        if self._run is None:
            return ""
        pages = (("theory", "./", "Theory"), ("run", "run", "Run"))
        items = "".join(
            f'<li><a href="{address}"{" aria-current=page" if name == here else ""}>{text}</a></li>'
            for name, address, text in pages
        )
        return f'<nav class="pages" aria-label="Pages"><ul>{items}</ul></nav>'

    def _stream(self, request: Request, events: AsyncGenerator[bytes]) -> Response:
        """Return server-sent events that end with the server, and stop their source when nobody listens."""
        return StreamingResponse(_until(self._no_more(request), events), media_type="text/event-stream")

    async def _no_more(self, request: Request) -> None:
        """Return when the server ends or the other side has left."""
        ended = asyncio.ensure_future(self._ending.wait())
        left = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({ended, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            left.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _until(no_more: Coroutine[Any, Any, None], events: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """Yield events in the form of the protocol until there are no more, with signs of life in between."""
    ended = asyncio.ensure_future(no_more)
    following: asyncio.Task[bytes] | None = None
    try:
        # The first bytes at once: the browser then knows that it is connected.
        yield b": hello\n\n"
        while not ended.done():
            if following is None:
                following = asyncio.ensure_future(anext(events))
            await asyncio.wait(
                {ended, following}, timeout=SECONDS_BETWEEN_SIGNS_OF_LIFE, return_when=asyncio.FIRST_COMPLETED
            )
            if following.done():
                try:
                    yield b"data: " + following.result() + b"\n\n"
                except StopAsyncIteration:
                    return
                following = None
            elif not ended.done():
                yield b": still here\n\n"
    finally:
        ended.cancel()
        if following is not None:
            following.cancel()
            await asyncio.wait({following})
        await events.aclose()


@lru_cache(maxsize=CURVES_KEPT)
def _curves(gain: float, target: float) -> bytes:
    return encoded(curves(gain, target))


def _query(request: Request, names: tuple[str, ...]) -> dict[str, str]:
    """Return the query, each parameter given at most once, or raise `InputError`."""
    items = request.query_params.multi_items()
    query: dict[str, str] = {}
    for name, value in items:
        choice("parameter", name[:40], names)
        if name in query:
            raise InputError(f"{name} must be given once")
        query[name] = value
    return query


def _page(title: str, script: str, body: str, start: dict[str, Any], links: str) -> Response:
    scripts = [Linked(f"static/{name}.js") for name in ("plotly", "charts", "explore", script)]
    styles = [Linked("static/style.css"), Linked("static/explore.css")]
    connect = ("'self'",)
    html = page(
        title, links + _file(body), scripts=scripts, styles=styles, data=[Data("start", start)], connect=connect
    )
    allowed = policy(scripts, styles, connect) + "; frame-ancestors 'none'"
    return HTMLResponse(html, headers={"content-security-policy": allowed})


def _file(name: str) -> str:
    return (files("rankscope.explore") / "static" / name).read_text(encoding="utf-8")


def _error(status: int, text: str) -> Response:
    return Response(encoded({"error": text}), status, media_type="application/json")


async def _wrong(request: Request, error: Exception) -> Response:
    return _error(422, " ".join(str(error).split()))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail))


async def _our_fault(request: Request, error: Exception) -> Response:
    return _error(500, "something went wrong here; the terminal says what")
