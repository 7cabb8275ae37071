"""A run that is killed, interrupted, stopped and restarted again and again.

    python hardening/kills.py --faults 150      (about twenty minutes, and as long again to finish and to compare)

The run trains small networks, with a state file twice a second. At random moments a worker, the parent or the whole
group of processes is killed (SIGKILL), the group receives Ctrl-C (SIGINT), the parent is terminated (SIGTERM), the
group is stopped for a while and continued (SIGSTOP, SIGCONT; twice for longer than a lock stays valid), or a second run
starts on the same folder. Every other fault waits until a job is in progress; the rest may strike while Python starts.
A run that ended is restarted at once. At the end the jobs begun so far are finished without faults and compared, bit
for bit, with those of an undisturbed run. FOLDER/events.jsonl lists the faults, FOLDER/disturbed.log what the jobs did.

*Recovery* is the time until a job is in progress again, from the restart, or from the fault where no restart is needed;
it includes starting Python. *Repeated* are the epochs computed more than once, in seconds of training. The exit status
is 0 only if nothing was lost, failed or left over.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import evidence
import real_sweep
from evidence import Row
from rankscope.sweep import RunFolder, locks
from real_sweep import Note, Specification

LONG_STOP = locks.STALE_AFTER + 12
LEAST_FOR_LONG_STOPS = 40
MOST_SECONDS_TO_EXIT = 30
MOST_SECONDS_TO_BEGIN = 120
SECONDS_BETWEEN_FAULTS = (0.5, 10.0)


@dataclass
class Event:
    """A fault: its name, its time, the session that continues after it, and processes known before."""

    fault: str
    time: float
    session: int
    known: list[int] = field(default_factory=list)


@dataclass
class Program:
    """A run in a session of its own; from `until` on it is to be killed."""

    process: subprocess.Popen[bytes]
    until: float = float("inf")

    @property
    def session(self) -> int:
        """The session, named after its first process."""
        return self.process.pid

    @property
    def runs(self) -> bool:
        """Whether the parent process runs."""
        return self.process.poll() is None


class Faults:
    """A run on `folder`, and what can be done to it."""

    def __init__(self, specification: Specification, folder: Path, workers: int, rng: random.Random) -> None:
        self.specification, self.folder, self.workers, self.rng = specification, folder, workers, rng
        self.log = folder.parent / f"{folder.name}.log"
        self.errors = (folder.parent / f"{folder.name}.stderr").open("ab")
        self.events: list[Event] = []
        self.orphans: list[str] = []
        self.statuses: list[str] = []
        self.exit_seconds: list[float] = []
        self.main = self.start()
        self.second: Program | None = None

    def start(self) -> Program:
        """Start a run."""
        command = real_sweep.command(self.folder, "--workers", str(self.workers))
        environment = real_sweep.environment(self.specification, self.log)
        return Program(
            subprocess.Popen(
                command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=self.errors
            )
        )

    def restart(self, fault: str) -> bool:
        """Start the run again after a fault."""
        began = time.time()
        self.main = self.start()
        self.record(Event(fault, began, self.main.session))
        return True

    def record(self, event: Event) -> None:
        """Append an event to the list and to its file."""
        self.events.append(event)
        with (self.folder.parent / "events.jsonl").open("a") as file:
            file.write(json.dumps(asdict(event)) + "\n")

    def kill_worker(self) -> bool:
        """Kill a worker that holds a lock; the run replaces it."""
        pids = evidence.members(self.main.session)
        owners = (locks.owner(path) for path in (self.folder / "locks").glob("*"))
        working = [owner.pid for owner in owners if owner and owner.pid in pids and owner.pid != self.main.session]
        if working:
            self.record(Event("a worker process killed", time.time(), self.main.session, pids))
            os.kill(self.rng.choice(working), signal.SIGKILL)
        return bool(working)

    def kill_parent(self) -> bool:
        """Kill the parent; its workers exit by themselves."""
        self.main.process.kill()
        self._expect(-signal.SIGKILL)
        return self.restart("the parent process killed")

    def kill_group(self) -> bool:
        """Kill all processes at once, as a power failure does."""
        os.killpg(self.main.session, signal.SIGKILL)
        self._expect(-signal.SIGKILL)
        return self.restart("all processes killed at once")

    def interrupt(self) -> bool:
        """Press Ctrl-C."""
        os.killpg(self.main.session, signal.SIGINT)
        self._expect(130, -signal.SIGINT)  # the latter while Python starts
        return self.restart("Ctrl-C (SIGINT)")

    def terminate(self) -> bool:
        """Terminate the parent, as a queueing system does."""
        self.main.process.terminate()
        self._expect(143, -signal.SIGTERM)
        return self.restart("terminated (SIGTERM)")

    def stop(self, seconds: float | None = None) -> bool:
        """Stop the group and continue it, as a suspended laptop does."""
        seconds = self.rng.uniform(1, 6) if seconds is None else seconds
        long = seconds > locks.STALE_AFTER
        os.killpg(self.main.session, signal.SIGSTOP)
        time.sleep(seconds)
        name = f"stopped for {seconds:.0f} s, longer than a lock is valid" if long else "stopped for 1 to 6 s"
        self.record(Event(name, time.time(), self.main.session))
        os.killpg(self.main.session, signal.SIGCONT)
        return True

    def stop_long(self) -> bool:
        """Stop the group until a second run on the same folder has taken its jobs over."""
        evidence.log(f"stopped for {LONG_STOP:.0f} s beside a second run")
        self.start_second()
        assert self.second is not None
        self.second.until = time.monotonic() + LONG_STOP + 15
        return self.stop(LONG_STOP)

    def start_second(self) -> bool:
        """Start a second run on the same folder, unless there is one; it is killed later."""
        if self.second is not None and self.second.runs:
            return False
        began = time.time()
        self.second = self.start()
        self.second.until = time.monotonic() + self.rng.uniform(8, 25)
        self.record(Event("a second run on the same folder, killed later", began, self.second.session))
        return True

    def end_second(self, now: bool = False) -> None:
        """Kill the second run if its time is over."""
        if self.second is None or not (now or time.monotonic() > self.second.until):
            return
        os.killpg(self.second.session, signal.SIGKILL)
        self.second.process.wait()
        self._no_orphans(self.second.session)
        self.second = None

    def wait_for_work(self) -> None:
        """Wait until a job of the main run has progressed, or the run has ended."""
        began, deadline = time.time(), time.monotonic() + MOST_SECONDS_TO_BEGIN
        while self.main.runs and time.monotonic() < deadline:
            if any(n.session == self.main.session and n.time > began for n in real_sweep.read_notes(self.log)):
                return
            time.sleep(0.2)

    def finish(self) -> tuple[Specification, list[Any]]:
        """Finish the jobs that were begun.

        Returns
        -------
        The jobs, and the output of the run; of a second one with --retry-failed if some had failed.
        """
        self.end_second(now=True)
        if self.main.runs:
            self.main.process.terminate()
            self._expect(143, -signal.SIGTERM)
        begun = {note.digest for note in real_sweep.read_notes(self.log)}
        last = max(number for number, job in enumerate(self.specification.jobs()) if job.digest in begun)
        specification = replace(self.specification, count=last + 1)
        outputs = []
        for options in ((), ("--retry-failed",)):
            ended = subprocess.run(
                real_sweep.command(self.folder, "--workers", str(self.workers), *options),
                env=real_sweep.environment(specification, self.log),
                stdout=subprocess.PIPE,
                check=False,
            )
            outputs.append(json.loads(ended.stdout))
            if not outputs[-1]["failed"]:
                break
        return specification, outputs

    def _expect(self, *statuses: int) -> None:
        began = time.monotonic()
        try:
            status = self.main.process.wait(MOST_SECONDS_TO_EXIT)
            if status not in statuses:
                self.statuses.append(f"{status} instead of {statuses[0]}")
        except subprocess.TimeoutExpired:
            self.statuses.append(f"still running after {MOST_SECONDS_TO_EXIT} s")
            os.killpg(self.main.session, signal.SIGKILL)
            self.main.process.wait()
        self._no_orphans(self.main.session)
        self.exit_seconds.append(time.monotonic() - began)

    def _no_orphans(self, session: int) -> None:
        deadline = time.monotonic() + MOST_SECONDS_TO_EXIT
        while members := evidence.members(session):
            if time.monotonic() > deadline:
                self.orphans.append(f"{members}")
                os.killpg(session, signal.SIGKILL)
                return
            time.sleep(0.02)


def disturb(faults: Faults, count: int) -> None:
    """Inject `count` faults, or until the run has finished."""
    usual: Sequence[Callable[[], bool]] = (
        *(faults.kill_worker, faults.kill_worker, faults.kill_parent, faults.kill_group),
        *(faults.interrupt, faults.terminate, faults.stop, faults.start_second),
    )
    long_stops = [count // 4, 3 * count // 4] if count >= LEAST_FOR_LONG_STOPS else []
    for number in range(count):
        if number % 2 == 0:
            faults.wait_for_work()
        time.sleep(faults.rng.uniform(*SECONDS_BETWEEN_FAULTS))
        faults.end_second()
        if not faults.main.runs:
            status = faults.main.process.returncode
            if status == 0:
                evidence.log("the run has finished before all faults; give it more jobs")
                return
            faults.statuses.append(f"ended by itself with {status}")
            faults.restart("ended by itself")
        if number in long_stops:
            faults.stop_long()
        else:
            while not faults.rng.choice(usual)():
                pass  # There is no worker to kill, or there is a second run already.
        done = len(RunFolder(faults.folder).done())
        evidence.log(f"{number + 1}: {faults.events[-1].fault}; {done} networks finished")


def recoveries(events: Sequence[Event], notes: Sequence[Note]) -> dict[str, list[float]]:
    """Return for each kind of fault the times until a job was in progress; none if the next fault came before."""
    by_session: dict[int, list[Note]] = defaultdict(list)
    for one in notes:
        by_session[one.session].append(one)
    found: dict[str, list[float]] = {event.fault: [] for event in events}
    for event in events:
        later = (n.time for n in by_session[event.session] if n.time >= event.time and n.pid not in event.known)
        first = min(later, default=None)
        if first is not None:
            found[event.fault].append(first - event.time)
    return found


def repeated_work(notes: Sequence[Note], store: RunFolder) -> dict[str, float]:
    """Return how much was computed twice: whole jobs, and epochs in seconds of training."""
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
            # The first epoch reported by a process was computed by it.
            epochs[one.digest] += int(one.what) - where.get(key, int(one.what) - 1)
            where[key] = int(one.what)
    seconds, needed = 0.0, 0
    for digest, computed in epochs.items():
        result = store.result(digest)
        (length,) = result.variables["loss"].shape
        needed += length
        seconds += (computed - length) * float(result.attrs["training_seconds"]) / length
    return {
        "jobs_computed_twice": sum(times > 1 for times in ended.values()),
        "seconds_repeated": round(seconds, 1),
        "epochs_needed": needed,
        "epochs_computed": sum(epochs.values()),
    }


def kill(
    count: int, specification: Specification, folder: Path, workers: int, seed: int
) -> tuple[list[Row], dict[str, Any]]:
    """Disturb a run, let it finish, and compare it with an undisturbed one."""
    faults = Faults(specification, folder / "disturbed", workers, random.Random(seed))
    began = time.monotonic()
    disturb(faults, count)
    disturbed = time.monotonic() - began
    store = RunFolder(faults.folder)
    done = len(store.done())
    evidence.log(f"{done} networks finished in {disturbed:.0f} s; no more faults")
    specification, outputs = faults.finish()
    evidence.log(f"the same {specification.count} networks, undisturbed")
    real_sweep.run_undisturbed(specification, folder / "undisturbed", workers)
    found = evidence.compare(faults.folder, folder / "undisturbed")
    notes = real_sweep.read_notes(faults.log)
    times = recoveries(faults.events, notes)
    counted = {fault: sum(event.fault == fault for event in faults.events) for fault in times}
    rows = [Row(fault, counted[fault], found.lost, times[fault]) for fault in sorted(times)]
    details: dict[str, Any] = {
        "jobs": specification.count,
        "faults": sum(counted.values()),
        "networks_finished_between_faults": done,
        "seconds_of_faults": round(disturbed),
        "failed_before_retry": outputs[0]["failed"],
        **found.details(),
        "orphans": faults.orphans,
        "wrong_exit_statuses": faults.statuses,
        "seconds_to_exit_median": round(float(np.median(faults.exit_seconds)), 2) if faults.exit_seconds else None,
        "seconds_to_exit_longest": round(max(faults.exit_seconds), 2) if faults.exit_seconds else None,
        **repeated_work(notes, store),
    }
    details["ok"] = found.clean and not faults.orphans and not faults.statuses and not outputs[0]["failed"]
    return rows, details


def main() -> None:
    """Run the program."""
    parser = evidence.parser(__doc__ or "", jobs=None, epochs=1000)
    parser.add_argument("--faults", type=int, default=150)
    options = parser.parse_args()
    # A shell's background programs ignore Ctrl-C, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    specification = Specification(options.jobs or max(30, 8 * options.faults), epochs=options.epochs)
    evidence.execute(
        options,
        "A run killed and restarted",
        lambda folder: kill(options.faults, specification, folder, options.workers, options.seed),
    )


if __name__ == "__main__":
    main()
