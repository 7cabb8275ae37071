"""Ranges of the parameters, for the sliders and for the validation of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rankscope.errors import InputError
from rankscope.validation import number

MAX_DIGITS = 24


@dataclass(frozen=True)
class Range:
    """Bounds of a parameter, the step of its slider, and its initial value."""

    minimum: float
    maximum: float
    step: float
    start: float

    def read(self, name: str, query: Mapping[str, str]) -> float:
        """Return the parameter from a query.

        Raises
        ------
        InputError
            If it is missing, not a number, or out of range.
        """
        text = query.get(name)
        if text is None:
            raise InputError(f"{name} must be given, between {self.minimum:g} and {self.maximum:g}")
        try:
            value: object = float(text) if len(text) <= MAX_DIGITS else text[:MAX_DIGITS]
        except ValueError:
            value = text
        return number(name, value, minimum=self.minimum, maximum=self.maximum)


#: g, well below 1 so that a curve takes milliseconds.
GAIN = Range(0.0, 0.95, 0.01, 0.6)
#: z_hat; learning is symmetric in its sign.
TARGET = Range(0.1, 8.0, 0.05, 2.0)
#: log10 of the learning rate in units of (1 - g^2)^2.
LOG_RATE = Range(-4.0, 2.0, 0.05, -2.5)
#: Sizes of the networks that are trained beside the theory.
UNITS = (64, 128, 256)
START_UNITS = 128


def page_bounds() -> dict[str, Any]:
    """Return all bounds as plain values."""
    ranges = {"gain": GAIN, "target": TARGET, "log_rate": LOG_RATE}
    return {name: asdict(one) for name, one in ranges.items()} | {"units": list(UNITS), "start_units": START_UNITS}
