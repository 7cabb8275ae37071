"""Inputs are read in a separate process, so that a crash, a hang or an exhausted memory costs one input.

The process marks the beginning of each read, and its parent measures the processor time since, so a busy machine is not
a hang. The address space of the process is limited (RLIMIT_AS), and its peak memory is read after every input.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import psutil
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz_mutations import Bundle, mutated
from reader import Reader, attempt, place_of

HANG_SECONDS = 5.0
BLOCKED_SECONDS = 60.0
MEMORY_BYTES = 500_000_000
ADDRESS_BYTES = 3_000_000_000
BATCH = 400
MOST_SEEDS = 300
SLOT = "input"
NOT_READING = -1.0


@dataclass
class Tally:
    """Outcomes of a reader's inputs."""

    inputs: int = 0
    seconds: float = 0.0
    returned: int = 0
    refused: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    memory: int = 0

    def count(self, *kinds: str) -> int:
        """Return how many inputs broke the contract in one of these ways."""
        return sum(number for what, number in self.broken.items() if what.split(":")[0] in kinds)


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Put the files of an input into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in bundle.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def fuzz(reader: Reader, seconds: float, corpus: Path, start: int = 0) -> Tally:
    """Read mutated inputs for so many seconds of processor time; those that break the contract are kept in `corpus`."""
    tally = Tally()
    # Once, not in every process: an archive that unpacks to gigabytes takes seconds to make.
    seeds, once = reader.seeds(), reader.once()
    reader, pool = replace(reader, seeds=lambda: seeds, once=lambda: once), list(seeds)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:  # noqa: PTH112
        slot = Path(scratch) / SLOT
        batch = start
        while tally.seconds < seconds:
            batch += 1
            _run_batch(reader, pool, batch, seconds - tally.seconds, slot, tally, corpus)
    return tally


def _run_batch(
    reader: Reader, pool: list[Bundle], batch: int, seconds: float, slot: Path, tally: Tally, corpus: Path
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    reading_since = context.Value("d", NOT_READING)
    process = context.Process(
        target=_work, args=(reader, pool, batch, seconds, slot, theirs, reading_since), daemon=True
    )
    process.start()
    theirs.close()
    pid = process.pid or 0
    began = last_check = time.monotonic()
    reason = ""
    with ours:
        while True:
            now = time.monotonic()
            if now - last_check > 3:  # this process was suspended
                began = now
            last_check = now
            try:
                news = ours.recv() if ours.poll(0.25) else None
            except (EOFError, OSError):
                break
            if news is None:
                since, used = reading_since.value, _processor_seconds(pid)
                # Read twice: it may have begun the next input in between.
                if since != NOT_READING and since == reading_since.value and used - since > HANG_SECONDS:
                    reason = f"hang: more than {HANG_SECONDS:g} s"
                elif now - began > BLOCKED_SECONDS:
                    reason = f"hang: nothing for {BLOCKED_SECONDS:g} s"
                if reason:
                    process.kill()
                    break
                continue
            began = now
            _note(news, reader, pool, slot, tally, corpus)
    process.join()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    tally.seconds += ended.ru_utime + ended.ru_stime - before.ru_utime - before.ru_stime
    if not reason and process.exitcode:
        reason = f"crash: exit status {process.exitcode}"
    if reason:
        tally.inputs += 1
        _keep(reader, reason, "", slot, tally, corpus)


def _note(news: dict[str, Any], reader: Reader, pool: list[Bundle], slot: Path, tally: Tally, corpus: Path) -> None:
    tally.inputs += news["inputs"]
    tally.returned += news["returned"]
    tally.refused += news["refused"]
    tally.slowest = max(tally.slowest, news["slowest"])
    tally.memory = max(tally.memory, news["memory"])
    for place, bundle in news["new"]:
        # An input that reaches new code is a good seed.
        if place not in tally.refusals and len(pool) < MOST_SEEDS:
            pool.append(bundle)
    tally.refusals.update(news["places"])
    for reason, text, bundle in news["broken"]:
        write_bundle(bundle, slot.with_name("broken"))
        _keep(reader, reason, text, slot.with_name("broken"), tally, corpus)


def _keep(reader: Reader, reason: str, text: str, slot: Path, tally: Tally, corpus: Path) -> None:
    """Count a broken contract, and save the input of the first few of its kind."""
    tally.broken[reason] += 1
    if tally.broken[reason] <= 3:
        kept = corpus / reader.name / f"{len(tally.broken):03d}-{tally.broken[reason]}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        with suppress(OSError):
            shutil.copytree(slot, kept / SLOT)
        (kept / "what.txt").write_text(f"{reason}\n\n{text}", errors="backslashreplace")


def _work(
    reader: Reader,
    pool: list[Bundle],
    batch: int,
    seconds: float,
    slot: Path,
    news: Connection,
    reading_since: Synchronized[float],
) -> None:
    """Read a batch of inputs and send the outcomes to the parent."""
    os.setpgrp()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    _limit_memory()
    rng = random.Random(f"{reader.name}/{batch}")
    outcomes = _Outcomes()
    until = time.process_time() + seconds

    def one(bundle: Bundle) -> None:
        write_bundle(bundle, slot)
        news.send(outcomes.taken())
        reading_since.value = time.process_time()
        _read_one(reader, bundle, slot, outcomes)
        reading_since.value = NOT_READING

    if reader.texts is not None and batch % 4 == 0:
        quiet = settings(max_examples=BATCH // 2, database=None, deadline=None, phases=[Phase.generate],
                         suppress_health_check=list(HealthCheck))  # fmt: skip
        seed(batch)(quiet(given(reader.texts())(one)))()
    else:
        if batch % 20 == 1:
            for bundle in [*reader.seeds(), *reader.once()]:
                one(bundle)
        for _ in range(BATCH):
            if time.process_time() > until:
                break
            one(mutated(rng.choice(pool), rng, reader.words))
    news.send(outcomes.taken())
    news.close()


@dataclass
class _Outcomes:
    """Outcomes since the last message to the parent."""

    inputs: int = 0
    returned: int = 0
    refused: int = 0
    places: Counter[str] = field(default_factory=Counter)
    known: set[str] = field(default_factory=set)
    new: list[tuple[str, Bundle]] = field(default_factory=list)
    broken: list[tuple[str, str, Bundle]] = field(default_factory=list)
    slowest: float = 0.0
    memory: int = 0

    def taken(self) -> dict[str, Any]:
        """Return the outcomes and reset them."""
        values = {key: value for key, value in vars(self).items() if key != "known"}
        self.__dict__.update(vars(_Outcomes(known=self.known)))
        return values


def _read_one(reader: Reader, bundle: Bundle, slot: Path, outcomes: _Outcomes) -> None:
    """Read one input and record the outcome."""
    before = _reset_peak()
    began = time.process_time()
    broken = None
    try:
        with _alarm():
            place = attempt(reader, slot)
    except MemoryError as error:
        place, broken = "", ("memory: MemoryError", error)
    except _TooLongError as error:
        place, broken = "", (f"hang: more than {HANG_SECONDS:g} s at {place_of(error)}", error)
    except BaseException as error:
        kind = "memory" if "allocate" in str(error) else "exception"
        place, broken = "", (f"{kind}: {type(error).__name__} at {place_of(error)}", error)
    seconds, memory = time.process_time() - began, _peak() - before
    outcomes.inputs += 1
    if broken is None:
        outcomes.returned += not place
        outcomes.refused += bool(place)
        outcomes.places[place] += 1
        if place not in outcomes.known:
            outcomes.known.add(place)
            outcomes.new.append((place, bundle))
        if memory > MEMORY_BYTES:
            broken = (f"memory: more than {MEMORY_BYTES // 10**6} MB", None)
    outcomes.slowest, outcomes.memory = max(outcomes.slowest, seconds), max(outcomes.memory, memory)
    if broken is not None:
        reason, error = broken
        text = "".join(traceback.format_exception(error)) if error is not None else f"{memory} bytes"
        outcomes.broken.append((reason, text[-6000:], bundle))


class _TooLongError(BaseException):
    """Raised by the alarm. No reader catches it."""


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLongError

    signal.signal(signal.SIGPROF, ring)
    # Shortly before the parent kills the process, so that there is a traceback.
    signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS - 0.3)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory() -> None:
    limit = psutil.Process().memory_info().vms + ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _reset_peak() -> int:
    """Reset the peak memory of this process; return the current memory."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _processor_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def as_row(name: str, tally: Tally) -> dict[str, Any]:
    """Return a reader's row of the table as plain values."""
    return {
        "reader": name,
        "inputs": tally.inputs,
        "seconds": round(tally.seconds, 1),
        "returned": tally.returned,
        "refused": tally.refused,
        "distinct_refusals": len([place for place in tally.refusals if place]),
        "exceptions": tally.count("exception"),
        "crashes": tally.count("crash"),
        "hangs": tally.count("hang"),
        "memory_floods": tally.count("memory"),
        "slowest_seconds": round(tally.slowest, 3),
        "largest_megabytes": round(tally.memory / 1e6, 1),
        "broken": dict(tally.broken),
        "refusals": json.loads(json.dumps(tally.refusals)),
    }
