"""A Dask cluster of four hosts whose links are cut and restored, and that loses one host.

    python hardening/two_hosts.py --jobs 110      (about a quarter of an hour; as root, on Linux, with iproute2)

The hosts are network namespaces on this machine, with host names and process numbers of their own: one for the
scheduler, one for the run, two for a worker each, with one file system and a virtual cable (veth) from each to the
scheduler. A cut takes the cable down, so that packets are lost and no connection is closed. The link of a worker and
then that of the run is cut for 5 s, 20 s and 45 s, which is longer than Dask's timeout of 30 s. At last a worker host
is lost, and replaced by a new one.

*Recovery* is the time from the restored link until the host begins its next job; for the link of the run, until a job
begins anywhere, if necessary after a restart of the run. A run that ended with the error described in the guide on
clusters is started again. No progress for --patience seconds is a failure. The exit status is 0 only if nothing was
lost and nothing hung.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evidence
import real_sweep
from evidence import Row
from rankscope.sweep import RunFolder
from real_sweep import Specification

PORT = 8786
CUTS = (5.0, 20.0, 45.0)
SECONDS_BETWEEN_FAULTS = 8.0
EXPECTED = ("executor must accept work until the run ends", "scheduler must be the address of a running one")
"""Beginnings of the errors with which a run may end when its link is cut."""


class Hosts:
    """Network namespaces: a scheduler host ("hub") with a virtual cable to each of the others."""

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.names = names
        self.folder = folder
        self.tag = f"rs{os.getpid()}"
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Hosts:
        with ExitStack() as undo:
            undo.callback(self._remove)
            for name in ("hub", *self.names):
                _ip("netns", "add", self._space(name))
                _ip("-n", self._space(name), "link", "set", "lo", "up")
            for number, name in enumerate(self.names):
                here, there = f"{self.tag}h{number}", f"{self.tag}e{number}"
                _ip("link", "add", here, "netns", self._space("hub"), "type", "veth", "peer", "name", there,
                    "netns", self._space(name))  # fmt: skip
                _ip("-n", self._space("hub"), "addr", "add", f"10.213.{number}.1/24", "dev", here)
                _ip("-n", self._space(name), "addr", "add", f"10.213.{number}.2/24", "dev", there)
                self.restore(name)
                _ip("-n", self._space(name), "link", "set", there, "up")
                _ip("-n", self._space(name), "route", "add", "default", "via", f"10.213.{number}.1")
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            end(process)
        self._remove()

    def cut(self, name: str) -> None:
        """Take the cable to a host down."""
        _ip("-n", self._space("hub"), "link", "set", f"{self.tag}h{self.names.index(name)}", "down")

    def restore(self, name: str) -> None:
        """Bring the cable to a host up."""
        _ip("-n", self._space("hub"), "link", "set", f"{self.tag}h{self.names.index(name)}", "up")

    def scheduler_address(self, name: str) -> str:
        """Return the address of the scheduler as seen by a host."""
        return f"tcp://10.213.{self.names.index(name)}.1:{PORT}"

    def start(self, name: str, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start a program on a host. It has process numbers of its own, and its children end with it."""
        inside = f'hostname {name}; exec "$@"'
        whole = ["ip", "netns", "exec", self._space(name), "unshare", "--uts", "--pid", "--fork", "--kill-child",
                 "--mount-proc", "sh", "-c", inside, name, *command]  # fmt: skip
        log = (self.folder / f"{name}.log").open("ab")
        self.started.append(
            subprocess.Popen(whole, env=environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        )
        log.close()
        return self.started[-1]

    def _space(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def _remove(self) -> None:
        for name in ("hub", *self.names):
            subprocess.run(["ip", "netns", "del", self._space(name)], check=False, capture_output=True)


def why_not() -> str | None:
    """Return why network namespaces cannot be used here, or None."""
    for command in ("ip", "unshare"):
        if shutil.which(command) is None:
            return f"there is no command {command} (Debian: iproute2, util-linux)"
    try:
        with tempfile.TemporaryDirectory() as folder, Hosts(["one"], Path(folder)) as hosts:
            process = hosts.start("one", ["true"], dict(os.environ))
            if process.wait(30):
                return (Path(folder) / "one.log").read_text().strip() or "namespaces cannot be used here"
    except subprocess.CalledProcessError as error:
        return f"{' '.join(map(str, error.cmd))}: {error.stderr.decode().strip()}"
    return None


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program with all its children."""
    if process.poll() is None:
        # Killing `unshare` ends its namespace (--kill-child).
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Fault:
    """A fault: its name, its end, and the host on which the next job is to begin ("" is any)."""

    name: str
    over: float
    host: str


class Cluster:
    """A run on a Dask cluster on these hosts."""

    def __init__(self, hosts: Hosts, specification: Specification, folder: Path, patience: float) -> None:
        self.hosts, self.folder, self.patience = hosts, folder, patience
        self.log = folder.parent / f"{folder.name}.log"
        self.environment = real_sweep.environment(specification, self.log)
        self.faults: list[Fault] = []
        self.ends: list[str] = []
        self.hung = 0
        scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", str(PORT), "--no-dashboard"]
        self.hosts.start("hub", scheduler, self.environment)
        self.workers = {name: self._worker(name) for name in ("left", "right")}
        self.run = self.start_run()

    def start_run(self) -> subprocess.Popen[bytes]:
        """Start the run."""
        command = real_sweep.command(self.folder, "--scheduler", self.hosts.scheduler_address("desk"))
        return self.hosts.start("desk", command, self.environment)

    def replace_host(self, name: str) -> None:
        """End a worker host, wait, and start a worker on a new one of that name."""
        end(self.workers[name])
        time.sleep(5)
        self.workers[name] = self._worker(name)
        self._record("a Dask worker host lost, a new one 5 s later", name)

    def cut(self, name: str, seconds: float) -> None:
        """Cut the link of a host for some seconds."""
        self.hosts.cut(name)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.2)
            self._restart_if_ended()
        self.hosts.restore(name)
        if name == "desk":
            self._record(f"link of the run to its scheduler cut for {seconds:g} s", "")
        else:
            self._record(f"link of a Dask worker host cut for {seconds:g} s", name)

    def finished(self) -> bool:
        """Return whether the run has finished; restart it if it has ended otherwise."""
        self._restart_if_ended()
        return self.run.poll() == 0

    def wait_for_work(self) -> None:
        """Wait until the host of the last fault has begun a job, or the run has finished."""
        fault = self.faults[-1]
        deadline = time.monotonic() + self.patience
        while not self.finished():
            if time_until_work(fault, real_sweep.read_notes(self.log)) is not None:
                return
            if time.monotonic() > deadline:
                self.hung += 1
                evidence.log(f"no job has begun for {self.patience:.0f} s after: {fault.name}")
                return
            time.sleep(0.2)

    def finish(self) -> bool:
        """Wait for the end of the run; return False if it made no progress for too long."""
        done, since = -1, time.monotonic()
        while not self.finished():
            now_done = len(RunFolder(self.folder).done())
            if now_done != done:
                done, since = now_done, time.monotonic()
            if time.monotonic() - since > self.patience:
                self.hung += 1
                return False
            time.sleep(0.5)
        return True

    def _restart_if_ended(self) -> None:
        status = self.run.poll()
        if status not in (None, 0):
            line = (self.folder.parent / "desk.log").read_text().strip().splitlines()[-1]
            self.ends.append(f"{status}: {line}")
            evidence.log(f"the run has ended with {self.ends[-1]}")
            time.sleep(1)
            self.run = self.start_run()

    def _record(self, name: str, host: str) -> None:
        evidence.log(f"{name}; {len(RunFolder(self.folder).done())} networks finished")
        self.faults.append(Fault(name, time.time(), host))

    def _worker(self, name: str) -> subprocess.Popen[bytes]:
        # A worker that loses its scheduler exits; the loop restarts it, as docs/faults.md recommends.
        scratch = self.folder.parent / f"scratch-{name}"
        worker = ["-m", "distributed.cli.dask_worker", self.hosts.scheduler_address(name), "--nworkers", "1",
                  "--nthreads", "1", "--no-dashboard", "--local-directory", str(scratch)]  # fmt: skip
        again = ["sh", "-c", 'while true; do "$@"; sleep 5; done', "worker", sys.executable, *worker]
        return self.hosts.start(name, again, self.environment)


def time_until_work(fault: Fault, notes: Sequence[real_sweep.Note]) -> float | None:
    """Return the seconds from the end of a fault until a job began on its host; None if none did."""
    later = [n.time for n in notes if n.what == "begun" and n.time >= fault.over and fault.host in ("", n.host)]
    return min(later) - fault.over if later else None


def cut_links(
    specification: Specification, folder: Path, cuts: Sequence[float], patience: float, workers: int, seed: int
) -> tuple[list[Row], dict[str, Any]]:
    """Cut links during a run, let it finish, and compare it with an undisturbed one."""
    rng = random.Random(seed)
    began = time.monotonic()
    with Hosts(["desk", "left", "right"], folder) as hosts:
        cluster = Cluster(hosts, specification, folder / "cluster", patience)
        while not real_sweep.read_notes(cluster.log):
            time.sleep(0.2)
            if time.monotonic() - began > patience:
                raise RuntimeError(f"no job has begun; see the logs in {folder}")
        plan = [(host, seconds) for host in ("left", "desk") for seconds in cuts]
        for host, seconds in [*plan, ("right", None)]:
            time.sleep(rng.uniform(0.3, 1) * SECONDS_BETWEEN_FAULTS)
            if cluster.finished():
                evidence.log("the run has finished before all faults; give it more jobs")
                break
            if seconds is None:
                cluster.replace_host(host)
            else:
                cluster.cut(host, seconds)
            cluster.wait_for_work()
        ended = cluster.finish()
    evidence.log("the same networks, undisturbed")
    real_sweep.run_undisturbed(specification, folder / "undisturbed", workers)
    found = evidence.compare(folder / "cluster", folder / "undisturbed")
    notes = real_sweep.read_notes(cluster.log)
    rows = []
    for name in dict.fromkeys(fault.name for fault in cluster.faults):
        times = [time_until_work(fault, notes) for fault in cluster.faults if fault.name == name]
        rows.append(Row(name, len(times), found.lost, [seconds for seconds in times if seconds is not None]))
    details = {
        "jobs": specification.count,
        "faults": len(cluster.faults),
        **found.details(),
        "run_ended_with": cluster.ends,
        "hung": cluster.hung,
        "ended_by_itself": ended,
        "jobs_begun": sum(n.what == "begun" for n in notes),
        "jobs_ended": sum(n.what == "ended" for n in notes),
    }
    expected = all(any(line.startswith(f"2: rankscope: {one}") for one in EXPECTED) for line in cluster.ends)
    details["ok"] = found.clean and ended and not cluster.hung and expected
    return rows, details


def main() -> None:
    """Run the program."""
    parser = evidence.parser(__doc__ or "", jobs=110, epochs=1500)
    parser.add_argument("--cuts", type=float, nargs="+", default=CUTS, help="seconds for which each link is cut")
    parser.add_argument("--patience", type=float, default=240, help="seconds without progress that are a failure")
    options = parser.parse_args()
    specification = Specification(options.jobs, epochs=options.epochs)
    evidence.execute(
        options,
        "A cluster whose links are cut",
        lambda folder: cut_links(specification, folder, options.cuts, options.patience, options.workers, options.seed),
        why_not,
    )


if __name__ == "__main__":
    main()
