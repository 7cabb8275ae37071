"""What reads requests: the page of `rankscope explore`, asked as a server would hand them on."""

from __future__ import annotations

import asyncio
import urllib.parse
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

import reader_seeds as made
from fuzz_mutations import Bundle
from rankscope.errors import InputError
from rankscope.explore.live import LiveRun
from rankscope.explore.server import application
from reader import Reader, one_file

TOKEN, HOST = "token", "127.0.0.1:8000"
ADDRESSES = (
    *("/token/", "/token/static/charts.js", "/token/static/explore.js", "/token/api/curves?gain=0.6&target=2"),
    *("/token/api/networks?gain=x&target=2&units=64", "/token/run", "/token/api/run", "/token/api/run/jobs/DIGEST"),
    *("/token/api/run/jobs/%2e%2e%2frun.json", "/token/static/..%2f..%2fserver.py", "/other/"),
)


@cache
def _application() -> Any:
    """Return the server of a run folder of tiny networks, which is made once."""
    folder = Path(made.tempfile.mkdtemp(prefix="rankscope-fuzz-run-"))
    for name, content in made.run_folder().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    # What trains networks beside the page is a process of its own, which reads nothing.
    with mock.patch("rankscope.explore.server.Networks"):
        return application(TOKEN, [HOST], LiveRun(folder)), next((folder / "cells").iterdir()).stem


def _request_seeds() -> list[Bundle]:
    _, digest = _application()
    requests = (f"GET {address.replace('DIGEST', digest)}\nhost: {HOST}\n" for address in ADDRESSES)
    return one_file("request", (request.encode() for request in requests))


def _read_request(folder: Path) -> object:
    """Ask as a server would hand it on: method, path and query, then headers, a line each, of any bytes."""
    app, _ = _application()
    first, *rest = (folder / "request").read_bytes().split(b"\n")
    method, _, address = first.partition(b" ")
    path, _, query = address.partition(b"?")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in rest)]
    # uvicorn takes %xx out of the path, and it decodes what is left as it can.
    plain = urllib.parse.unquote(path.decode("ascii", "replace"))
    scope = {
        **{"type": "http", "http_version": "1.1", "scheme": "http", "root_path": "", "state": {}},
        **{"method": method.decode("latin-1"), "path": plain, "raw_path": path, "query_string": query},
        **{"headers": headers, "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1)},
    }
    statuses: list[int] = []
    bodies: list[bytes] = []

    async def receive() -> dict[str, Any]:
        # Who has left at once: streams end.
        return {"type": "http.disconnect"}

    async def send(sent: dict[str, Any]) -> None:
        if sent["type"] == "http.response.start":
            statuses.append(sent["status"])
        else:
            bodies.append(sent.get("body", b""))

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    if not statuses or statuses[0] >= 500:
        raise RuntimeError(f"answered with {statuses}")
    if statuses[0] >= 400:
        raise InputError(f"answered with {statuses[0]}: {bodies[:1]!r:.40}")
    return None


def _requests() -> st.SearchStrategy[Bundle]:
    numbers = st.one_of(st.floats().map(repr), st.text(max_size=5), st.sampled_from(["0.6", "2", "64", "1e-3"]))
    queries = st.lists(st.tuples(st.sampled_from(["gain", "target", "units", "x"]), numbers), max_size=4)
    paths = st.one_of(
        st.sampled_from([address.partition("?")[0] for address in ADDRESSES if "networks" not in address]),
        st.text(max_size=12).map(lambda text: "/token/" + text),
    )
    return st.builds(
        lambda path, query: {
            "request": f"GET {urllib.parse.quote(path, safe='/%')}?{urllib.parse.urlencode(query)}\nhost: {HOST}".encode()  # noqa: E501
        },
        paths,
        queries,
    )


READERS = (
    Reader(
        "requests",
        "requests to the page of `rankscope explore`",
        _request_seeds,
        _read_request,
        (
            b"gain=",
            b"target=",
            b"&",
            b"%00",
            b"%ff",
            b"%2e%2e%2f",
            b"api/",
            b"cells/",
            b"HEAD ",
            b"POST ",
            b"origin: x",
        ),
        _requests,
    ),
)
