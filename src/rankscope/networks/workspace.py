"""Buffers of the hand-written passes, allocated once and reused in every epoch.

A training step of a 256-unit network uses a few arrays of 3 MB. Allocating them in every step costs more than the
arithmetic, so a network keeps a small pool of workspaces. A forward pass leases a workspace and holds it until its
autograd graph is freed; a second forward pass before the first one's backward pass leases another.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class WorkspaceKey:
    """Shape, dtype and device of the buffers of a workspace."""

    steps: int
    batch: int
    hidden_size: int
    dtype: torch.dtype
    device: torch.device


class Workspace:
    """Time-major buffers of one pass, each allocated at its first use.

    Attributes
    ----------
    steps
        Number of steps in use, at most those of the key.
    """

    def __init__(self, key: WorkspaceKey) -> None:
        self.key = key
        self.steps = key.steps
        self._buffers: dict[str, Tensor] = {}

    def buffer(self, name: str, extra_steps: int = 0) -> Tensor:
        """Return the buffer `name`, (steps + extra_steps, batch, hidden_size), with its previous content."""
        if name not in self._buffers:
            k = self.key
            shape = (k.steps + extra_steps, k.batch, k.hidden_size)
            self._buffers[name] = torch.empty(shape, dtype=k.dtype, device=k.device)
        return self._buffers[name][: self.steps + extra_steps]


class Lease:
    """Exclusive use of a workspace; it returns to its pool when the lease is garbage collected."""

    def __init__(self, pool: WorkspacePool, workspace: Workspace) -> None:
        self._pool = pool
        self.workspace = workspace

    def __del__(self) -> None:
        self._pool._take_back(self.workspace)


class WorkspacePool:
    """The free workspaces of one network: at most `keep` of them, the most recently used.

    Copying or pickling a network gives the copy an empty pool of its own.
    """

    def __init__(self, keep: int = 2) -> None:
        self._keep = keep
        self._free: OrderedDict[int, Workspace] = OrderedDict()

    def lease(self, key: WorkspaceKey, steps: int | None = None) -> Lease:
        """Return a lease on a workspace of this shape, exclusively; with all of its steps, or the first few."""
        for number, workspace in reversed(list(self._free.items())):
            if workspace.key == key:
                # Another thread may have leased it since the list was made.
                taken = self._free.pop(number, None)
                if taken is not None:
                    return self._leased(taken, steps)
        return self._leased(Workspace(key), steps)

    def _leased(self, workspace: Workspace, steps: int | None) -> Lease:
        workspace.steps = workspace.key.steps if steps is None else steps
        return Lease(self, workspace)

    def _take_back(self, workspace: Workspace) -> None:
        self._free[id(workspace)] = workspace
        while len(self._free) > self._keep:
            self._free.popitem(last=False)

    def __deepcopy__(self, memo: dict[int, object]) -> WorkspacePool:
        return WorkspacePool(self._keep)

    def __reduce__(self) -> tuple[type[WorkspacePool], tuple[int]]:
        return WorkspacePool, (self._keep,)
