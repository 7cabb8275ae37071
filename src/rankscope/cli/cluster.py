"""The workers of a Dask cluster, for commands with `--scheduler`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from rankscope.errors import InputError
from rankscope.extras import needs

SchedulerOption = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler, tcp://HOST:PORT, whose workers do the work.")
]


@contextmanager
def executor_of(scheduler: str | None) -> Iterator[Executor | None]:
    """Yield the executor of a Dask cluster, or None for local processes."""
    if scheduler is None:
        yield None
        return
    with needs("cluster", "scheduler"):
        from distributed import Client
    try:
        client: Any = Client(scheduler, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler must be the address of a running one, got {scheduler!r}: {error}") from error
    try:
        yield client.get_executor(retries=2)
    finally:
        client.close()
