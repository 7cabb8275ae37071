"""What may be asked for: the range of every parameter, the same for the sliders and for whoever types an address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rankscope.errors import InputError
from rankscope.validation import number

MOST_DIGITS = 24


@dataclass(frozen=True)
class Range:
    """A parameter: its bounds, the step of its slider, and the value that the page begins with."""

    minimum: float
    maximum: float
    step: float
    start: float

    def read(self, name: str, query: Mapping[str, str]) -> float:
        """Return the parameter from a query.

        Raises
        ------
        InputError
            If it is not there, no number, or out of range.
        """
        text = query.get(name)
        if text is None:
            raise InputError(f"{name} must be given, between {self.minimum:g} and {self.maximum:g}")
        try:
            value = float(text) if len(text) <= MOST_DIGITS else None
        except ValueError:
            value = None
        given: object = text[:MOST_DIGITS] if value is None else value
        return number(name, given, minimum=self.minimum, maximum=self.maximum)


#: g, below 1 so that chains stay short and a curve takes no longer than a moment.
GAIN = Range(0.0, 0.95, 0.01, 0.6)
#: z_hat; a negative one is learned as its opposite is.
TARGET = Range(0.1, 8.0, 0.05, 2.0)
#: log10 of the learning rate in units of (1 - g^2)^2.
LOG_RATE = Range(-4.0, 2.0, 0.05, -2.5)
#: Of the networks that are trained beside the theory.
UNITS = (64, 128, 256)
START_UNITS = 128


def for_the_page() -> dict[str, Any]:
    """Return all of it as plain values."""
    ranges = {"gain": GAIN, "target": TARGET, "log_rate": LOG_RATE}
    return {name: asdict(one) for name, one in ranges.items()} | {"units": list(UNITS), "start_units": START_UNITS}
