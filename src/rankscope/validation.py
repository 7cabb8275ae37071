"""Checks at the door.

Public functions pass their arguments through these before doing any work, so that every mistake is answered
in the same shape: *name* must be *what would be right*, got *what was given*.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable

import numpy as np

from rankscope.errors import InputError

RngLike = int | np.integer | np.random.Generator | np.random.SeedSequence | None


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> float:
    """Return `value` as a finite float within the bounds, or raise `InputError`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} must be a number{_bounds(above, minimum, maximum, below)}, got {value!r}")
    try:
        x = float(value)
    except OverflowError:
        x = math.inf
    inside = (
        math.isfinite(x)
        and (above is None or x > above)
        and (minimum is None or x >= minimum)
        and (maximum is None or x <= maximum)
        and (below is None or x < below)
    )
    if not inside:
        raise InputError(f"{name} must be a finite number{_bounds(above, minimum, maximum, below)}, got {value!r}")
    return x


def integer(name: str, value: object, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return `value` as an int within the bounds, or raise `InputError`. A float such as 3.0 is refused."""
    wrong_type = isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral)
    if not wrong_type:
        n = int(value)  # type: ignore[call-overload]
        if (minimum is None or n >= minimum) and (maximum is None or n <= maximum):
            return int(n)
    raise InputError(f"{name} must be a whole number{_bounds(None, minimum, maximum, None)}, got {value!r}")


#: Usual words of other libraries -> ours.
USUAL_WORDS = {
    "lr": "learning_rate",
    "step_size": "learning_rate",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "iterations": "epochs",
    "n_steps": "epochs",
    "bs": "batch_size",
    "n_trials": "batch_size",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "optim": "optimizer",
    "opt": "optimizer",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "criterion": "loss",
    "loss_fn": "loss",
    "objective": "loss",
    "grad_clip": "clip_norm",
    "gradient_clip": "clip_norm",
    "max_norm": "clip_norm",
    "n": "hidden_size",
    "units": "hidden_size",
    "n_units": "hidden_size",
    "num_units": "hidden_size",
    "n_hidden": "hidden_size",
    "hidden_dim": "hidden_size",
    "hidden": "hidden_size",
    "g": "gain",
    "layers": "num_layers",
    "n_layers": "num_layers",
    "activation": "nonlinearity",
    "phi": "nonlinearity",
    "noise": "noise_std",
    "sigma": "noise_std",
    "cell": "kind",
    "cell_type": "kind",
    "model": "network",
    "net": "network",
    "config": "training",
    "n_samples": "samples",
    "num_samples": "samples",
    "repeats": "samples",
    "replicates": "samples",
    "n_seeds": "samples",
    "n_jobs": "workers",
    "generator": "rng",
}
#: Words for which nothing is to be spelled differently -> what to do.
REMARKS = dict.fromkeys(
    ("device", "cuda", "gpu", "use_cuda"),
    "; training runs where the network is, as in network.to('cuda'), and a run takes device= or --device",
)


def choice(name: str, value: object, options: Iterable[str]) -> str:
    """Return `value` if it is one of `options`, or raise `InputError` naming the nearest one."""
    known = list(options)
    if isinstance(value, str) and value in known:
        return value
    plain = {option.casefold(): option for option in reversed(known)}
    near: list[str] = []
    if isinstance(value, str):
        usual = USUAL_WORDS.get(value.casefold(), "")
        near = [usual] if usual in plain else difflib.get_close_matches(value.casefold(), list(plain), n=1)
    remark = REMARKS.get(value, "") if isinstance(value, str) and "epochs" in plain else ""
    hint = remark or (f" (did you mean {plain[near[0]]!r}?)" if near else "")
    raise InputError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}{hint}")


def generator(rng: RngLike, name: str = "rng") -> np.random.Generator:
    """Return the numpy Generator that `rng` (a seed or a Generator, SPEC 7) stands for.

    A Generator is returned as it is, so that it advances; a seed gives a fresh one; None draws fresh entropy.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None or isinstance(rng, np.random.SeedSequence):
        return np.random.default_rng(rng)
    if isinstance(rng, (int, np.integer)) and type(rng) is not bool and rng >= 0:
        return np.random.default_rng(int(rng))
    raise InputError(f"{name} must be a seed (a whole number >= 0) or a numpy Generator, got {rng!r}")


def _bounds(above: float | None, minimum: float | None, maximum: float | None, below: float | None) -> str:
    parts = [
        f"{sign} {bound:.12g}"
        for sign, bound in ((">", above), (">=", minimum), ("<=", maximum), ("<", below))
        if bound is not None
    ]
    return " " + " and ".join(parts) if parts else ""
