"""Who is at work on what, without a lock or a database.

A claim is a small file that exists while somebody works on a cell. Making a file that must not exist yet is the one
thing every file system, also one shared by a cluster, does for exactly one of many that try. Its owner keeps touching
it; a claim that was not touched for a minute, or whose owner no longer runs on this machine, is dead, and the next to
want it takes it over. Ages are read off the file system's own clock, so machines need not agree on the time.

A claim saves double work, it does not guard results: files replace each other whole, so even a claim lost by a
machine that slept does no harm. Look whether the work is done *after* a claim was acquired; it may just have been.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

BEAT_EVERY = 5.0
"""Seconds between two touches of a claim by its owner."""

STALE_AFTER = 60.0
"""Seconds without a touch after which a claim is dead."""


@dataclass(frozen=True)
class Owner:
    """Who holds a claim.

    Attributes
    ----------
    host
        The machine, as `this_host` tells it.
    pid, born
        The process, and when it started, so that a later one with the same number is not taken for it.
    token
        Drawn anew for every claim.
    """

    host: str
    pid: int
    born: str
    token: str


class Claim:
    """A claim this process holds; a context manager that gives it back."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path = path
        self.owner = owner
        _keep_alive(self)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the claim back, unless somebody has taken it over because this process stood still for too long."""
        with _heart_lock:
            _beating.discard(self)
        with suppress(OSError):
            if self._is_mine():
                self.path.unlink()

    def touch(self) -> None:
        """Show that its owner lives."""
        # A file system that does not answer for a while is no reason to stop; a longer while costs the claim.
        with suppress(OSError):
            if self._is_mine():
                os.utime(self.path)

    def _is_mine(self) -> bool:
        found = _look(self.path)
        return found is not None and found.owner == self.owner


# One thread touches all claims of this process: a thread for each would cost more than the claim.
_heart: threading.Thread | None = None
_heart_lock = threading.Lock()
_beating: set[Claim] = set()


def _keep_alive(claim: Claim) -> None:
    global _heart
    with _heart_lock:
        _beating.add(claim)
        if _heart is None or not _heart.is_alive():
            _heart = threading.Thread(target=_beat, name="touch claims", daemon=True)
            _heart.start()


def _beat() -> None:
    while True:
        time.sleep(BEAT_EVERY)
        with _heart_lock:
            beating = list(_beating)
        for claim in beating:
            claim.touch()


def acquire(path: Path) -> Claim | None:
    """Return the claim at `path`, or None if a living process has it.

    Raises
    ------
    OSError
        If the file system does not let us.
    """
    for _ in range(2):
        claim = _create(path)
        if claim is not None:
            return claim
        found = _look(path)
        if found is not None and _lives(found, path.parent):
            return None
        _bury(path)
    return None


def is_held(path: Path) -> bool:
    """Return whether a living process holds the claim at `path`."""
    found = _look(path)
    return found is not None and _lives(found, path.parent)


def owner(path: Path) -> Owner | None:
    """Return who holds the claim at `path`, dead or alive; None without a readable claim."""
    found = _look(path)
    return None if found is None else found.owner


def remove_dead(folder: Path) -> None:
    """Remove the claims in `folder` whose owners are known to be dead."""
    for path in sorted(folder.glob("*")):
        with suppress(OSError):
            if not path.name.startswith(".") and not is_held(path):
                _bury(path)


@cache
def this_host() -> str:
    """Return a name for where process numbers mean something: this boot of this machine, or container of it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


@dataclass(frozen=True)
class _Found:
    """A claim file as it was read: its owner, unless that was not written yet, and when it was last touched."""

    owner: Owner | None
    touched: float


def _create(path: Path) -> Claim | None:
    mine = Owner(this_host(), os.getpid(), _born(os.getpid()) or "", secrets.token_hex(8))
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
    return Claim(path, mine)


def _look(path: Path) -> _Found | None:
    try:
        # Opening asks a network file system for the time as it is now; a plain stat may be answered from memory.
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
    whole = isinstance(found.pid, int) and all(isinstance(x, str) for x in (found.host, found.born, found.token))
    return _Found(found if whole else None, touched)


def _lives(found: _Found, folder: Path) -> bool:
    holder = found.owner
    if holder is not None and holder.host == this_host() and _born(holder.pid) != holder.born:
        return False
    return _now(folder) - found.touched <= STALE_AFTER


def _bury(path: Path) -> None:
    """Remove the dead claim at `path`.

    Two who find it dead must not both remove it: the slower one would remove the claim the faster one has made
    since. So removing takes a claim itself, and the look at what is to be removed is repeated under it.
    """
    guard = acquire(path.with_name(f"{path.name}.burial"))
    if guard is None:
        return
    with guard:
        found = _look(path)
        if found is not None and not _lives(found, path.parent):
            path.unlink(missing_ok=True)


def _now(folder: Path) -> float:
    """Return the time by the clock that also dates the claims in `folder`."""
    try:
        handle, name = tempfile.mkstemp(prefix=".clock.", dir=folder)
    except OSError:
        # A folder we may only look at: our own clock has to do.
        return time.time()
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


def _born(pid: int) -> str | None:
    """Return when process `pid` of this machine started, in whatever unit; None if it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # A zombie has its number still but will never work again.
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
