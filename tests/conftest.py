"""Fixtures shared by all tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rankscope.tasks.sentiment import Labelled, SentimentData, WordVectors, prepare
from rankscope.tasks.sentiment.data import save_data

pytest_plugins = ["browsing", "forking"]

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Path]:
    """Return the path of a file of reference data."""
    return lambda name: REFERENCE / name


@pytest.fixture(scope="session")
def sentiment_data() -> SentimentData:
    """A made-up set that can be learned: a sentence is positive if most of its words begin with "p"."""
    rng = np.random.default_rng(0)
    words = tuple(f"{kind}{index}" for kind in "pn" for index in range(20))
    vectors = rng.normal(size=(40, 6)).astype(np.float32) * 0.3
    vectors[:20, 0] += 1
    vectors[20:, 0] -= 1

    def part(count: int) -> Labelled:
        sentences, labels = [], []
        for _ in range(count):
            label, length = int(rng.integers(2)), int(rng.integers(1, 12))
            flipped = rng.random(length) < 0.2
            chosen = rng.integers(20, size=length) + 20 * (flipped == bool(label))
            sentences.append(tuple(words[index] for index in chosen))
            labels.append(label)
        return Labelled(tuple(sentences), tuple(labels))

    return prepare("snippets", part(200), part(100), WordVectors(words, vectors))


@pytest.fixture
def sentiment_cache(sentiment_data, tmp_path, monkeypatch) -> Path:
    """The folder of prepared data, which holds the made-up set as "snippets"."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RANKSCOPE_CACHE", str(folder))
    save_data(sentiment_data, folder / "sentiment-snippets.safetensors")
    return folder
