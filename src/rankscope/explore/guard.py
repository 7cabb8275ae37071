"""Who is answered: whoever knows the token, from a page of this server or from none, at its own address.

The page listens on this machine alone, but so does everything that a browser shows: another page may send requests to
127.0.0.1, or give its own name that address. So a request is refused unless its Host is the address we listen at
(a name that was pointed here is another), its Origin, if it has one, is ours, and its path begins with the token. The
token is part of the path rather than a cookie, which a browser would show to every server on this machine, whatever
its port.
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
}
POLICY = "default-src 'none'; frame-ancestors 'none'"
"""For what is not a page; pages bring a policy of their own."""


class Guard:
    """Refuses requests that do not come from who was given the address.

    Parameters
    ----------
    app
        Answers the others. It sees paths without the token (`root_path` has it).
    token
        The first part of every path.
    addresses
        HOST:PORT that we are reached at.
    """

    def __init__(self, app: ASGIApp, token: str, addresses: Iterable[str]) -> None:
        self._app = app
        self._token = token
        self._addresses = frozenset(addresses)
        self._origins = frozenset(f"http://{address}" for address in self._addresses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", [])}
                ours = HEADERS | {"content-security-policy": POLICY}
                added = [(k.encode(), v.encode()) for k, v in ours.items() if k.encode() not in given]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await _refuse(send_with_headers, *refused)
            return
        root = f"/{self._token}"
        await self._app({**scope, "root_path": root}, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason, or None for a request that is welcome."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in self._addresses:
            return 403, "this server is not called that"
        origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
        if any(origin not in self._origins for origin in origins):
            return 403, "requests from other pages are not answered"
        first = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if not secrets.compare_digest(first.encode("utf-8", "replace"), self._token.encode()):
            return 403, "the address needs the token that `rankscope explore` printed"
        if scope["method"] not in METHODS:
            return 405, f"only {' and '.join(METHODS)} are answered"
        if not scope["query_string"].isascii():
            return 400, "what follows the question mark must be percent-encoded"
        return None


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 405:
        headers.append((b"allow", ", ".join(METHODS).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
