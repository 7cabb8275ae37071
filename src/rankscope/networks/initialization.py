"""Initial weights of a rate network.

Recurrent weights are independent Gaussians of variance g^2/N; input and output vectors are Gaussian directions
scaled to an exact norm, sqrt(N) for inputs and 1/sqrt(N) for outputs, so that input, recurrent drive and
readout all stay of order one as the network grows (Schuessler et al. 2020, supplement).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.validation import RngLike, generator, integer, number

Array = NDArray[np.float64]


@dataclass(frozen=True)
class InitialWeights:
    """(N, in), (N, N) and (out, N) double-precision arrays."""

    input: Array
    recurrent: Array
    output: Array


def draw_weights(
    input_size: int,
    output_size: int,
    hidden_size: int,
    gain: float,
    rng: RngLike,
    *,
    orthogonal: bool = False,
    input_is_output: bool = False,
    recurrent_rng: RngLike = None,
    exact_norms: bool = True,
    output_norm: float | None = None,
    initial_rank: int | None = None,
) -> InitialWeights:
    """Draw the weights of an untrained network.

    Parameters
    ----------
    input_size, output_size, hidden_size
        Numbers of channels, and of units N.
    gain
        g >= 0: the recurrent weights have standard deviation g / sqrt(N).
    rng
        Seed or Generator. The same seed gives the same directions at every gain: W0 scales with g.
    orthogonal
        Make all input and output vectors mutually orthogonal.
    input_is_output
        Read out along the input vectors (the cosine task): W_out = W_in^T / N.
    recurrent_rng
        A separate source for W0, to share it between networks whose input and output vectors differ.
    exact_norms
        Scale input and output vectors to their norms. Otherwise their entries are independent, of variance 1 (inputs)
        and 1/N^2 (outputs), and the norms hold on average.
    output_norm
        Norm of each output vector (without `exact_norms` on average), by default 1 / sqrt(N). Larger ones, up to about
        1, lead to oblique solutions, in which the outputs are not read from the leading components of activity
        (Schuessler et al., eLife 2024).
    initial_rank
        Rank of W0, by default N (see `of_rank`).

    Raises
    ------
    InputError
        For sizes below 1, a negative gain, or variants that these sizes cannot have.
    """
    input_size = integer("input_size", input_size, minimum=1)
    output_size = integer("output_size", output_size, minimum=1)
    N = integer("hidden_size", hidden_size, minimum=1)
    g = number("gain", gain, minimum=0)
    if input_is_output and input_size != output_size:
        raise InputError(
            f"input_is_output must be False unless there are as many inputs as outputs, got input_size {input_size} "
            f"and output_size {output_size}"
        )
    vectors = input_size if input_is_output else input_size + output_size
    if orthogonal and not exact_norms:
        raise InputError("exact_norms must be True for orthogonal vectors, got False")
    if orthogonal and vectors > N:
        raise InputError(f"hidden_size must be at least {vectors} for {vectors} orthogonal vectors, got {N}")
    norm = None if output_norm is None else number("output_norm", output_norm, above=0)
    rng = generator(rng)
    directions = rng.standard_normal((N, vectors))
    if orthogonal:
        # With the signs of R, the vectors are those of Gram-Schmidt, and no direction is favored over its opposite.
        directions, R = np.linalg.qr(directions)
        directions *= np.sign(np.diag(R))
    directions /= np.linalg.norm(directions, axis=0) if exact_norms else math.sqrt(N)
    outputs = directions[:, :output_size] if input_is_output else directions[:, input_size:]
    source = rng if recurrent_rng is None else generator(recurrent_rng, "recurrent_rng")
    recurrent = source.standard_normal((N, N)) * (g / math.sqrt(N))
    return InitialWeights(
        input=directions[:, :input_size] * math.sqrt(N),
        recurrent=recurrent if initial_rank is None else of_rank(recurrent, initial_rank),
        output=outputs.T / math.sqrt(N) if norm is None else outputs.T * norm,
    )


def of_rank(recurrent: Array, rank: int) -> Array:
    """Return the best approximation (N, N) of a rank, scaled to the norm of the weights themselves (Liu et al. 2024).

    The variance of the entries stays g^2 / N, while the radius of the eigenvalues, g at full rank, grows.

    Raises
    ------
    InputError
        If the rank is not between 1 and N.
    """
    rank = integer("initial_rank", rank, minimum=1, maximum=len(recurrent))
    U, s, Vt = np.linalg.svd(recurrent)
    scale = math.sqrt((s**2).sum() / (s[:rank] ** 2).sum()) if s[0] > 0 else 1.0
    found: Array = (U[:, :rank] * (s[:rank] * scale)) @ Vt[:rank]
    return found


def perturbed(weights: InitialWeights, size: float, rng: RngLike) -> InitialWeights:
    """Return weights that are each multiplied by 1 + size xi, xi standard normal.

    The draws of `draw_weights` are not touched. A size of 1e-7, the rounding of single precision, shows how much of a
    result a rounding decides.

    Parameters
    ----------
    size
        At least 0; 0 returns the weights themselves.
    rng
        Seed or Generator.

    Raises
    ------
    InputError
        If the size is negative.
    """
    if number("perturbation", size, minimum=0) == 0:
        return weights
    rng = generator(rng, "perturbation_rng")
    parts = (weights.input, weights.recurrent, weights.output)
    return InitialWeights(*(part * (1 + size * rng.standard_normal(part.shape)) for part in parts))


def constrained(
    recurrent: Array,
    dale: float | None,
    density: float | None,
    rng: np.random.Generator,
    initial_rank: int | None = None,
) -> tuple[Array, NDArray[np.bool_] | None]:
    """Return initial recurrent weights with Dale's law and a fraction of the connections, and the mask of these.

    The mask is drawn after all other weights, and magnitudes are scaled by 1 / sqrt(density). With Dale's law, the
    first units are excitatory; inhibitory weights of a row are scaled so that the row sums to zero, then all weights so
    that g, the radius of the disc of eigenvalues, remains: g^2 = N (f var_E + (1 - f) var_I), with variances of all
    entries in the excitatory and inhibitory columns (Rajan & Abbott 2006).

    Parameters
    ----------
    recurrent
        (N, N) of independent entries.
    dale
        Fraction f of excitatory units, 0 < f < 1, or None.
    density
        Fraction of connections that exist, 0 < density <= 1, or None for all.
    initial_rank
        Rank that the weights have been given, or None.

    Raises
    ------
    InputError
        If a fraction is out of range, or leaves no excitatory or inhibitory unit, or changes the rank.
    """
    if initial_rank is not None and (dale is not None or density is not None):
        raise InputError(f"initial_rank must be None with dale or density, which change it, got {initial_rank!r}")
    mask = None
    if density is not None:
        mask = rng.random(recurrent.shape) < number("density", density, above=0, maximum=1)
        recurrent = recurrent * mask / math.sqrt(density)
    return (recurrent if dale is None else balanced(recurrent, dale_signs(dale, len(recurrent)))), mask


def dale_signs(fraction: float, units: int) -> Array:
    """Return 1 for the first `fraction` of the units and -1 for the others, (units,)."""
    excitatory = round(number("dale", fraction, above=0, below=1) * units)
    if not 0 < excitatory < units:
        raise InputError(f"dale must leave excitatory and inhibitory units among {units}, got {fraction!r}")
    return np.where(np.arange(units) < excitatory, 1.0, -1.0)


def balanced(weights: Array, signs: Array) -> Array:
    """Return weights with these signs of columns and rows that sum to zero, whose eigenvalues fill the same disc.

    Parameters
    ----------
    weights
        (post, pre) of mean zero. Rows without weights of both signs keep their magnitudes.
    """
    magnitudes, excitatory = np.abs(weights), signs > 0
    sums = [magnitudes[:, columns].sum(1, keepdims=True) for columns in (excitatory, ~excitatory)]
    both = (sums[0] > 0) & (sums[1] > 0)
    ratio = np.where(both, sums[0] / np.where(both, sums[1], 1), 1)
    found: Array = magnitudes * np.where(excitatory, 1, -ratio)
    fractions = excitatory.mean(), (~excitatory).mean()
    variance = sum(f * found[:, c].var() for f, c in zip(fractions, (excitatory, ~excitatory), strict=True))
    return found * (np.sqrt((weights**2).mean() / variance) if variance > 0 else 1)
