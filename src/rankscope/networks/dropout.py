"""Dropout from 16 random bits a unit. torch draws 32 and takes longer than a product with the weights.

The probability is rounded to a multiple of 2^-16, and the units that stay are divided by the rounded one, so that the
mean is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_STEPS = 2**16


class Dropout(nn.Module):
    """Set units to zero with probability p in training, and divide the others by 1 - p.

    Draws from torch's global generator, as `torch.nn.Dropout`.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return x with units dropped, in training; x itself otherwise."""
        dropped = min(round(self.p * _STEPS), _STEPS - 1)
        if not self.training or dropped == 0:
            return x
        count = x.numel()
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        bits = words.view(torch.int16)[:count].view(x.shape)
        kept = bits >= dropped - _STEPS // 2
        return x * kept.to(x.dtype).mul_(_STEPS / (_STEPS - dropped))

    def extra_repr(self) -> str:
        """Return the probability, for the module's text."""
        return f"p={self.p}"
