"""Files are replaced whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from rankscope.errors import InputError
from rankscope.io.atomic import make_folder, replacing


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "result"
    path.write_text("old")
    return path


def test_a_new_file_and_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "result"
    with replacing(str(path)) as temporary:
        assert temporary.parent == path.parent  # a rename is atomic within one file system only
        assert not path.exists()
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert names_in(path.parent) == ["result"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_old_file_stands_until_the_end(target):
    with replacing(target) as temporary:
        temporary.write_text("half")
        assert target.read_text() == "old"
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert names_in(target.parent) == ["result"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_file_and_nothing_else(target, error):
    def fail_half_way():
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert target.read_text() == "old"
    assert names_in(target.parent) == ["result"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_of_the_disk_leaves_the_old_file(target, monkeypatch, step):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"), replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "old"
    assert names_in(target.parent) == ["result"]


def test_a_writer_may_remove_its_file_on_failure(target):
    def remove_and_fail():
        with replacing(target) as temporary:
            temporary.unlink()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        remove_and_fail()
    assert target.read_text() == "old"


def test_two_at_a_time_do_not_meet(target):
    with replacing(target) as one, replacing(target) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert target.read_text() == "one"  # the last to finish


def test_content_is_on_the_disk_before_it_gets_the_name_and_the_name_after(target, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.replace

    def watched_fsync(descriptor):
        what = os.fstat(descriptor)
        events.append(("folder", None) if stat.S_ISDIR(what.st_mode) else ("file", what.st_size))
        fsync(descriptor)

    def watched_replace(source, destination):
        events.append(("renamed", os.fspath(destination)))
        rename(source, destination)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    with replacing(target) as temporary:
        temporary.write_text("12345")
    assert events == [("file", 5), ("renamed", str(target)), ("folder", None)]


def test_descriptors_are_closed(target):
    before = len(names_in(Path("/proc/self/fd")))
    for _ in range(5):
        with replacing(target) as temporary:
            temporary.write_text("new")
    assert len(names_in(Path("/proc/self/fd"))) == before


@pytest.mark.parametrize("below", ["below", "below/deeper"])
def test_a_folder_that_cannot_be(target, below):
    # as root every folder is writable, so a file has to stand in the way
    with pytest.raises(InputError, match=r"cannot make the folder .*result"), replacing(target / below / "x"):
        pytest.fail("there is nothing to write to")
    with pytest.raises(InputError, match=r"cannot make the folder .*result"):
        make_folder(target / below)
    assert target.read_text() == "old"


def test_a_folder_that_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(InputError, match="is not writable"), replacing(tmp_path / "x"):
        pytest.fail("there is nothing to write to")
    assert names_in(tmp_path) == []


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(InputError, match=r"cannot write in .*: File name too long"), replacing(tmp_path / ("x" * 300)):
        pytest.fail("there is nothing to write to")


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="path must be a file to write, got the folder"), replacing(tmp_path):
        pytest.fail("there is nothing to write to")


def test_make_folder(tmp_path):
    folder = make_folder(str(tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b"
    assert folder.is_dir()
    assert make_folder(folder) == folder  # again
