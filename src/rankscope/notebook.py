"""Progress bars in Jupyter: one HTML output that is updated in place, without widgets or JavaScript."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any

SECONDS_BEFORE = 1.0
"""Work that takes less shows no bar."""
SECONDS_BETWEEN = 0.3
Show = Callable[[float, str], None]


def training_bar() -> Callable[[int, int, float], None] | None:
    """Return progress(done, total, loss) that updates a bar of epochs; None outside a notebook."""
    show = _bar()
    if show is None:
        return None
    return lambda done, total, loss: show(done / total, f"{done} of {total} epochs, loss {loss:.2e}")


def run_bar(networks: int) -> Callable[[int, int, int, float], None] | None:
    """Return on_progress(index, done, total, loss) that updates a bar over all networks; None outside a notebook."""
    show = _bar()
    if show is None:
        return None
    shares: dict[int, float] = {}

    def on_progress(index: int, done: int, total: int, loss: float) -> None:
        shares[index] = done / total
        finished = sum(share == 1 for share in shares.values())
        show(math.fsum(shares.values()) / networks, f"{finished} of {networks} networks")

    return on_progress


def _bar() -> Show | None:
    """Return show(share, text) that updates one output of the running cell; None outside a Jupyter kernel."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return None
    from IPython.display import HTML, display

    started = time.monotonic()
    state: dict[str, Any] = {"shown": started + SECONDS_BEFORE - SECONDS_BETWEEN, "handle": None}

    def show(share: float, text: str) -> None:
        now = time.monotonic()
        ended = share >= 1 and state["handle"] is not None
        if now - state["shown"] < SECONDS_BETWEEN and not ended:
            return
        state["shown"] = now
        left = (now - started) * (1 - share) / share if share > 0 else math.nan
        times = f"{now - started:.0f} s" + (f", about {left:.0f} s left" if share < 1 and math.isfinite(left) else "")
        bar = f'<progress value="{share:.4f}" max="1"></progress> {escape(text)} ({times})'
        content = HTML(bar)  # type: ignore[no-untyped-call]
        if state["handle"] is None:
            state["handle"] = display(content, display_id=True)  # type: ignore[no-untyped-call]
        else:
            state["handle"].update(content)

    return show
