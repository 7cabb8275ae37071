"""`rankscope explore`: error messages in one line, and a clean exit on Ctrl-C, also with open streams."""

import http.client
import json
import signal
import socket
import urllib.request
from contextlib import ExitStack

import pytest
from explore_cases import parts, served, wait_for

from commands import call
from forking import Program
from rankscope.cli import explore, main
from rankscope.explore.serving import Serving


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_is_no_run_is_one_line(capsys, tmp_path, made):
    folder = tmp_path / "nowhere"
    if made:
        folder.mkdir()
    status, out, err = call(capsys, "explore", folder)
    assert (status, out) == (2, "")
    assert str(folder) in err
    assert err.count("\n") == 1


def test_a_port_in_use_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = call(capsys, "explore", "--port", port)
    assert (status, out) == (2, "")
    assert err == f"rankscope: port must be a free one, got {port}, which is in use; leave it out for any\n"


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_an_impossible_port_is_one_line(capsys, port):
    status, out, err = call(capsys, "explore", "--port", port)
    assert (status, out) == (2, "")
    assert "port" in err
    assert port in err
    assert err.count("\n") == 1


def test_ctrl_c_ends_it_with_a_stream_open(finished_run, tmp_path):
    process = Program(tmp_path, main, ["explore", "--no-open", str(finished_run), "--json"])
    with ExitStack() as ending:
        ending.callback(process.kill)
        host, token = parts(json.loads(wait_for(process.printed))["address"])
        connection = http.client.HTTPConnection(host, timeout=60)
        ending.callback(connection.close)
        connection.request("GET", f"/{token}/api/run")
        stream = ending.enter_context(connection.getresponse())
        lines = [stream.readline() for _ in range(3)]
        assert lines[0] == b": connected\n"
        assert lines[2].startswith(b"data: ")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(60)
        assert (process.returncode, errors) == (0, "")
        assert stream.read() == b"\n"  # a stream that has to be cut off has no such end


def test_only_the_loopback_address_is_served():
    with served() as address:
        host, _ = parts(address)
        port = int(host.split(":")[1])
        with pytest.raises(ConnectionRefusedError), socket.create_connection((_other_address(), port), timeout=2):
            pass
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert answer.status == 200
            assert "server" not in answer.headers


def _other_address():
    """Another address of this machine: all of 127.* is, and a server for everybody would answer there."""
    return "127.0.0.2"


@pytest.mark.parametrize(("options", "opens"), [(["--open"], True), (["--no-open"], False), ([], False)])
def test_the_browser_is_opened_on_a_terminal_or_if_asked(monkeypatch, capsys, options, opens):
    opened = []
    monkeypatch.setattr(explore.webbrowser, "open", opened.append)
    monkeypatch.setattr(explore, "SECONDS_BEFORE_OPENING", 0)
    monkeypatch.setattr(Serving, "serve", lambda self: wait_for(lambda: bool(opened) == opens))
    status, out, _ = call(capsys, "explore", *options)
    assert status == 0
    assert opened == ([out.strip()] if opens else [])
