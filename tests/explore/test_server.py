"""Authorization of requests, validation of parameters, and headers of the responses."""

import asyncio
import json
import shutil

import pytest
from explore_cases import Client, ask_for_path, parts, run_async

from rankscope.explore import curves as curves_module
from rankscope.explore import server as server_module
from rankscope.explore.live import LiveRun
from rankscope.explore.server import application

HOST, TOKEN = "127.0.0.1:8000", "a-secret-token"


@pytest.fixture(autouse=True)
def _no_process(monkeypatch):
    """Do not start the training process."""
    monkeypatch.setattr(server_module.Networks, "start", lambda self: None)


@pytest.fixture(scope="module")
def client():
    return Client(application(TOKEN, [HOST, "localhost:8000"]), HOST)


@pytest.fixture
def with_run(finished_run):
    return Client(application(TOKEN, [HOST], LiveRun(finished_run)), HOST)


ADDRESSES = (
    "/",
    "/static/plotly.js",
    "/api/curves?gain=0.5&target=1",
    "/api/networks?gain=0.5&target=1",
    "/api/phases",
    "/none",
)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("token", ["", "a-secret-toke", "a-secret-tokenx", "A-SECRET-TOKEN", "%00", "é"])
def test_requests_without_the_token_are_rejected(client, token, address):
    answer = client.get(f"/{token}{address}")
    assert answer.status_code == 403
    assert "token" in answer.json()["error"]
    assert TOKEN not in answer.text


def test_the_token_must_be_in_the_path(client):
    assert client.get("/", params={"token": TOKEN}).status_code == 403
    assert client.get("/api/phases", headers={"authorization": f"token {TOKEN}"}).status_code == 403
    assert client.get("/api/phases", headers={"cookie": f"token={TOKEN}"}).status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1",
        "127.0.0.1:8001",
        "0.0.0.0:8000",
        "127.0.0.1:8000.evil.example",
        "",
        "[::1]:8000",
    ],
)
def test_a_foreign_host_is_refused(client, host):
    assert client.get(f"/{TOKEN}/", headers={"host": host}).status_code == 403


def test_its_own_hosts_are_accepted(client):
    for host in (HOST, "localhost:8000", "LOCALHOST:8000"):
        assert client.get(f"/{TOKEN}/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:8000", "http://127.0.0.1:8001", "http://127.0.0.1", ""]
)
def test_a_foreign_origin_is_refused(client, origin):
    assert client.get(f"/{TOKEN}/api/phases", headers={"origin": origin}).status_code == 403


def test_its_own_origin_is_accepted(client):
    assert client.get(f"/{TOKEN}/api/phases", headers={"origin": f"http://{HOST}"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("address", ["/", "/api/phases"])
def test_other_methods_are_rejected(client, method, address):
    answer = client.request(method, f"/{TOKEN}{address}")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_websockets_are_refused():
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": f"/{TOKEN}/", "headers": [(b"host", HOST.encode())]}
    run_async(application(TOKEN, [HOST])(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("path", ["", "/", "/api/curves", "/none/"])
@pytest.mark.parametrize("query", [b"\x80", b"gain=0.5&target=\xd1"])
def test_a_query_of_bare_bytes_is_refused(path, query):
    """Found by fuzzing: starlette cannot decode such a query when it redirects."""
    status, body = ask_for_path(application(TOKEN, [HOST]), HOST, f"/{TOKEN}{path}", query)
    assert status == 400
    assert b"percent-encoded" in body


@pytest.mark.parametrize("address", ["/", "/static/theory.js", "/api/phases", "/none", "/api/curves?gain=x&target=1"])
def test_every_response_has_security_headers(client, address):
    headers = client.get(f"/{TOKEN}{address}").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert "set-cookie" not in headers
    assert "server" not in headers


def test_scripts_come_from_the_server_alone(client):
    answer = client.get(f"/{TOKEN}/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "http" not in answer.headers["content-security-policy"]
    assert TOKEN not in answer.text  # addresses are relative


def test_a_page_without_its_slash_finds_it(client):
    answer = client.get(f"/{TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (307, f"http://{HOST}/{TOKEN}/")


BAD = [
    ("gain=nan&target=1", "gain must be a finite number"),
    ("gain=1e308&target=1", "gain must be a finite number >= 0 and <= 0.95"),
    ("gain=1&target=1", "<= 0.95"),
    ("gain=-0.1&target=1", ">= 0"),
    ("gain=0.5&target=inf", "target must be"),
    ("gain=0.5&target=0", "target must be"),
    ("gain=0.5&target=1e400", "target must be"),
    ("gain=0.5", "target must be given"),
    ("gain=&target=1", "gain must be a number"),
    ("gain=0.5&target=" + "1" * 5000, "target must be"),
    ("gain=0.5&target=<script>", "target must be a number"),
    ("gain=0.5&gain=0.6&target=1", "gain must be given once"),
    ("gain=0.5&target=1&size=9", "parameter must be one of"),
]


@pytest.mark.parametrize(("query", "message"), BAD)
@pytest.mark.parametrize("what", ["curves", "networks"])
def test_wrong_parameters_are_rejected_before_any_work(client, monkeypatch, query, message, what):
    def compute(*_):
        raise AssertionError("computed")

    monkeypatch.setattr(server_module, "_curves", compute)
    monkeypatch.setattr(curves_module, "curves", compute)
    answer = client.get(f"/{TOKEN}/api/{what}?{query}")
    assert answer.status_code == 422
    assert message in answer.json()["error"]
    assert answer.headers["content-type"] == "application/json"
    assert "Traceback" not in answer.text
    assert len(answer.text) < 400


@pytest.mark.parametrize("units", ["1000000", "0", "-1", "nan", "128.0", ""])
def test_other_network_sizes_are_rejected(client, units):
    answer = client.get(f"/{TOKEN}/api/networks?gain=0.5&target=1&units={units}")
    assert answer.status_code == 422
    assert "units must be one of '64', '128', '256'" in answer.json()["error"]


def test_internal_errors_have_no_traceback(monkeypatch):
    def fails(*_):
        raise RuntimeError("in the deep")

    monkeypatch.setattr(server_module, "_curves", fails)
    quiet = Client(application(TOKEN, [HOST]), HOST, raises=False)
    answer = quiet.get(f"/{TOKEN}/api/curves?gain=0.5&target=1")
    assert answer.status_code == 500
    assert "in the deep" not in answer.text
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_curves_are_answered(client):
    answer = client.get(f"/{TOKEN}/api/curves?gain=0.5&target=1")
    assert answer.status_code == 200
    assert json.loads(answer.text) == curves_module.curves(0.5, 1.0)


def test_without_a_run_there_is_none(client):
    for address in ("/run", "/api/run", "/api/run/jobs/x"):
        assert client.get(f"/{TOKEN}{address}").status_code == 404
    assert "aria-current" not in client.get(f"/{TOKEN}/").text


CLIMBING = [
    "../../run.json",
    "..%2f..%2frun.json",
    "%2e%2e/%2e%2e/run.json",
    "..%5c..%5crun.json",
    "%2fetc%2fpasswd",
    "....//....//etc/passwd",
    "..%252f..%252frun.json",
    "x%00",
    "x.safetensors",
    ".",
    "..",
    "a" * 101,
]


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("room", ["api/run/jobs", "static"])
def test_paths_cannot_leave_the_folder(finished_run, room, name):
    app = application(TOKEN, [HOST], LiveRun(finished_run))
    status, body = ask_for_path(app, HOST, f"/{TOKEN}/{room}/{name}")
    assert status == 404
    assert set(json.loads(body)) == {"error"}


def test_a_link_out_of_the_folder_is_not_followed(with_run, finished_run, tmp_path):
    inside = sorted((finished_run / "jobs").iterdir())[0]
    outside = shutil.copytree(inside, tmp_path / "outside")
    (finished_run / "jobs" / "linked").symlink_to(outside)
    assert with_run.get(f"/{TOKEN}/api/run/jobs/linked").status_code == 404
    assert with_run.get(f"/{TOKEN}/api/run/jobs/{inside.name}").status_code == 200


def test_the_address_is_hard_to_guess():
    from rankscope.explore.serving import Serving

    addresses = []
    for _ in range(2):
        serving = Serving()
        addresses.append(serving.address)
        serving.close()
    (host, token), (_, other) = map(parts, addresses)
    assert host.startswith("127.0.0.1:")
    assert len(token) >= 32
    assert token != other


def test_a_stream_closes_its_source_when_the_client_disconnects(monkeypatch):
    closed = []

    async def trained(self, gain, target, units):
        try:
            yield {"kind": "predicted"}
            await asyncio.sleep(60)
        finally:
            closed.append((gain, target, units))

    monkeypatch.setattr(server_module.Networks, "trained", trained)
    sent = []

    async def watch():
        heard = asyncio.Event()

        async def receive():
            await heard.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)
            if b"predicted" in message.get("body", b""):
                heard.set()

        path, query = f"/{TOKEN}/api/networks", b"gain=0.5&target=1"
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "headers": [(b"host", HOST.encode())],
            "asgi": {"version": "3.0", "spec_version": "2.4"},
        }
        await asyncio.wait_for(application(TOKEN, [HOST])(scope, receive, send), 10)

    run_async(watch())
    assert closed == [(0.5, 1.0, 128)]
    assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
    assert b'data: {"kind":"predicted"}\n\n' in [message.get("body") for message in sent]
