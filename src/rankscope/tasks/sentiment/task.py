"""Sentiment: decide whether a sentence is positive or negative, from its words.

The data is finite: sentences with a label, some of which are held out for validation (see `data.py` for the sets).
A step is a word. The input is the word's index in `embedding`, and the one target, 1 for positive and 0 for negative,
is compared with the readout after the last word.

References
----------
Schuessler et al. 2020, Fig. 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import InputError
from rankscope.tasks.sentiment.data import SETS, SentimentData, Split, fingerprint_of, load_data
from rankscope.tasks.trials import BuiltInTask, Trials
from rankscope.validation import RngLike, choice, generator, integer

VALIDATION_BATCH = 64
"""Sentences of a validation batch: larger batches exceed the processor's cache."""

WORDS = {"snippets": (186_000, 21_700), "treebank": (133_000, 17_000)}
"""Approximate numbers of words for training and for validation, for estimates of cost without the data."""

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Sentiment(BuiltInTask):
    """Classify sentences of film reviews as positive or negative.

    Trials have inputs (batch, time, 1), the index of each word as a float32 (exact up to 16 million words), padded
    with 0 up to the longest sentence of the batch; `lengths`; and targets and mask (batch, 1, 1), for a network whose
    readout is "last". Sentences of a batch are ordered from the longest to the shortest.

    Parameters
    ----------
    data : str
        "snippets" (public) or "treebank" (from files of your own). `rankscope data sentiment` prepares them.
    split : str
        "train" or "validation": the sentences of `batches` and `sample`.
    fingerprint : str
        Fingerprint that the prepared data must have. By default "" for the public set, which is the same everywhere,
        and that of the prepared data for the treebank, so that a job records which data it used.

    Raises
    ------
    InputError
        If the set is unknown. When trials are drawn: if the data is not prepared, or has another fingerprint.
    """

    name: ClassVar[str] = "sentiment"
    dt = 1.0
    loss = "binary_cross_entropy"
    readout = "last"
    input_size = 1  # the index of the word
    output_size = 1  # above 0 for positive

    data: str = "snippets"
    split: str = "train"
    fingerprint: str = ""

    def __post_init__(self) -> None:
        choice("data", self.data, SETS)
        choice("split", self.split, SPLITS)
        if not isinstance(self.fingerprint, str):
            raise InputError(f"fingerprint must be a str, got {self.fingerprint!r}")
        if self.data != "snippets" and not self.fingerprint:
            self._settle("fingerprint", fingerprint_of(self.data))

    def __getstate__(self) -> dict[str, Any]:
        return self.parameters()  # without the cached data

    @property
    def steps(self) -> int:
        """Number of words of the longest sentence."""
        return int(self._sentences.lengths.max())

    @property
    def embedding(self) -> NDArray[np.float32]:
        """Word vectors (vocabulary, size). Row 0, all zeros, stands for every word without a vector."""
        return self.prepared.vectors

    @classmethod
    def expected_steps(cls, batch_size: int, **parameters: Any) -> int:
        """Return the approximate number of words in a pass over one row of each batch, validation included."""
        return sum(WORDS[choice("data", parameters.get("data", cls.data), SETS)]) // batch_size

    def batches(self, batch_size: int, rng: RngLike = None) -> list[Trials]:
        """Return all sentences once, in batches of similar length, in random order.

        Sentences of the same length are shuffled, so that the batches differ between epochs. One batch may be smaller
        than `batch_size`.

        Raises
        ------
        InputError
            If `batch_size` or `rng` is unusable, or the data is not prepared.
        """
        size, rng = integer("batch_size", batch_size, minimum=1), generator(rng)
        order = rng.permutation(len(self._sentences))
        order = order[np.argsort(self._sentences.lengths[order], kind="stable")]
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        return [self._trials(self._sentences, batches[index]) for index in rng.permutation(len(batches))]

    def validation(self) -> list[Trials]:
        """Return the validation sentences in batches of 64, the shortest first; the same at every call."""
        held_out = self.prepared.validation
        order = np.argsort(held_out.lengths, kind="stable")
        starts = range(0, len(order), VALIDATION_BATCH)
        return [self._trials(held_out, order[start : start + VALIDATION_BATCH]) for start in starts]

    def fresh(self) -> Sentiment:
        """Return the task to evaluate on: the validation sentences."""
        return replace(self, split="validation")

    def example(self) -> Trials:
        """Return the first sentence."""
        return self._trials(self._sentences, np.array([0]))

    @cached_property
    def prepared(self) -> SentimentData:
        """The prepared data, or an `InputError` if it is not prepared or has another fingerprint."""
        found = load_data(self.data)
        if self.fingerprint not in ("", found.fingerprint):
            raise InputError(
                f"data {self.data!r} must have the fingerprint {self.fingerprint}, got {found.fingerprint}: the data "
                "was prepared again since; start anew with the new data"
            )
        return found

    @property
    def _sentences(self) -> Split:
        return self.prepared.train if self.split == "train" else self.prepared.validation

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Trials:
        return self._trials(self._sentences, rng.integers(len(self._sentences), size=batch_size))

    @staticmethod
    def _trials(split: Split, chosen: NDArray[np.int64]) -> Trials:
        order = chosen[np.argsort(-split.lengths[chosen], kind="stable")]
        lengths = split.lengths[order]
        step = np.arange(lengths[0])
        inside = step < lengths[:, None]
        inputs = np.zeros((*inside.shape, 1), dtype=np.float32)
        inputs[inside, 0] = split.words[(split.starts[order, None] + step)[inside]]
        targets = split.labels[order].reshape(-1, 1, 1)
        return Trials.from_arrays(inputs, targets, np.ones(targets.shape), lengths)
