"""Serving the page: on this machine alone, at a free port or a given one, until Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket

import uvicorn

from rankscope.errors import InputError
from rankscope.explore.live import LiveRun
from rankscope.explore.server import application
from rankscope.validation import integer

HOST = "127.0.0.1"
TOKEN_BYTES = 24
SECONDS_TO_END = 2
MOST_CONNECTIONS = 100


class Serving:
    """A server with its port, which is taken already.

    Parameters
    ----------
    run
        Folder of a run to show.
    port
        0 for any that is free.

    Attributes
    ----------
    address
        What to open in a browser, with the token.

    Raises
    ------
    InputError
        If the run is none, or the port is taken or cannot be had.
    """

    def __init__(self, run: str | os.PathLike[str] | None = None, port: int = 0) -> None:
        self._live = None if run is None else LiveRun(run)
        self._socket = _bound(integer("port", port, minimum=0, maximum=65535))
        self._port = int(self._socket.getsockname()[1])
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        page = "" if run is None else "run"
        self._server: _Ending | None = None
        self.address = f"http://{HOST}:{self._port}/{self._token}/{page}"

    def serve(self) -> None:
        """Answer until Ctrl-C or a signal to end."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        ending = asyncio.Event()
        addresses = [f"{name}:{self._port}" for name in (HOST, "localhost")]
        config = uvicorn.Config(
            application(self._token, addresses, self._live, ending),
            log_level="error",
            access_log=False,
            server_header=False,
            ws="none",
            http="h11",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=SECONDS_TO_END,
        )
        self._server = _Ending(config, ending)
        await self._server.serve(sockets=[self._socket])

    def end(self) -> None:
        """Have `serve` return, from any thread."""
        if self._server is not None:
            self._server.should_exit = True

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


class _Ending(uvicorn.Server):
    """A server that tells open streams to end; it would wait for them otherwise."""

    def __init__(self, config: uvicorn.Config, ending: asyncio.Event) -> None:
        super().__init__(config)
        self._stream_ending = ending

    async def on_tick(self, counter: int) -> bool:
        """Do what is done ten times a second, on the thread of the streams."""
        if self.should_exit:
            self._stream_ending.set()
        return await super().on_tick(counter)


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":
        # A server that has just ended leaves connections behind, which are nobody's any more.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        # Only a second listener finds out that there is a first.
        bound.listen(128)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port must be a free one, got {port}, which is in use; leave it out for any") from error
        raise InputError(f"port must be one that may be listened at, got {port}: {error.strerror}") from error
    return bound
