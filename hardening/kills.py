"""A week of accidents in a few minutes: one sweep, killed and started again and again.

Run it:   python hardening/kills.py --seconds 1200      (about as long again afterwards, to finish and to compare)

A sweep of small networks, which keep checkpoints twice a second, runs in processes of its own. Every few seconds
something happens to it: a worker, the parent or the whole group is killed (SIGKILL), the group gets a Ctrl-C (SIGINT),
the parent is told to end (SIGTERM), the group stands still for a while and goes on (SIGSTOP, SIGCONT; two times for
longer than a claim lives without a heartbeat), and now and then a second sweep starts on the same folder. What has
ended is started again at once. When the time is over, the cells begun so far are finished in peace, and each of them is
compared, bit for bit, with that of an undisturbed run. What was done and when is in FOLDER/events.jsonl, and what the
cells did in FOLDER/disturbed.log.

Read it:  *recovery* is the time until the first cell is in progress again, counted from the restart, or from the fault
where nothing had to be restarted; it includes starting Python. *thrown away* are the epochs that were computed more
than once, in seconds of training. The exit status is 0 only if no cell was lost, failed or was left half-written.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import evidence
import real_sweep
from evidence import Row, say
from rankscope.sweep import RunFolder, claims
from real_sweep import Note, Specification

LONG_STOP = claims.STALE_AFTER + 12
MOST_SECONDS_TO_LEAVE = 30


@dataclass
class Event:
    """Something that was done to a sweep, and in which session work was to go on after it."""

    fault: str
    time: float
    session: int
    known: list[int] = field(default_factory=list)


@dataclass
class Program:
    """A sweep in a session of its own."""

    process: subprocess.Popen[bytes]
    until: float = float("inf")

    @property
    def session(self) -> int:
        """Its session, of which it is the leader."""
        return self.process.pid

    @property
    def runs(self) -> bool:
        """Whether its parent process runs."""
        return self.process.poll() is None


class Accidents:
    """A sweep on `folder`, and what can happen to it."""

    def __init__(self, specification: Specification, folder: Path, workers: int, rng: random.Random) -> None:
        self.specification, self.folder, self.workers, self.rng = specification, folder, workers, rng
        self.log = folder.parent / f"{folder.name}.log"
        self.errors = (folder.parent / f"{folder.name}.stderr").open("ab")
        self.events: list[Event] = []
        self.orphans: list[str] = []
        self.statuses: list[str] = []
        self.leaving: list[float] = []
        self.main = self.start()
        self.beside: Program | None = None

    def start(self, *options: str) -> Program:
        """Start a sweep."""
        command = real_sweep.command(self.folder, "--workers", str(self.workers), *options)
        environment = real_sweep.environment(self.specification, self.log)
        process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=self.errors
        )
        return Program(process)

    def restart(self, fault: str) -> bool:
        """Start the sweep again after a fault."""
        began = time.time()
        self.main = self.start()
        self.note(Event(fault, began, self.main.session))
        return True

    def note(self, event: Event) -> None:
        """Keep what was done."""
        self.events.append(event)
        with (self.folder.parent / "events.jsonl").open("a") as file:
            file.write(json.dumps(asdict(event)) + "\n")

    def kill_a_worker(self) -> bool:
        """Kill one that is at work; the sweep has to help itself."""
        pids = evidence.members(self.main.session)
        owners = (claims.owner(path) for path in (self.folder / "claims").glob("*"))
        at_work = [owner.pid for owner in owners if owner and owner.pid in pids and owner.pid != self.main.session]
        if at_work:
            self.note(Event("a worker killed (SIGKILL)", time.time(), self.main.session, pids))
            os.kill(self.rng.choice(at_work), signal.SIGKILL)
        return bool(at_work)

    def kill_the_parent(self) -> bool:
        """Kill the parent; its workers are to end by themselves."""
        self.main.process.kill()
        self._expect(-signal.SIGKILL)
        return self.restart("the parent killed (SIGKILL)")

    def kill_the_group(self) -> bool:
        """Kill all processes at once, as when a machine goes down."""
        os.killpg(self.main.session, signal.SIGKILL)
        self._expect(-signal.SIGKILL)
        return self.restart("the whole group killed (SIGKILL)")

    def interrupt(self) -> bool:
        """Press Ctrl-C."""
        os.killpg(self.main.session, signal.SIGINT)
        self._expect(130, -signal.SIGINT)  # the latter while Python starts
        return self.restart("Ctrl-C (SIGINT to the group)")

    def terminate(self) -> bool:
        """Tell the parent to end, as a queueing system does."""
        self.main.process.terminate()
        self._expect(143, -signal.SIGTERM)
        return self.restart("told to end (SIGTERM)")

    def stand_still(self, seconds: float | None = None) -> bool:
        """Stop the group and let it go on, as when a laptop sleeps."""
        seconds = self.rng.uniform(1, 6) if seconds is None else seconds
        fault = "stopped for longer than a claim lives" if seconds > claims.STALE_AFTER else "stopped for 1 to 6 s"
        os.killpg(self.main.session, signal.SIGSTOP)
        time.sleep(seconds)
        self.note(Event(f"{fault} (SIGSTOP)", time.time(), self.main.session))
        os.killpg(self.main.session, signal.SIGCONT)
        return True

    def stand_still_for_long(self) -> None:
        """Stop the group until another sweep on the same folder has taken its cells over."""
        say(f"stopped for {LONG_STOP:.0f} s with another sweep beside it")
        if self.beside is None or not self.beside.runs:
            self.begin_beside(LONG_STOP + 30)
        assert self.beside is not None
        self.beside.until = time.monotonic() + LONG_STOP + 15
        self.stand_still(LONG_STOP)

    def begin_beside(self, seconds: float | None = None) -> bool:
        """Start a second sweep on the same folder, unless there is one; it is killed later."""
        if self.beside is not None and self.beside.runs:
            return False
        began = time.time()
        self.beside = self.start()
        self.beside.until = time.monotonic() + (self.rng.uniform(8, 25) if seconds is None else seconds)
        self.note(Event("a second sweep on the same folder", began, self.beside.session))
        return True

    def end_beside(self, at_once: bool = False) -> None:
        """Kill the second sweep once its time is over."""
        if self.beside is None or not (at_once or time.monotonic() > self.beside.until):
            return
        os.killpg(self.beside.session, signal.SIGKILL)
        self.beside.process.wait()
        self._no_orphans(self.beside.session)
        self.beside = None

    def finish(self) -> tuple[Specification, list[Any]]:
        """Finish what was begun, in peace.

        Returns
        -------
        The cells, and what the sweep said of them, once more with --retry-failed if some had failed.
        """
        self.end_beside(at_once=True)
        if self.main.runs:
            self.main.process.terminate()
            self._expect(143, -signal.SIGTERM)
        begun = {note.digest for note in real_sweep.read_notes(self.log)}
        last = max(number for number, cell in enumerate(self.specification.cells()) if cell.digest in begun)
        specification = replace(self.specification, count=last + 1)
        said = []
        for options in ((), ("--retry-failed",)):
            ended = subprocess.run(
                real_sweep.command(self.folder, "--workers", str(self.workers), *options),
                env=real_sweep.environment(specification, self.log),
                stdout=subprocess.PIPE,
                check=False,
            )
            said.append(json.loads(ended.stdout))
            if not said[-1]["failed"]:
                break
        return specification, said

    def _expect(self, *statuses: int) -> None:
        began = time.monotonic()
        try:
            status = self.main.process.wait(MOST_SECONDS_TO_LEAVE)
            if status not in statuses:
                self.statuses.append(f"{status} instead of {statuses[0]}")
        except subprocess.TimeoutExpired:
            self.statuses.append(f"still there after {MOST_SECONDS_TO_LEAVE} s")
            os.killpg(self.main.session, signal.SIGKILL)
            self.main.process.wait()
        self._no_orphans(self.main.session)
        self.leaving.append(time.monotonic() - began)

    def _no_orphans(self, session: int) -> None:
        deadline = time.monotonic() + MOST_SECONDS_TO_LEAVE
        while evidence.members(session):
            if time.monotonic() > deadline:
                self.orphans.append(f"{evidence.members(session)}")
                os.killpg(session, signal.SIGKILL)
                return
            time.sleep(0.02)


def disturb(accidents: Accidents, seconds: float, between: tuple[float, float]) -> None:
    """Let accidents happen for so many seconds, or until the sweep has finished."""
    usual: Sequence[Callable[[], bool]] = (
        accidents.kill_a_worker,
        accidents.kill_a_worker,
        accidents.kill_the_parent,
        accidents.kill_the_group,
        accidents.interrupt,
        accidents.terminate,
        accidents.stand_still,
        accidents.begin_beside,
    )
    began = time.monotonic()
    # A long stop takes a minute of its own.
    long_ones = [seconds / 4, 3 * seconds / 4] if seconds >= 6 * LONG_STOP else []
    said = 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        time.sleep(accidents.rng.uniform(*between))
        accidents.end_beside()
        if not accidents.main.runs:
            if accidents.main.process.returncode == 0:
                say("the sweep has finished before its time")
                return
            accidents.statuses.append(f"ended by itself with {accidents.main.process.returncode}")
            accidents.restart("ended by itself")
        if long_ones and elapsed > long_ones[0]:
            long_ones.pop(0)
            accidents.stand_still_for_long()
        else:
            while not accidents.rng.choice(usual)():
                pass  # There was no worker to kill, or a second sweep is there.
        if elapsed - said > 60:
            said = elapsed
            say(
                f"{elapsed:.0f} s: {len(accidents.events)} events, {len(RunFolder(accidents.folder).done())} cells done"
            )


def recoveries(events: Sequence[Event], notes: Sequence[Note]) -> dict[str, list[float]]:
    """Return for each kind of fault how long it took each time until a cell was in progress."""
    by_session: dict[int, list[Note]] = defaultdict(list)
    for one in notes:
        by_session[one.session].append(one)
    found: dict[str, list[float]] = {event.fault: [] for event in events}
    for event in events:
        later = (n.time for n in by_session[event.session] if n.time >= event.time and n.pid not in event.known)
        # None if the next accident came before.
        first = min(later, default=None)
        if first is not None:
            found[event.fault].append(first - event.time)
    return found


def thrown_away(notes: Sequence[Note], store: RunFolder) -> dict[str, float]:
    """Return how much work was done twice: whole cells, and epochs in seconds of training."""
    epochs: dict[str, int] = defaultdict(int)
    ended: dict[str, int] = defaultdict(int)
    where: dict[tuple[int, str], int] = {}
    for one in notes:
        key = (one.pid, one.digest)
        if one.what == "begun":
            where.pop(key, None)
        elif one.what == "ended":
            ended[one.digest] += 1
        else:
            # The first epoch that is reported after a checkpoint was computed after it.
            epochs[one.digest] += int(one.what) - where.get(key, int(one.what) - 1)
            where[key] = int(one.what)
    seconds = 0.0
    for digest, computed in epochs.items():
        result = store.read(digest)
        needed = result.sizes["epoch"]
        seconds += (computed - needed) * float(result.attrs["training_seconds"]) / needed
    return {
        "cells_computed_twice": sum(times > 1 for times in ended.values()),
        "seconds_thrown_away": round(seconds, 1),
        "epochs_needed": sum(store.read(digest).sizes["epoch"] for digest in epochs),
        "epochs_computed": sum(epochs.values()),
    }


def attack(
    seconds: float, specification: Specification, folder: Path, workers: int, seed: int
) -> tuple[list[Row], Any]:
    """Disturb a sweep, let it finish, and compare it with an undisturbed one."""
    accidents = Accidents(specification, folder / "disturbed", workers, random.Random(seed))
    began = time.monotonic()
    disturb(accidents, seconds, (0.5, 10.0))
    disturbed = time.monotonic() - began
    store = RunFolder(accidents.folder)
    done = len(store.done())
    say(f"{done} cells done after {disturbed:.0f} s; in peace from now on")
    specification, said = accidents.finish()
    say(f"the same {specification.count} cells, undisturbed")
    undisturbed = real_sweep.run_undisturbed(specification, folder / "undisturbed", workers)
    found = evidence.compare(accidents.folder, folder / "undisturbed")
    notes = real_sweep.read_notes(accidents.log)
    times = recoveries(accidents.events, notes)
    counted = {fault: sum(event.fault == fault for event in accidents.events) for fault in times}
    rows = [Row(fault, counted[fault], found.lost, times[fault]) for fault in sorted(times)]
    details: dict[str, Any] = {
        "cells": specification.count,
        "cells_done_under_fire": done,
        "seconds_under_fire": round(disturbed),
        "seconds_undisturbed_for_all": round(undisturbed),
        "accidents": sum(counted.values()),
        "cells_missing": found.missing,
        "cells_different": found.different,
        "cells_failed_before_retry": said[0]["failed"],
        "cells_failed": found.failed,
        "left_over": found.left_over,
        "set_aside": found.set_aside,
        "orphans": accidents.orphans,
        "wrong_exit_statuses": accidents.statuses,
        "seconds_to_leave_median": round(float(np.median(accidents.leaving)), 2) if accidents.leaving else None,
        "seconds_to_leave_longest": round(max(accidents.leaving), 2) if accidents.leaving else None,
        **thrown_away(notes, store),
    }
    details["ok"] = found.clean and not accidents.orphans and not accidents.statuses and not said[0]["failed"]
    return rows, details


def main() -> None:
    """Run the program."""
    parser = evidence.parser(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=1200, help="of accidents")
    parser.add_argument("--cells", type=int, help="by default, more than can be done in that time")
    parser.add_argument("--epochs", type=int, default=1000)
    options = parser.parse_args()
    # A program that a shell has put into the background ignores Ctrl-C, and would hand that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    count = options.cells or max(12, int(options.seconds))
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    specification = Specification(count, epochs=options.epochs)
    rows, details = attack(options.seconds, specification, folder, options.workers, options.seed)
    evidence.report(rows, details, "A sweep under fire", options.as_json)
    sys.exit(0 if details["ok"] else 1)


if __name__ == "__main__":
    main()
