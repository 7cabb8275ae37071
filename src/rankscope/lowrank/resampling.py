"""Networks whose units are drawn anew from the statistics of a trained one: do the statistics of directions suffice?

The change, truncated to rank R, is dW_R = m n^T. Each unit i is a point (m_i, n_i, inputs_i, outputs_i) in a space of
2 R + in + out dimensions. A mixture of Gaussians is fitted to the N points, one Gaussian for each population of units;
N new units are drawn from it. The new network has W0 + m n^T with the W0 of the old one, which has nothing to do with
the new units (Dubreuil et al. 2022).

Coordinates are scaled to variance 1 before the fit. Neither the scale nor the basis of m and n matters then but for the
starts of the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.extras import needs
from rankscope.linalg.threads import threads_for
from rankscope.lowrank.matrices import change
from rankscope.networks.protocol import effective_state
from rankscope.networks.rate import RateRNN
from rankscope.validation import RngLike, choice, generator, integer

if TYPE_CHECKING:
    from rankscope.networks.protocol import Network

Array = NDArray[np.float64]
Method = Literal["em", "bayes"]

FIXED_MEANS = 1e5
"""Precision of the prior of means at 0, in units of that of a unit (Dubreuil et al. 2022)."""
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Populations:
    """A mixture of Gaussians of the units of a network with a truncated change.

    Attributes
    ----------
    before, after
        The network before and after learning.
    rank
        R, the rank of the truncated change.
    points
        (N, dimensions) Coordinates of the units: m and n with dW_R = m n^T, columns of the input weights, of the
        transposed output weights, and the bias and the initial state of a network that has them.
    labels
        (N,) Population of each unit, 0, 1, ...
    mixture
        The fitted mixture of scikit-learn, in scaled coordinates.
    scale
        (dimensions,) By which the coordinates were divided.
    """

    before: RateRNN
    after: RateRNN
    rank: int
    points: Array
    labels: NDArray[np.int64]
    mixture: Any
    scale: Array

    @property
    def weights(self) -> Array:
        """Fraction of the units in each population of the mixture, (populations,)."""
        found: Array = self.mixture.weights_
        return found

    @property
    def score(self) -> float:
        """Mean log-likelihood of a unit, in scaled coordinates."""
        return float(self.mixture.score(self.points / self.scale))

    def draw(self, rng: RngLike = None, hidden_size: int | None = None) -> RateRNN:
        """Return a network of new units, with the W0 of the old one.

        Parameters
        ----------
        rng
            Seed or Generator of the units.
        hidden_size
            Number of units; another one than N only where W0 is zero. Recurrent and output weights are then multiplied
            by N / hidden_size, so that sums over units keep their size while their fluctuations shrink.

        Raises
        ------
        InputError
            If another number of units is wanted, and W0 is not zero.
        """
        rng = generator(rng)
        N = len(self.points) if hidden_size is None else integer("hidden_size", hidden_size, minimum=1)
        if len(self.points) != N and bool(effective_state(self.before)["recurrent_weights"].any()):
            raise InputError(f"hidden_size must be {len(self.points)}, the size of W0, which is not zero, got {N}")
        units = np.empty((N, self.points.shape[1]))
        drawn = rng.choice(len(self.weights), size=N, p=self.weights / self.weights.sum())
        for k, (mean, covariance) in enumerate(zip(self.mixture.means_, self.mixture.covariances_, strict=True)):
            mine = drawn == k
            units[mine] = rng.multivariate_normal(mean, covariance, size=int(mine.sum()), method="eigh")
        return self._network(units * self.scale)

    def _network(self, units: Array) -> RateRNN:
        """Return the network with these units, (N, dimensions)."""
        R, tensors = self.rank, effective_state(self.after)
        W0 = effective_state(self.before)["recurrent_weights"].double().numpy()
        m, n, others = units[:, :R], units[:, R : 2 * R], units[:, 2 * R :]
        ratio = len(self.points) / len(units)
        new: dict[str, Array] = {"recurrent_weights": m @ n.T + W0 if ratio == 1 else ratio * (m @ n.T)}
        for name, width in _widths(self.after).items():
            columns, others = others[:, :width], others[:, width:]
            if name == "output_weights":
                new[name] = ratio * columns.T
            else:
                new[name] = columns if tensors[name].ndim == 2 else columns[:, 0]
        tensors = {name: torch.as_tensor(new[name]).to(old) if name in new else old for name, old in tensors.items()}
        return RateRNN.from_tensors(tensors, self.after.architecture())


def populations(
    before: Network,
    after: Network,
    rank: int,
    number: int = 1,
    rng: RngLike = None,
    *,
    method: Method = "em",
    starts: int = 10,
) -> Populations:
    """Fit a mixture of Gaussians to the units of a rate network whose change is truncated.

    Needs the extra rankscope[populations].

    Parameters
    ----------
    before, after
        The rate network before and after learning.
    rank
        R, to which the change of the recurrent weights is truncated.
    number
        Number of populations; for "bayes" their largest number.
    rng
        Seed or Generator of the starts.
    method
        "em", maximum likelihood (`sklearn.mixture.GaussianMixture`), or "bayes", variational inference with means that
        are fixed at 0 nearly and a Dirichlet prior of weights (`BayesianGaussianMixture`), as in Dubreuil et al.
    starts
        Number of random starts, of which the best counts. One population needs none.

    Raises
    ------
    InputError
        If scikit-learn is missing, the networks are no rate networks or have time constants of single units, the change
        does not have so many directions, or there are fewer units than a population has parameters per unit.

    References
    ----------
    Dubreuil et al. 2022, Nature Neuroscience.
    """
    for name, network in (("before", before), ("after", after)):
        if not isinstance(network, RateRNN) or network.tau is not None:
            got = "one with tau" if isinstance(network, RateRNN) else type(network).__name__
            raise InputError(f"{name} must be a rate network without time constants of single units, got {got}")
    assert isinstance(before, RateRNN)
    assert isinstance(after, RateRNN)
    N = after.hidden_size
    R = integer("rank", rank, minimum=1, maximum=N)
    count = integer("number", number, minimum=1, maximum=N)
    starts = integer("starts", starts, minimum=1)
    choice("method", method, ("em", "bayes"))
    with needs("populations", "a mixture of Gaussians"):
        from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
    with threads_for(N):
        dW = change(before, after)
        U, s, Vt = dW.svd
    if dW.numerical_rank < R:
        raise InputError(f"rank must be at most {dW.numerical_rank}, the rank of the change, got {R}")
    root = np.sqrt(s[:R])
    tensors = effective_state(after)
    columns = [U[:, :R] * root, Vt[:R].T * root]
    for name, width in _widths(after).items():
        values = tensors[name].double().numpy()
        columns.append(values.T if name == "output_weights" else values.reshape(N, width))
    points = np.concatenate(columns, axis=1)
    if count * points.shape[1] >= N:
        raise InputError(
            f"number must be below {math.ceil(N / points.shape[1])}, so that each population has more units than the "
            f"{points.shape[1]} dimensions of a unit, got {count}"
        )
    scale = points.std(axis=0)
    scale[scale == 0] = 1.0
    options: dict[str, Any] = {
        "n_components": count,
        "n_init": starts if count > 1 else 1,
        "random_state": int(generator(rng).integers(LARGEST_SEED)),
        "max_iter": 500,
    }
    if method == "em":
        mixture = GaussianMixture(init_params="random_from_data", **options)
    else:
        mixture = BayesianGaussianMixture(
            init_params="random",
            mean_prior=np.zeros(points.shape[1]),
            mean_precision_prior=FIXED_MEANS,
            weight_concentration_prior_type="dirichlet_distribution",
            **options,
        )
    with threads_for(N):
        labels = mixture.fit_predict(points / scale)
    return Populations(before, after, R, points, labels, mixture, scale)


def _widths(network: RateRNN) -> dict[str, int]:
    """Return name -> number of coordinates of a unit, of the weights besides the recurrent ones."""
    widths = {"input_weights": network.input_weights.shape[1], "output_weights": network.output_weights.shape[0]}
    vectors = {"bias": network.bias, "initial_state": network.initial_state}
    return widths | {name: 1 for name, vector in vectors.items() if vector is not None}
