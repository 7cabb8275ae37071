"""Networks of N units drawn without their weights scatter as networks do, and less and less as N grows."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from rankscope.theory import FiniteWidth, InfiniteWidth, SingleNetwork

ACCURACY = 1e-4


def end_of(theory):
    end = theory.solve([np.inf]).isel(tau=0)
    readout = theory.reduced.readout.item()
    return [readout, float(end.change_norm), float(end.singular_value[1]), theory.convergence_time()]


def given_network(gain, target, N, rng):
    W0 = rng.standard_normal((N, N)) * gain / np.sqrt(N)
    m, w = rng.standard_normal((2, N))
    return SingleNetwork(W0, m / np.linalg.norm(m), w / np.linalg.norm(w), target, ACCURACY)


@pytest.mark.parametrize(("gain", "target", "N"), [(0.6, 2.0, 150)])
def test_draws_scatter_as_given_networks_do(gain, target, N):
    rng = np.random.default_rng(1)
    drawn = np.array([end_of(FiniteWidth(gain, target, N, rng, ACCURACY)) for _ in range(40)])
    given = np.array([end_of(given_network(gain, target, N, rng)) for _ in range(40)])
    for name, ours, theirs in zip(("readout", "|dW|", "s2", "convergence time"), drawn.T, given.T, strict=True):
        assert ks_2samp(ours, theirs).pvalue > 1e-3, name
    # of readout and |dW|, which are nearly Gaussian: the error of a standard deviation from 40 draws is 11 %
    np.testing.assert_allclose(drawn[:, :2].std(axis=0), given[:, :2].std(axis=0), rtol=0.5)


def test_the_first_readout_has_the_variance_of_the_theory():
    gain, N = 0.6, 300
    readouts = [FiniteWidth(gain, 1.0, N, seed).reduce(8).readout.item() for seed in range(400)]
    # Normal(0, beta / N), as R_0 m has a squared length of beta = 1 / (1 - g^2)
    assert np.var(readouts) * N * (1 - gain**2) == pytest.approx(1, abs=0.25)


def test_many_units_are_infinitely_many():
    gain, target = 0.6, 0.5
    limit = end_of(InfiniteWidth(gain, target, ACCURACY))
    near, far = (
        np.mean([np.abs(np.subtract(end_of(FiniteWidth(gain, target, N, seed, ACCURACY)), limit)) for seed in range(5)])
        for N in (8000, 80)
    )
    assert near < 0.02
    # errors fall as the root of N
    assert near < 0.3 * far


def test_a_seed_repeats_a_draw():
    first, second, other = (FiniteWidth(0.5, 1.0, 100, seed).solve([0.1, 1.0]) for seed in (0, 0, 1))
    assert first.identical(second)
    assert not np.allclose(first.readout, other.readout, rtol=1e-3)
