"""Run the explorer's server on 127.0.0.1 until Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket

from rankscope.errors import InputError
from rankscope.explore.live import LiveRun
from rankscope.extras import needs
from rankscope.validation import integer

with needs("explore", "rankscope explore"):
    import plotly  # noqa: F401  (checked before the port is bound)
    import uvicorn

    from rankscope.explore.server import application

HOST = "127.0.0.1"
TOKEN_BYTES = 24
SHUTDOWN_SECONDS = 2
MAX_CONNECTIONS = 100


class Serving:
    """The server and its bound port.

    Parameters
    ----------
    run
        Folder of a run to show.
    port
        0 for any free port.

    Attributes
    ----------
    address
        To open in a browser; contains the token.

    Raises
    ------
    InputError
        If the run is not a run folder, or the port cannot be bound.
    """

    def __init__(self, run: str | os.PathLike[str] | None = None, port: int = 0) -> None:
        self._live = None if run is None else LiveRun(run)
        self._socket = _bound(integer("port", port, minimum=0, maximum=65535))
        self._port = int(self._socket.getsockname()[1])
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self._server: _Server | None = None
        self.address = f"http://{HOST}:{self._port}/{self._token}/{'' if run is None else 'run'}"

    def serve(self) -> None:
        """Answer requests until Ctrl-C, a termination signal or `stop`."""
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
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        self._server = _Server(config, ending)
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Make `serve` return; from any thread."""
        if self._server is not None:
            self._server.should_exit = True

    def close(self) -> None:
        """Release the port."""
        self._socket.close()


class _Server(uvicorn.Server):
    """A server that ends its open event streams on exit; uvicorn would wait for them."""

    def __init__(self, config: uvicorn.Config, ending: asyncio.Event) -> None:
        super().__init__(config)
        self._ending = ending

    async def on_tick(self, counter: int) -> bool:
        """Forward the exit flag to the streams; called ten times a second on their event loop."""
        if self.should_exit:
            self._ending.set()
        return await super().on_tick(counter)


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":
        # Closed connections of an earlier server would block the port for a minute.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        # With SO_REUSEADDR only `listen` fails if another server listens.
        bound.listen(128)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port must be a free one, got {port}, which is in use; leave it out for any") from error
        raise InputError(f"port must be one that can be bound, got {port}: {error.strerror}") from error
    return bound
