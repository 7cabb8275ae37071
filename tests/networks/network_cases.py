"""Small random networks for the tests of this room, and everything an engine says about one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rankscope.networks import NONLINEARITIES, Dynamics, Weights

CONVENTIONS = ("current", "rate")
NAMES = tuple(NONLINEARITIES)
PARTS = ("inputs", "noise", *Weights._fields[:5])


@dataclass
class Case:
    inputs: Tensor
    noise: Tensor | None
    weights: Weights

    @property
    def parts(self) -> dict[str, Tensor]:
        """Everything one can differentiate with respect to, by name."""
        everything = {"inputs": self.inputs, "noise": self.noise, **self.weights._asdict()}
        return {name: part for name, part in everything.items() if part is not None}

    def to(self, dtype: torch.dtype) -> "Case":
        noise = None if self.noise is None else self.noise.to(dtype)
        return Case(self.inputs.to(dtype), noise, Weights(*(None if w is None else w.to(dtype) for w in self.weights)))

    def requiring_grad(self, names=PARTS) -> "Case":
        """A copy of it all, the named parts of which ask for a gradient."""

        def leaf(name, part):
            return None if part is None else part.detach().clone().requires_grad_(name in names)

        weights = Weights(*(leaf(name, part) for name, part in self.weights._asdict().items()))
        return Case(leaf("inputs", self.inputs), leaf("noise", self.noise), weights)


def make_case(hidden=5, batch=3, steps=4, inputs=2, outputs=2, without=(), dtype=torch.float64, seed=0) -> Case:
    """Draw a network with every part there is, except those in `without`."""
    torch_rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=torch_rng, dtype=torch.float64).to(dtype)

    weights = Weights(
        input=draw(hidden, inputs),
        recurrent=draw(hidden, hidden) / hidden**0.5,
        output=draw(outputs, hidden) / hidden**0.5,
        bias=draw(hidden),
        initial_state=draw(hidden),
    )
    optional = {name: None for name in without if name != "noise"}
    noise = 0.3 * draw(batch, steps, hidden)
    return Case(draw(batch, steps, inputs), None if "noise" in without else noise, weights._replace(**optional))


def make_dynamics(nonlinearity="tanh", readout=None, convention="current", dt=0.4) -> Dynamics:
    def find(value):
        return NONLINEARITIES[value] if isinstance(value, str) else value

    return Dynamics(dt, find(nonlinearity), find(nonlinearity if readout is None else readout), convention)


def everything(engine, case, dynamics, *, differentiated=PARTS, sources=("outputs", "states"), return_states=True):
    """Outputs, states, and the gradients of a random function of the `sources`, by name."""
    case = case.requiring_grad(differentiated)
    run = engine(case.inputs, case.weights, dynamics, case.noise, return_states)
    found = {name: value for name, value in run._asdict().items() if value is not None}
    rng = torch.Generator().manual_seed(1)
    total = 0
    for name in ("outputs", "states"):  # both are drawn, so that each source always gets the same coefficients
        value = found.get(name, run.outputs)
        coefficients = torch.randn(value.shape, generator=rng, dtype=torch.float64).to(value.dtype)
        if name in sources:
            total = total + (coefficients * value).sum()
    leaves = {name: part for name, part in case.parts.items() if part.requires_grad}
    found |= {f"d/d {name}": None for name in leaves}
    if leaves and total.requires_grad:
        gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        found |= {f"d/d {name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    return {name: None if value is None else value.detach() for name, value in found.items()}


def assert_same(ours, theirs, *, tolerance):
    """Compare two results of `everything`, each entry relative to the largest number in it."""
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        got = ours[name]
        if got is None or wanted is None:  # autograd says None where the engine may say zero
            assert all(g is None or not g.any() for g in (got, wanted)), name
            continue
        assert got.shape == wanted.shape, name
        error = (got.double() - wanted.double()).abs().max()
        assert error <= tolerance * wanted.double().abs().max().clamp_min(1e-3), f"{name}: off by {error:.1e}"
