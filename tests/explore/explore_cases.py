"""A server in this process, and a run folder of tiny networks."""

import asyncio
import re
import threading
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from rankscope.explore.serving import Serving
from rankscope.sweep import Job


def jobs():
    """Four jobs with tiny networks."""
    return [
        Job(
            task={"name": "flipflop", "duration": 10},
            network={"gain": gain, "hidden_size": 12},
            training={"epochs": 12},
            seed=sample,
            labels={"sample": sample},
        )
        for gain in (0.0, 0.9)
        for sample in (0, 1)
    ]


@contextmanager
def served(run=None):
    """A server on a thread of this process: yields its address."""
    serving = Serving(run)
    thread = threading.Thread(target=serving.serve)
    thread.start()
    try:
        wait_for(lambda: _answers(serving.address))
        yield serving.address
    finally:
        serving.stop()
        thread.join(60)
        serving.close()
        assert not thread.is_alive()


class Client:
    """Asks an application as a browser would, without a network."""

    def __init__(self, app, host, raises=True):
        self._app, self._host, self._raises = app, host, raises

    def get(self, address, **options):
        """Answer to GET."""
        return self.request("GET", address, **options)

    def request(self, method, address, **options):
        """Answer to any method."""

        async def ask():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=self._raises)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{self._host}") as client:
                return await client.request(method, address, **options)

        return run_async(ask())


def run_async(coroutine):
    """Run a coroutine on a thread of its own: the browser of other tests may hold this one's event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def ask_for_path(app, host, path, query=b""):
    """Status and body of the answer to a path and a query that no client has tidied up."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": urllib.parse.unquote(path),  # as uvicorn does
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", host.encode())],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1),
    }
    run_async(app(scope, receive, send))
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


def parts(address):
    """Host and token of an address."""
    return re.fullmatch(r"http://([^/]+)/([^/]+)/(?:run)?", address).groups()


def wait_for(condition, seconds=180.0):
    """Wait until a condition holds; return what it returned."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"still not so after {seconds} s")


def _answers(address):
    try:
        with urllib.request.urlopen(address, timeout=30) as response:
            return response.status == 200
    except OSError:
        return False
