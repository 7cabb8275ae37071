"""The paper's theory: learning in the linear network to third order in learning time.

With beta = 1/(1 - g^2), all quantities are polynomials in the effective learning time x = beta^2 tau. The expansion is
exact at the start of learning and departs from simulations later, the earlier the larger z_hat. As in the paper, it is
frozen once the readout has reached the target.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from rankscope.errors import InputError
from rankscope.theory.solution import check_fraction, learning_times, target_matrix
from rankscope.validation import number

Array = NDArray[np.floating]


class ThirdOrder:
    """The paper's third-order expansion of learning in an infinitely wide linear network.

    Parameters
    ----------
    gain
        g, 0 <= g < 1.
    target
        z_hat, not 0.

    Raises
    ------
    InputError
        If g or the target is out of range.

    References
    ----------
    Schuessler et al. 2020, Figs. 3 and 4 and supplement.
    """

    def __init__(self, gain: float, target: float) -> None:
        self.gain = number("gain", gain, minimum=0)
        if self.gain >= 1:
            raise InputError(f"gain must be below 1, where the linear network has a fixed point, got {gain!r}")
        self.target = float(target_matrix(number("target", target)).item())
        self._beta = 1 / (1 - self.gain**2)

    def __repr__(self) -> str:
        return f"ThirdOrder(gain={self.gain:g}, target={self.target:g})"

    @property
    def end(self) -> float:
        """The learning time at which the readout reaches the target."""
        return self._time_of(1.0)

    def convergence_time(self, fraction: float = 0.05) -> float:
        """Return the learning time at which the loss is this fraction of the first one.

        Raises
        ------
        InputError
            If the fraction is not between 0 and 1.
        """
        return self._time_of(1 - float(np.sqrt(check_fraction(fraction))))

    def taylor(self) -> Array:
        """Return the coefficients of the readout in powers 0 to 3 of tau, (4,)."""
        z_hat, beta = self.target, self._beta
        in_x = np.array([0, 1, -1 / 2, (1 + 8 * z_hat**2 * beta) / 6])
        return z_hat * in_x * beta ** (2 * np.arange(4))

    def solve(self, times: ArrayLike) -> xr.Dataset:
        """Return the expansion at the given learning times.

        Parameters
        ----------
        times
            (times,) tau >= 0, increasing; the solution is constant from `end` on.

        Returns
        -------
        xr.Dataset
            Over `tau`: `readout`, `loss`, `singular_value` (tau, singular_index; two of them), `change_norm`,
            `shuffled_loss` (relative to the loss before learning), `outlier` (NaN while it is within the bulk).

        Raises
        ------
        InputError
            If times are negative, not increasing or not numbers.
        """
        times = learning_times(times)
        z_hat, beta = self.target, self._beta
        tau = np.minimum(times, self.end)
        x = beta**2 * tau
        z = np.polynomial.polynomial.polyval(tau, self.taylor())
        s1 = abs(z_hat) / beta * (x - x**2 / 2 + x**3 / 6 * (1 + 7 / 2 * z_hat**2 * beta))
        s2 = abs(z_hat) ** 3 * x**3 / 12
        s = np.sort(np.abs(np.stack([s1, s2], axis=1)), axis=1)[:, ::-1]
        columns: dict[str, tuple[tuple[str, ...], Array, str]] = {
            "readout": (("tau",), z, "readout z"),
            "loss": (("tau",), (z_hat - z) ** 2 / 2, "loss"),
            "singular_value": (
                ("tau", "singular_index"),
                s,
                "singular value of the change of the recurrent weights",
            ),
            "change_norm": (
                ("tau",),
                np.hypot(s1, s2),
                "Frobenius norm of the change of the recurrent weights",
            ),
            "shuffled_loss": (
                ("tau",),
                # To first order z' = dz m.w = (1 - g^2)^2 z: at the end the paper's g^4 (2 - g^2)^2.
                (1 - z / (z_hat * beta**2)) ** 2,
                "loss after shuffling the initial weights, relative to the loss before learning",
            ),
            "outlier": (("tau",), self._outlier(tau), "largest real eigenvalue of W outside the bulk"),
        }
        return xr.Dataset(
            {name: (dims, values, {"long_name": text}) for name, (dims, values, text) in columns.items()},
            {"tau": ("tau", times, {"long_name": "learning time"}), "singular_index": [1, 2]},
        )

    def _time_of(self, progress: float) -> float:
        """Return the learning time at which the readout, which increases monotonically, is this share of the target."""
        third = (1 + 8 * self.target**2 * self._beta) / 6
        roots = np.roots([third, -0.5, 1, -progress])
        return float(roots[np.abs(roots.imag).argmin()].real) / self._beta**2

    def _outlier(self, tau: Array) -> Array:
        g, z_hat, beta = self.gain, abs(self.target), self._beta
        a1, a2 = np.sqrt(tau * z_hat), -(tau**1.5) * z_hat**0.5 * beta**2 / 4
        b2, b3 = tau**1.5 * z_hat**1.5 * beta / 2, -(tau**2.5) * z_hat**1.5 * beta**3 / 4
        e = 2 * (a1 * b2 + a2 * b2 + a1 * b3) * beta**2
        lam = g**2 + (e + np.sqrt(np.maximum(e**2 + 4 * e * g**2, 0))) / 2
        return np.where(lam > g, lam, np.nan)
