"""Lock files: which process works on which job, without a database.

A lock is a small file that exists while a process works on a job. Creating a file that must not exist yet succeeds for
exactly one of many processes on every file system, also on one shared by a cluster. The owner touches its locks every
few seconds; a lock that was not touched for a minute, or whose owner no longer runs on this machine, is stale, and the
next process takes it over. Ages are compared on the file system's own clock, so the clocks of machines need not agree.

A lock only avoids double work. Results are complete files that replace each other, so even a lock lost by a machine
that was suspended does no harm. Check whether the work is done *after* acquiring a lock.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

SECONDS_BETWEEN_TOUCHES = 5.0
STALE_AFTER = 60.0
"""Seconds without a touch after which a lock is stale."""

SAME_START = 2.0
"""Seconds by which the start time of one process may vary: it is derived from a clock that can be adjusted."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes
    ----------
    host
        The machine, from `this_host`.
    pid, started
        The process and its start time, which distinguishes it from a later process with the same number.
    token
        Drawn anew for every lock.
    """

    host: str
    pid: int
    started: float
    token: str


class Lock:
    """A lock held by this process; a context manager that releases it."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path = path
        self.owner = owner
        _keep_fresh(self)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Remove the lock, unless another process has taken it over because this one stood still for too long."""
        with _held_lock:
            _held.discard(self)
        with suppress(OSError):
            if self._is_mine():
                self.path.unlink()

    def touch(self) -> None:
        """Renew the lock."""
        # An unavailable file system is no reason to stop; if it lasts, another process takes over.
        with suppress(OSError):
            if self._is_mine():
                os.utime(self.path)

    def _is_mine(self) -> bool:
        found = _read(self.path)
        return found is not None and found.owner == self.owner


# One thread renews all locks of this process: a thread for each would cost more than the lock.
_renewer: threading.Thread | None = None
_held_lock = threading.Lock()
_held: set[Lock] = set()


def _keep_fresh(lock: Lock) -> None:
    global _renewer
    with _held_lock:
        _held.add(lock)
        if _renewer is None or not _renewer.is_alive():
            _renewer = threading.Thread(target=_renew, name="renew locks", daemon=True)
            _renewer.start()


def _renew() -> None:
    while True:
        time.sleep(SECONDS_BETWEEN_TOUCHES)
        with _held_lock:
            held = list(_held)
        for lock in held:
            lock.touch()


def acquire(path: Path) -> Lock | None:
    """Return the lock at `path`, or None if a living process holds it.

    Raises
    ------
    OSError
        If the file system refuses.
    """
    for _ in range(2):
        lock = _create(path)
        if lock is not None:
            return lock
        found = _read(path)
        if found is not None and _is_alive(found, path.parent):
            return None
        _remove_stale(path)
    return None


def is_held(path: Path) -> bool:
    """Return whether a living process holds the lock at `path`."""
    found = _read(path)
    return found is not None and _is_alive(found, path.parent)


def owner(path: Path) -> Owner | None:
    """Return the owner of the lock at `path`, alive or not; None without a readable lock."""
    found = _read(path)
    return None if found is None else found.owner


def remove_stale(folder: Path) -> None:
    """Remove the stale locks in `folder`."""
    for path in sorted(folder.glob("*")):
        with suppress(OSError):
            if not path.name.startswith(".") and not is_held(path):
                _remove_stale(path)


@cache
def this_host() -> str:
    """Return a name for the machine or container in which process numbers are valid."""
    return f"{socket.gethostname()} {uuid.getnode():012x}"


def is_running(process: Owner) -> bool:
    """Return whether a process of this machine still runs."""
    started = _start_of(process.pid)
    return started is not None and abs(started - process.started) <= SAME_START


@dataclass(frozen=True)
class _Found:
    """Content of a lock file: its owner, unless that was not written yet, and when it was last touched."""

    owner: Owner | None
    touched: float


def _create(path: Path) -> Lock | None:
    mine = Owner(this_host(), os.getpid(), _start_of(os.getpid()) or 0.0, secrets.token_hex(8))
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(mine), file)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return Lock(path, mine)


def _read(path: Path) -> _Found | None:
    try:
        # Opening makes a network file system fetch the current time stamp; a plain stat may be answered from a cache.
        with path.open("rb") as file:
            touched = os.fstat(file.fileno()).st_mtime
            text = file.read(10_000)
    except FileNotFoundError:
        return None
    try:
        values: dict[str, Any] = json.loads(text)
        found = Owner(**values)
    except (ValueError, TypeError, RecursionError):
        return _Found(None, touched)
    whole = type(found.pid) is int and type(found.started) is float and type(found.host) is type(found.token) is str
    return _Found(found if whole else None, touched)


def _is_alive(found: _Found, folder: Path) -> bool:
    holder = found.owner
    if holder is not None and holder.host == this_host() and not is_running(holder):
        return False
    return _now(folder) - found.touched <= STALE_AFTER


def _remove_stale(path: Path) -> None:
    """Remove the stale lock at `path`.

    Of two processes that find it stale, the slower one must not remove the lock that the faster one has created since.
    So removing requires a lock of its own, under which the check is repeated.
    """
    guard = acquire(path.with_name(f"{path.name}.removal"))
    if guard is None:
        return
    with guard:
        found = _read(path)
        if found is not None and not _is_alive(found, path.parent):
            path.unlink(missing_ok=True)


def _now(folder: Path) -> float:
    """Return the time of the clock that also dates the locks in `folder`."""
    try:
        handle, name = tempfile.mkstemp(prefix=".clock.", dir=folder)
    except OSError:
        # In a read-only folder our own clock has to do.
        return time.time()
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


def _start_of(pid: int) -> float | None:
    """Return when process `pid` of this machine started; None if it does not run."""
    try:
        process = psutil.Process(pid)
        # A zombie still has its number but will never work again.
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except (psutil.Error, ValueError, OverflowError):
        return None
