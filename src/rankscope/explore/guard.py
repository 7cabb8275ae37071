"""Request filter of the local server: requires a secret token in the path, rejects foreign Host and Origin headers.

The server listens on 127.0.0.1 only, but any web page in a browser on this machine can send requests there, or resolve
its own name to that address (DNS rebinding). A request is therefore rejected unless its Host is our address, its
Origin, if present, is ours, and its path begins with the token. The token is not a cookie because browsers send cookies
to every server of the machine, on any port.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    # For answers that are not pages; pages have a policy of their own.
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
    """ASGI middleware that rejects unauthorized requests and adds security headers to every response.

    Parameters
    ----------
    app
        Receives paths without the token, which is in `root_path`.
    token
        The first component of every path.
    addresses
        HOST:PORT under which the server is reached.
    """

    def __init__(self, app: ASGIApp, token: str, addresses: Iterable[str]) -> None:
        self._app = app
        self._token = token
        self._addresses = frozenset(addresses)
        self._origins = frozenset(f"http://{address}" for address in self._addresses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", [])}
                added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        rejection = self._rejection(scope)
        if rejection is not None:
            await _reject(send_with_headers, *rejection)
            return
        await self._app({**scope, "root_path": f"/{self._token}"}, receive, send_with_headers)

    def _rejection(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason, or None for an authorized request."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in self._addresses:
            return 403, "Host must be the address of this server"
        origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
        if any(origin not in self._origins for origin in origins):
            return 403, "requests from other pages are rejected"
        first = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if not secrets.compare_digest(first.encode("utf-8", "replace"), self._token.encode()):
            return 403, "the address must contain the token that `rankscope explore` printed"
        if scope["method"] not in METHODS:
            return 405, f"method must be {' or '.join(METHODS)}"
        # starlette cannot decode other bytes.
        if not scope["query_string"].isascii():
            return 400, "the query must be percent-encoded"
        return None


async def _reject(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 405:
        headers.append((b"allow", ", ".join(METHODS).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
