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
    if orthogonal and vectors > N:
        raise InputError(f"hidden_size must be at least {vectors} for {vectors} orthogonal vectors, got {N}")
    rng = generator(rng)
    directions = rng.standard_normal((N, vectors))
    if orthogonal:
        # With the signs of R, the vectors are those of Gram-Schmidt, and no direction is favored over its opposite.
        directions, R = np.linalg.qr(directions)
        directions *= np.sign(np.diag(R))
    directions /= np.linalg.norm(directions, axis=0)
    outputs = directions[:, :output_size] if input_is_output else directions[:, input_size:]
    source = rng if recurrent_rng is None else generator(recurrent_rng, "recurrent_rng")
    return InitialWeights(
        input=directions[:, :input_size] * math.sqrt(N),
        recurrent=source.standard_normal((N, N)) * (g / math.sqrt(N)),
        output=outputs.T / math.sqrt(N),
    )
