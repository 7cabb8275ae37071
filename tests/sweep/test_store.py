"""The run folder: whole files or none, damaged ones named and moved, nothing made before it is asked for."""

import errno
import os
import re
import time

import numpy as np
import pytest
import xarray as xr
from sweep_cases import content

from rankscope.errors import InputError
from rankscope.sweep import RunFolder, claims
from rankscope.sweep.integrity import LENGTH
from rankscope.sweep.store import Counts


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare([("one", {"n": 1}), ("two", {"n": 2})], {"experiment": "test"})
    return folder


def test_looking_makes_nothing(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.done() == []
    assert not folder.is_done("one")
    assert folder.failures() == {}
    with pytest.raises(InputError, match=r"which has no run\.json"):
        folder.counts()
    assert list(tmp_path.iterdir()) == []


def test_a_result_comes_back_as_it_was(folder):
    folder.save("one", content(1))
    assert folder.is_done("one")
    assert folder.done() == ["one"]
    read = folder.read("one")
    assert read.attrs == {"digest": "one"}
    assert read.drop_attrs().identical(content(1))


def test_large_arrays_are_compressed_and_checksummed(folder):
    folder.save("one", xr.Dataset({"zeros": ("x", np.zeros(10**5))}))
    assert folder.path_of("one").stat().st_size < 10**5
    assert folder.read("one")["zeros"].encoding["fletcher32"]


def test_a_flipped_bit_is_noticed_when_it_is_read(folder):
    path = folder.save("one", xr.Dataset({"noise": ("x", np.random.default_rng(0).random(10**4))}))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"one\.nc is damaged"):
        folder.read("one")


def test_a_result_that_is_not_there(folder):
    with pytest.raises(InputError, match="must be that of a finished cell, got 'one'"):
        folder.read("one")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda data: data[: len(data) // 2], "ends without a seal"),
        (lambda data: data[:-LENGTH], "ends without a seal"),
        (lambda data: data[:-1], "its seal is damaged"),
        (lambda data: data[:1000] + b"x" + data[1001:], "the checksum does not fit"),
        (lambda data: b"", "ends without a seal"),
        (lambda data: b"garbage" * 100, "ends without a seal"),
    ],
)
def test_a_damaged_file_is_named_and_set_aside(folder, harm, reason):
    path = folder.save("one", content(1))
    folder.save("two", content(2))
    damaged = harm(path.read_bytes())
    path.write_bytes(damaged)
    done, (aside,) = folder.sift(["one", "two"])
    assert done == ["two"]
    assert aside.name == "cells/one.nc"
    assert not path.exists()
    assert aside.moved_to.parent == folder.path / "set-aside"
    assert aside.moved_to.read_bytes() == damaged
    assert "cells/one.nc: not " in aside.moved_to.with_suffix(".txt").read_text()
    assert re.search(reason, str(aside))


def test_a_foreign_file_is_set_aside(folder):
    folder.path_of("one").write_bytes(folder.save("two", content(2)).read_bytes())
    content(1).to_netcdf(folder.path_of("three"), engine="h5netcdf")
    done, aside = folder.sift(["one", "two", "three"])
    assert done == ["two"]
    assert [str(one) for one in aside] == [
        "cells/one.nc: not the result of this cell: it was sealed as that of 'two', not 'one'",
        "cells/three.nc: not a whole result: it ends without a seal",
    ]


def test_a_file_that_somebody_is_about_to_replace_stays(folder):
    folder.path_of("one").write_text("garbage")
    with claims.acquire(folder.claim_path("one")):
        assert folder.sift(["one"]) == ([], [])


def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(folder):
    folder.path_of("one").symlink_to(folder.path_of("one"))
    folder.path_of("two").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*two\.nc: Is a directory"):
        folder.sift(["one", "two"])


def test_failures_are_kept_with_their_error(folder):
    folder.fail("one", "ValueError", "no", "Traceback ...")
    folder.fail("two", "ValueError", "no")
    failure = folder.failures()["one"]
    assert (failure.error, failure.message, failure.traceback) == ("ValueError", "no", "Traceback ...")
    assert failure.host
    assert failure.time
    folder.save("two", content(2))
    assert set(folder.failures()) == {"one"}
    folder.forget_failure("one")
    folder.forget_failure("one")
    assert folder.failures() == {}
    (folder.path / "failed" / "one.json").write_text("{")
    assert folder.failures()["one"].error == "unknown"


def test_counts(folder):
    folder.prepare([("three", {}), ("four", {})])
    folder.save("one", content(1))
    folder.save("unlisted", content(1))
    folder.fail("two", "ValueError", "no")
    with claims.acquire(folder.claim_path("three")):
        assert folder.counts() == Counts(total=4, done=1, failed=1, running=1, waiting=1)


def test_using_a_folder_again_adds_cells(folder):
    folder.prepare([("two", {"n": 2}), ("three", {"n": 3})])
    manifest = folder.manifest()
    assert manifest.cells == {"one": {"n": 1}, "two": {"n": 2}, "three": {"n": 3}}
    assert list(manifest.cells) == ["one", "two", "three"]
    assert manifest.description == {"experiment": "test"}
    folder.prepare(description={"experiment": "another"})
    assert folder.manifest().description == {"experiment": "another"}
    assert folder.manifest().cells == manifest.cells


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other"}', '{"format": "rankscope.sweep.v1", "cells": 3}']
)
def test_a_foreign_run_json_is_refused(folder, text):
    (folder.path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json must be a sweep's run\.json"):
        folder.prepare()
    assert (folder.path / "run.json").read_text() == text


def test_descriptions_that_are_not_json_are_refused(folder):
    with pytest.raises(InputError, match="must be JSON values"):
        folder.prepare([("three", {"x": object()})])


@pytest.mark.parametrize("digest", ["", "a/b", "..", "a.b", "x" * 101])
def test_digests_that_cannot_name_a_file_are_refused(tmp_path, digest):
    with pytest.raises(InputError, match="digest must be"):
        RunFolder(tmp_path / "run").prepare([(digest, {})])
    assert list(tmp_path.iterdir()) == []


def test_half_written_files_go_when_their_writer_has(folder):
    cell = folder.path / "cells" / ".one.nc.abc.part"
    checkpoint = folder.path / "checkpoints" / ".one.safetensors.abc.part"
    record = folder.path / "failed" / ".one.json.abc.part"
    for path in (cell, checkpoint, record):
        path.touch()
    with claims.acquire(folder.claim_path("one")):
        folder.tidy()
        assert cell.exists()
        assert checkpoint.exists()
    folder.tidy()
    assert not cell.exists()
    assert not checkpoint.exists()
    assert record.exists()
    yesterday = time.time() - 90000
    os.utime(record, (yesterday, yesterday))
    folder.tidy()
    assert not record.exists()


def test_checkpoints_of_finished_cells_go_when_nobody_is_at_them(folder):
    folder.save("one", content(1))
    for digest in ("one", "two"):
        folder.checkpoint_path(digest).touch()
    with claims.acquire(folder.claim_path("one")):
        folder.tidy()
        assert folder.checkpoint_path("one").exists()
    folder.tidy()
    assert not folder.checkpoint_path("one").exists()
    assert folder.checkpoint_path("two").exists()


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        RunFolder(tmp_path / "file" / "run").prepare()


def test_a_read_only_file_system_is_refused(mount):
    with pytest.raises(InputError, match=r"cannot make the folder|not writable"):
        RunFolder(mount("ro") / "run").prepare()


def test_a_full_disk_leaves_no_half_file(mount):
    folder = RunFolder(mount("size=200k") / "run")
    folder.prepare([("one", {})])
    folder.save("one", content(1))
    large = xr.Dataset({"noise": ("x", np.random.default_rng(0).random(10**5))})
    for _ in range(3):
        with pytest.raises(OSError, match="No space left") as caught:
            folder.save("two", large)
        assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in (folder.path / "cells").iterdir()] == ["one.nc"]
    assert folder.read("one").drop_attrs().identical(content(1))
