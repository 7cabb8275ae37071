"""Learning from noise alone: a linear network without initial recurrent weights suppresses the noise of its output.

The target is 0 and units get independent noise, so the loss is half the variance of the output. Learning writes one
direction into W, lambda w w^T / |w|^2 with lambda < 0: negative feedback along the output weights. Derivation:
docs/guides/theory.md, "Noise". Continuous time: Schuessler et al., eLife 2024 (their loss has no factor 1/2).
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from rankscope.errors import InputError
from rankscope.theory.solution import learning_times
from rankscope.validation import integer, number

Array = NDArray[np.floating]

TOLERANCE = 1e-10


class NoisyLinear:
    """The theory of a noisy linear network whose recurrent weights learn the target 0 from W0 = 0.

    Exact for many trials in a batch, and for trials of many time constants in which the end counts.

    Parameters
    ----------
    noise_std
        sigma of the noise sqrt(dt) sigma xi in every step of a `RateRNN`.
    dt
        Time step in time constants, 0 <= dt < 1; 0 is continuous time. At dt = 1 the variance is already minimal.
    output_norm
        Length of the output weights w.

    Raises
    ------
    InputError
        If an argument is out of range.
    """

    def __init__(self, noise_std: float, dt: float = 0.0, output_norm: float = 1.0) -> None:
        self.noise_std = number("noise_std", noise_std, above=0)
        self.dt = number("dt", dt, minimum=0)
        if self.dt >= 1:
            raise InputError(f"dt must be below 1, got {dt!r}")
        self.output_norm = number("output_norm", output_norm, above=0)

    def __repr__(self) -> str:
        return f"NoisyLinear(noise_std={self.noise_std:g}, dt={self.dt:g}, output_norm={self.output_norm:g})"

    def solve(self, times: ArrayLike) -> xr.Dataset:
        """Return gradient flow at the given learning times.

        Parameters
        ----------
        times
            (times,) tau >= 0, increasing; infinity is the end of learning. In a network, tau is the learning rate times
            the epoch.

        Returns
        -------
        xr.Dataset
            Over `tau`: `loss`; `eigenvalue`, the one of W that differs from 0; `change_norm`, its size.

        Raises
        ------
        InputError
            If times are negative, not increasing or not numbers.
        """
        tau = learning_times(times)
        return self._described(self._flow(tau), tau)

    def descend(self, learning_rate: float, epochs: int) -> xr.Dataset:
        """Return gradient descent with a learning rate, before each of `epochs` steps.

        Returns
        -------
        xr.Dataset
            As `solve`, with `epoch` along `tau`. NaN once the network is unstable: learning has diverged.

        Raises
        ------
        InputError
            If the learning rate is not positive or the epochs are less than 1.
        """
        eta, count = number("learning_rate", learning_rate, above=0), integer("epochs", epochs, minimum=1)
        decay = np.full(count, np.nan)
        now = 1.0
        for epoch in range(count):
            decay[epoch] = now
            now += eta * float(self._speed(np.float64(now)))
            if now <= 0 or now * self.dt >= 2:
                break
        described = self._described(decay, eta * np.arange(count, dtype=np.float64))
        return described.assign_coords(epoch=("tau", np.arange(count)))

    def _flow(self, tau: Array) -> Array:
        """Return the rate of decay 1 - lambda at learning times."""
        if self.dt == 0:
            cubed: Array = 1 + 3 * tau * self._variance(np.float64(1)) * self.output_norm**2 / 2
            return np.cbrt(cubed)
        decay = np.full(tau.shape, 1 / self.dt)
        finite = np.isfinite(tau)
        if finite.any():
            last = float(tau[finite][-1])
            path = solve_ivp(
                lambda _, x: self._speed(x), (0, last), [1.0], "LSODA", tau[finite], rtol=TOLERANCE, atol=TOLERANCE
            )
            decay[finite] = path.y[0]
        return decay

    def _variance(self, decay: Array | np.floating) -> Array:
        """Return the stationary variance along the output of h <- (1 - dt decay) h + sqrt(dt) sigma xi."""
        twice = 2 - self.dt * decay if self.dt else 2.0
        return np.asarray(self.noise_std**2 / (decay * twice))

    def _speed(self, decay: Array | np.floating) -> Array:
        """Return the change of the decay with learning time: minus the derivative of the loss."""
        slope = 2 * self._variance(decay) ** 2 * (1 - self.dt * decay) / self.noise_std**2
        return np.asarray(self.output_norm**2 * slope / 2)

    def _described(self, decay: Array, tau: Array) -> xr.Dataset:
        loss = self.output_norm**2 * self._variance(decay) / 2
        curves = {
            "loss": (loss, "loss"),
            "eigenvalue": (1 - decay, "eigenvalue of W along the output weights"),
            "change_norm": (np.abs(1 - decay), "Frobenius norm of dW"),
        }
        variables = {name: ("tau", values, {"long_name": text}) for name, (values, text) in curves.items()}
        return xr.Dataset(variables, {"tau": ("tau", tau, {"long_name": "learning time"})})
