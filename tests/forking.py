"""Programs and workers that are forked off a server which has imported the package: by itself, each takes seconds to.

    def test_a_killed_program(tmp_path):
        program = Program(tmp_path, main, "train", "--out", "x")
        program.kill()

    def test_what_workers_do(forked_workers):
        run(jobs, folder, workers=2)

They are processes as real as others: each has its own memory, its number, its exit status, and signals reach it. The
server is the one of `multiprocessing`: a fresh interpreter without threads, with nothing of the tests in it. That the
package does as well with fresh interpreters, its own way, is for one test of `sweep/test_run_killed.py`.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import pytest

from rankscope.sweep import processes

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["warm"])


def _start_server():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()


@pytest.fixture(scope="module")
def forked_workers():
    """Have the workers of sweeps be forked for the tests of a module; they see the environment before its tests."""
    with forked(processes):
        yield


@contextmanager
def forked(module):
    """Have the processes that a module starts be forked."""
    _start_server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "multiprocessing", _starting_with(SERVER))
        yield


class Program:
    """A function in a process of its own, which is ended like a program: what it prints goes to files.

    Parameters
    ----------
    folder
        Where the files are made, each program's its own.
    function, *arguments
        What is called, a function of a module.
    """

    def __init__(self, folder, function, *arguments):
        _start_server()
        own = Path(tempfile.mkdtemp(dir=folder))
        self._files = own / "printed", own / "errors"
        self._process = SERVER.Process(target=_run, args=(self._files, dict(os.environ), function, arguments))
        self._process.start()

    @property
    def returncode(self):
        """The exit status, or the signal that ended it below 0; None while it runs."""
        return self._process.exitcode

    def printed(self):
        """What it has printed so far."""
        return self._files[0].read_text() if self._files[0].exists() else ""

    def send_signal(self, number):
        """Send it a signal, if it has not ended."""
        if self.returncode is None:
            os.kill(self._process.pid, number)

    def wait_for(self, path):
        """Wait until it has made a file, or has ended."""
        while not path.exists() and self.returncode is None:
            time.sleep(0.01)

    def kill(self):
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=180):
        """Wait for its end, for so many seconds; return what it printed, and what it said on stderr."""
        self._process.join(timeout)
        assert self.returncode is not None, f"not ended within {timeout} s"
        return tuple(path.read_text() if path.exists() else "" for path in self._files)


def _run(files, environment, function, arguments):
    for descriptor, path in enumerate(files, start=1):
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    # As a shell does for a job in front: Ctrl-C is heard.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A program's own workers begin with no handlers of signals, as fresh processes do.
    os.register_at_fork(after_in_child=_no_handlers)
    processes.multiprocessing = _starting_with(multiprocessing.get_context("fork"))
    function(*arguments)
    sys.stdout.flush()


def _no_handlers():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _starting_with(context):
    return SimpleNamespace(get_context=lambda _: context, parent_process=multiprocessing.parent_process)
