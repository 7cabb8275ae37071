"""Routes of the explorer: two pages, their scripts, and the values that they draw.

    /TOKEN/                             the theory
    /TOKEN/api/curves?gain=&target=     both theories over learning time
    /TOKEN/api/phases                   learning rates over g and z_hat
    /TOKEN/api/networks?gain=&target=&units=   predicted and trained networks (server-sent events)
    /TOKEN/run                          a run folder
    /TOKEN/api/run                      its progress and results (server-sent events)
    /TOKEN/api/run/jobs/DIGEST          details of one network

Errors are JSON: {"error": message}. Long computations run in threads or a separate process.
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
from rankscope.explore.bounds import GAIN, START_UNITS, TARGET, UNITS, page_bounds
from rankscope.explore.curves import curves
from rankscope.explore.guard import Guard
from rankscope.explore.live import LiveRun, encoded, update
from rankscope.explore.networks import Networks
from rankscope.explore.phases import phases
from rankscope.figures.labels import LABELS, QUANTITIES, label_title
from rankscope.pages import Data, Linked, page, plotly_javascript, policy, shared
from rankscope.validation import choice

JAVASCRIPT, CSS = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
STATIC = {"explore.js": JAVASCRIPT, "theory.js": JAVASCRIPT, "run.js": JAVASCRIPT, "explore.css": CSS}
#: Quantities with a chart and a column on the run page.
SHOWN = ("convergence_epoch", "change_norm", "functional_rank", "shuffled_loss", "accuracy", "outlier")
POLL_SECONDS = 0.7
KEEPALIVE_SECONDS = 10.0
CACHED_CURVES = 4096


def application(
    token: str, addresses: list[str], run: LiveRun | None = None, ending: asyncio.Event | None = None
) -> ASGIApp:
    """Return the ASGI application.

    Parameters
    ----------
    token
        The first component of every path.
    addresses
        HOST:PORT under which the server is reached.
    run
        A run to show.
    ending
        Set to end all event streams.
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
            Route("/api/run/jobs/{digest}", server.job),
        ]
    app = Starlette(
        routes=routes,
        lifespan=server.lifespan,
        exception_handlers={InputError: _input_error, HTTPException: _http_error, Exception: _server_error},
    )
    return Guard(app, token, addresses)


class _Server:
    def __init__(self, run: LiveRun | None, ending: asyncio.Event) -> None:
        self._run = run
        self._ending = ending
        self._networks = Networks()
        self._turn = asyncio.Lock()
        # One thread: the theory holds the GIL.
        self._theory = ThreadPoolExecutor(1, "theory")
        self._reader = ThreadPoolExecutor(1, "run")

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._networks.close()
            for executor in (self._theory, self._reader):
                executor.shutdown(wait=False, cancel_futures=True)

    async def theory_page(self, request: Request) -> Response:
        self._networks.start()
        start = page_bounds() | {"phases": phases()}
        return _page("Learning in a linear network", "theory", "theory.html", start, self._links("theory"))

    async def run_page(self, request: Request) -> Response:
        assert self._run is not None
        title = await asyncio.get_running_loop().run_in_executor(self._reader, self._run.title)
        start = {
            "quantities": {name: QUANTITIES[name]._asdict() for name in SHOWN},
            "labels": {name: label_title(name) for name in ("task", "sample", *LABELS)},
        }
        return _page(f"Run: {title}", "run", "run.html", start, self._links("run"))

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name == "plotly.js":
            return Response(plotly_javascript(), media_type=JAVASCRIPT)
        if name in ("style.css", "charts.js"):
            return Response(shared(name), media_type=CSS if name.endswith(".css") else JAVASCRIPT)
        if name in STATIC:
            return Response(_file(name), media_type=STATIC[name])
        raise HTTPException(404)

    async def curves(self, request: Request) -> Response:
        query = _query(request, ("gain", "target"))
        gain, target = GAIN.read("gain", query), TARGET.read("target", query)
        async with self._turn:
            if await request.is_disconnected():
                return Response(status_code=204)
            found = await asyncio.get_running_loop().run_in_executor(self._theory, _curves, gain, target)
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
        return self._stream(request, self._updates())

    async def job(self, request: Request) -> Response:
        assert self._run is not None
        digest = request.path_params["digest"]
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._reader, self._run.detail, digest)
        except InputError as error:
            raise HTTPException(404, "the result of this network cannot be read") from error
        if found is None:
            raise HTTPException(404, "no finished network of that name in the run folder")
        return Response(encoded(found), media_type="application/json")

    async def _updates(self) -> AsyncGenerator[bytes]:
        """Yield changes of the run, as they are found."""
        assert self._run is not None
        known: Mapping[str, Any] = {}
        last: bytes | None = None
        while True:
            try:
                snapshot = await asyncio.get_running_loop().run_in_executor(self._reader, self._run.snapshot)
            except (InputError, OSError) as error:
                known, changes = {}, {"error": " ".join(str(error).split()), "networks": {}, "gone": list(known)}
                complete = True
            else:
                changes, complete = update(snapshot, known), snapshot.complete
                known = snapshot.networks
            now = encoded(changes)
            if now != last:
                yield now
            # Networks are sent once; compare only the rest with the next update.
            last = encoded(changes | {"networks": {}, "gone": []})
            await asyncio.sleep(POLL_SECONDS if complete else 0)

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
        """Return server-sent events; their source is closed when the server ends or the client disconnects."""
        return StreamingResponse(_until(self._ended(request), events), media_type="text/event-stream")

    async def _ended(self, request: Request) -> None:
        """Return when the server ends or the client disconnects."""
        ended = asyncio.ensure_future(self._ending.wait())
        disconnected = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({ended, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            disconnected.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _until(end: Coroutine[Any, Any, None], events: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """Yield events in the format of server-sent events until `end` returns, with keep-alive comments in between."""
    ended = asyncio.ensure_future(end)
    following: asyncio.Task[bytes] | None = None
    try:
        # The browser considers itself connected after the first bytes.
        yield b": connected\n\n"
        while not ended.done():
            if following is None:
                following = asyncio.ensure_future(anext(events))
            await asyncio.wait({ended, following}, timeout=KEEPALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                try:
                    yield b"data: " + following.result() + b"\n\n"
                except StopAsyncIteration:
                    return
                following = None
            elif not ended.done():
                yield b": keep-alive\n\n"
    finally:
        ended.cancel()
        if following is not None:
            following.cancel()
            await asyncio.wait({following})
        await events.aclose()


@lru_cache(maxsize=CACHED_CURVES)
def _curves(gain: float, target: float) -> bytes:
    return encoded(curves(gain, target))


def _query(request: Request, names: tuple[str, ...]) -> dict[str, str]:
    """Return the query; raise `InputError` for unknown or repeated parameters."""
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


async def _input_error(request: Request, error: Exception) -> Response:
    return _error(422, " ".join(str(error).split()))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail))


async def _server_error(request: Request, error: Exception) -> Response:
    return _error(500, "internal error; see the terminal for details")
