"""Nonlinearities with hand-written derivatives, by name.

For tanh, relu, softplus and the identity the slope is a function of the output y = phi(x), so that the fused engine
stores the rates only. Any other elementwise callable works through plain autograd.

    tanh      phi'(x) = 1 - y^2
    relu      phi'(x) = 1 where y > 0, else 0
    softplus  phi'(x) = 1 - exp(-y)
    identity  phi'(x) = 1
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import InputError
from rankscope.validation import choice

Elementwise = Callable[[Tensor], Tensor]


class Nonlinearity(ABC):
    """Base class: a differentiable call, and two in-place operations for the hand-written passes."""

    name: str
    zero_at_zero: bool = True
    """Whether phi(0) = 0, so that a network at rest stays at rest."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Return phi(x), differentiable by autograd."""

    @abstractmethod
    def into(self, x: Tensor, out: Tensor) -> None:
        """Write phi(x) into `out` (which may be `x`), outside autograd."""

    def stepwise(self, x: Tensor, out: Tensor) -> Callable[[int], object]:
        """Return apply(t), which writes phi(x[t]) into out[t]: `into` prepared for a time loop."""
        arguments, results, into = x.unbind(), out.unbind(), self.into
        return lambda t: into(arguments[t], results[t])

    @abstractmethod
    def backward_into(self, grad: Tensor, y: Tensor, out: Tensor) -> None:
        """Write grad * phi'(x) into `out` (which may be `grad`), given y = phi(x), outside autograd."""

    def __repr__(self) -> str:
        return f"<nonlinearity {self.name}>"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        # Copies and unpickled objects are the same object, as nonlinearities are compared by `is`.
        return find_nonlinearity, (self.name,)


class Tanh(Nonlinearity):
    """Hyperbolic tangent, the default of every nonlinear experiment of the paper."""

    name = "tanh"

    def __call__(self, x: Tensor) -> Tensor:
        """Return tanh(x)."""
        return torch.tanh(x)

    def into(self, x: Tensor, out: Tensor) -> None:
        """Write tanh(x) into `out`."""
        # numpy's vectorized tanh is about ten times faster than torch's on the CPU, and equally accurate.
        if x.device.type == "cpu":
            np.tanh(x.numpy(), out=out.numpy())
        else:
            torch.tanh(x, out=out)

    def stepwise(self, x: Tensor, out: Tensor) -> Callable[[int], object]:
        """Return apply(t), which writes tanh(x[t]) into out[t]."""
        if x.device.type != "cpu":
            return super().stepwise(x, out)
        arguments, results, tanh = list(x.numpy()), list(out.numpy()), np.tanh
        return lambda t: tanh(arguments[t], results[t])

    def backward_into(self, grad: Tensor, y: Tensor, out: Tensor) -> None:
        """Write grad * (1 - y^2) into `out`."""
        torch.ops.aten.tanh_backward.grad_input(grad, y, grad_input=out)


class Relu(Nonlinearity):
    """Threshold-linear: max(x, 0), with slope 0 at 0."""

    name = "relu"

    def __call__(self, x: Tensor) -> Tensor:
        """Return max(x, 0)."""
        return torch.relu(x)

    def into(self, x: Tensor, out: Tensor) -> None:
        """Write max(x, 0) into `out`."""
        torch.clamp_min(x, 0.0, out=out)

    def backward_into(self, grad: Tensor, y: Tensor, out: Tensor) -> None:
        """Write grad where y > 0, else 0, into `out`."""
        torch.ops.aten.threshold_backward.grad_input(grad, y, 0.0, grad_input=out)


class Softplus(Nonlinearity):
    """Smooth threshold-linear: log(1 + exp(x))."""

    name = "softplus"
    zero_at_zero = False

    # Above this, log(1 + exp(x)) equals x to the last bit in double precision, value and slope alike.
    linear_above = 40.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return log(1 + exp(x))."""
        return torch.nn.functional.softplus(x, threshold=self.linear_above)

    def into(self, x: Tensor, out: Tensor) -> None:
        """Write log(1 + exp(x)) into `out`."""
        out.copy_(self(x))

    def backward_into(self, grad: Tensor, y: Tensor, out: Tensor) -> None:
        """Write grad * (1 - exp(-y)) into `out`."""
        torch.mul(grad, torch.expm1(-y).neg_(), out=out)


class Identity(Nonlinearity):
    """The linear network."""

    name = "identity"

    def __call__(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def into(self, x: Tensor, out: Tensor) -> None:
        """Copy x into `out`."""
        out.copy_(x)

    def backward_into(self, grad: Tensor, y: Tensor, out: Tensor) -> None:
        """Copy grad into `out`."""
        if out is not grad:
            out.copy_(grad)


NONLINEARITIES: dict[str, Nonlinearity] = {phi.name: phi for phi in (Tanh(), Relu(), Softplus(), Identity())}


def find_nonlinearity(value: str | Elementwise, argument: str = "nonlinearity") -> Nonlinearity | Elementwise:
    """Return the named `Nonlinearity`, or the callable as it is.

    Raises
    ------
    InputError
        If `value` is neither a known name nor a callable that maps a tensor to one of the same shape.
    """
    if isinstance(value, str):
        return NONLINEARITIES[choice(argument, value, NONLINEARITIES)]
    if not callable(value):
        raise InputError(
            f"{argument} must be one of {', '.join(map(repr, NONLINEARITIES))} or an elementwise callable, "
            f"got {value!r}"
        )
    if not isinstance(value, Nonlinearity):
        x = torch.linspace(-1.0, 1.0, 6).reshape(2, 3)
        y = value(x)
        if not isinstance(y, Tensor) or y.shape != x.shape:
            got = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise InputError(f"{argument} must be elementwise: it turned a (2, 3) tensor into {got}")
        among_equals = torch.stack([value(torch.full_like(x, float(entry)))[0, 0] for entry in x.flatten()])
        if not torch.allclose(y.flatten(), among_equals, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise InputError(f"{argument} must be elementwise: the result of an entry depends on the others")
    return value


def name_of(phi: Nonlinearity | Elementwise) -> str:
    """Return the name of a nonlinearity or a callable."""
    return phi.name if isinstance(phi, Nonlinearity) else getattr(phi, "__name__", type(phi).__name__)
