"""Times several things in one run so that they can be compared with each other.

A computer is not equally fast from one minute to the next. So the things to be timed take turns: in every *round*
each has one short turn, which begins with an untimed call where that is affordable and then gives one number, the
mean wall time of a call. What is reported is the median over the rounds, and the quartiles as the spread. Beside it
stands how much of the cores that it asked for each turn *received* (processor time by wall time): clearly less than 1
means that somebody else was using the machine, and that the time says little.
"""

from __future__ import annotations

import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch

MOST_CALLS_PER_TURN = 200
LONG_CALL = 0.2
"""A call of so many seconds warms up by itself."""

FEWEST_ROUNDS = 2
PATIENCE = 1.0
"""Seconds after which a turn ends early: threads that wait for each other crawl when a core is taken from them."""


class Turn(NamedTuple):
    """What one turn found: the seconds of a call, and the part of the cores asked for that was received."""

    seconds: float
    received: float


@dataclass(frozen=True)
class Measurement:
    """Milliseconds a call took, one number a round, and the part of the asked cores that it received."""

    samples: tuple[float, ...]
    received: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over the rounds, in milliseconds."""
        return float(np.median(self.samples))

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile over the rounds, in milliseconds."""
        first, third = np.percentile(self.samples, [25, 75])
        return float(first), float(third)

    @property
    def disturbed(self) -> bool:
        """Whether in the median round something else took a tenth of the cores asked for, or more."""
        return float(np.median(self.received)) < 0.9

    def as_json(self) -> dict[str, float | int]:
        """Return the numbers as plain values."""
        first, third = self.quartiles
        return {
            "median_ms": self.median,
            "first_quartile_ms": first,
            "third_quartile_ms": third,
            "received": float(np.median(self.received)),
            "rounds": len(self.samples),
        }


class Subject(Protocol):
    """Something to be timed."""

    def prepare(self, turn_seconds: float) -> None:
        """Do everything that is slow the first time, and plan for turns of about so many seconds."""
        ...

    def turn(self) -> Turn:
        """Return what one call takes, now."""
        ...


@dataclass
class Timed:
    """A function to be timed in this process, with so many torch threads.

    Attributes
    ----------
    parts
        How many equal parts one call consists of; the time of one part is what is reported.
    """

    call: Callable[[], object]
    threads: int = 1
    parts: int = 1
    calls: int = 1
    warm_ups: int = 1

    def prepare(self, turn_seconds: float) -> None:
        """Call twice (once if that takes long), and settle how many calls make a turn."""
        torch.set_num_threads(self.threads)
        for _ in range(2):
            started = time.perf_counter()
            self.call()
            seconds = time.perf_counter() - started
            self.warm_ups = int(seconds < LONG_CALL)
            if not self.warm_ups:
                break
        self.calls = int(np.clip(turn_seconds / seconds, 1, MOST_CALLS_PER_TURN))

    def turn(self) -> Turn:
        """Return the mean seconds of a part over the calls of this turn."""
        torch.set_num_threads(self.threads)
        for _ in range(self.warm_ups):
            self.call()
        return timed(self.call, self.calls, self.threads, self.parts, patience=PATIENCE)


def timed(call: Callable[[], object], calls: int, threads: int = 1, parts: int = 1, patience: float = math.inf) -> Turn:
    """Call so many times, fewer if that takes longer than `patience` seconds; return the mean seconds of a part."""
    processor, started = time.process_time(), time.perf_counter()
    done, wall = 0, 0.0
    while done < calls and wall < patience:
        call()
        done += 1
        wall = time.perf_counter() - started
    processor = time.process_time() - processor
    return Turn(wall / (done * parts), processor / (wall * threads))


def measure(subjects: dict[str, Subject], rounds: int, seconds: float, turn_seconds: float) -> dict[str, Measurement]:
    """Let the subjects take turns, and return a measurement for each.

    Parameters
    ----------
    rounds
        How many rounds at most.
    seconds
        No round is begun that would end later than this, once there are two.
    turn_seconds
        How long a turn of something short lasts.
    """
    started = time.perf_counter()
    for name, subject in subjects.items():
        _tell(f"warming up: {name}")
        subject.prepare(turn_seconds)
    turns: dict[str, list[Turn]] = {name: [] for name in subjects}
    first_round = time.perf_counter()
    for done in range(rounds):
        now = time.perf_counter()
        if done >= FEWEST_ROUNDS and now - started + (now - first_round) / done > seconds:
            _tell(f"stopping after {done} of {rounds} rounds, to stay within {seconds:g} s")
            break
        _tell(f"round {done + 1} of {rounds}")
        for name, subject in subjects.items():
            turns[name].append(subject.turn())
    return {
        name: Measurement(tuple(1000 * turn.seconds for turn in taken), tuple(turn.received for turn in taken))
        for name, taken in turns.items()
    }


def quotient(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median over the rounds of above / below: what disturbs a round disturbs both of its turns."""
    return float(np.median(np.divide(above, below)))


def duration(ms: float) -> str:
    """Return milliseconds as a time with three digits and a fitting unit."""
    scale, unit = (1000, "s") if ms >= 1000 else (1, "ms") if ms >= 0.1 else (0.001, "µs")
    return f"{ms / scale:#.3g}".rstrip(".") + f" {unit}"


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
