"""The folder of a run: complete results, damaged ones set aside, and nothing trusted."""

import json

import pytest
from sweep_cases import job, jobs

from rankscope.errors import InputError
from rankscope.sweep import Job, RunFolder
from rankscope.sweep.leftovers import remove_leftovers
from rankscope.sweep.manifest import FORMAT


@pytest.fixture
def store(tmp_path):
    store = RunFolder(tmp_path / "run")
    store.prepare(jobs(3), {"name": "test"})
    return store


@pytest.fixture(scope="module")
def done():
    return job(0).run()


def test_a_result_is_stored_and_read(store, done):
    folder = store.save(done)
    assert sorted(path.name for path in folder.iterdir()) == ["measurements.safetensors", "network.safetensors"]
    assert store.done() == [done.job.digest]
    stored = store.result(done.job.digest)
    assert stored.load().drop_attrs().identical(done.measurements.drop_attrs())
    assert Job.from_json(stored.metadata["job"]).digest == done.job.digest
    before, after = store.networks(done.job.digest)
    assert before.recurrent_weights.equal(done.before.recurrent_weights)
    assert after.recurrent_weights.equal(done.after.recurrent_weights)
    assert store.save(done) == folder  # of two processes that finish one job, both may store it


def test_weights_may_be_dropped(store, done):
    folder = store.save(done, keep_weights=False)
    assert [path.name for path in folder.iterdir()] == ["measurements.safetensors"]
    assert store.is_done(done.job.digest)
    with pytest.raises(InputError, match="keep_weights=False"):
        store.networks(done.job.digest)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def exchange(path):
    """Put the results of another job in place."""
    other = RunFolder(path.parents[3] / "other")
    other.prepare(jobs(2))
    other.save(job(1).run())
    (other.path / "jobs" / job(1).digest / path.name).replace(path)


HARMS = {
    "flipped": (flip, "has changed since it was written"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-5]), "is not a whole rankscope file"),
    "empty": (lambda path: path.write_bytes(b""), "is not a whole rankscope file"),
    "foreign": (exchange, "of another job"),
}


@pytest.mark.parametrize("name", ["measurements.safetensors", "network.safetensors"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_result_is_set_aside(store, done, name, harm):
    digest = done.job.digest
    change, reason = HARMS[harm]
    change(store.save(done) / name)
    whole, aside = store.set_aside_damaged([digest])
    assert whole == []
    assert reason in str(aside[0])
    assert (aside[0].moved_to / name).exists()
    assert reason in aside[0].moved_to.with_suffix(".txt").read_text()
    assert store.done() == []


def test_a_missing_network_is_damage(store, done):
    (store.save(done) / "network.safetensors").unlink()
    assert not store.is_done(done.job.digest)


def test_a_result_that_another_process_replaces_is_left_alone(store, done):
    from rankscope.sweep import locks

    flip(store.save(done) / "measurements.safetensors")
    with locks.acquire(store.lock_path(done.job.digest)):
        assert store.set_aside_damaged([done.job.digest]) == ([], [])


def test_failures_and_counts(store, done):
    other = job(1).digest
    store.fail(other, "ValueError", "impossible", "traceback")
    failure = store.failures()[other]
    assert (failure.error, failure.message) == ("ValueError", "impossible")
    store.save(done)
    counts = store.counts()
    assert (counts.total, counts.done, counts.failed, counts.running, counts.waiting) == (3, 1, 1, 0, 1)
    (store.path / "failed" / f"{other}.json").write_text("[" * 100_000)
    assert store.failure(other).message == "the record of this failure is damaged"
    store.forget_failure(other)
    assert store.failures() == {}


def test_partial_files_of_killed_processes_are_removed(store, done):
    digest = done.job.digest
    folder = store.save(done)
    partial = [store.path / "jobs" / f".{job(1).digest}.abc.part", folder / ".measurements.safetensors.x.part"]
    partial[0].mkdir()
    (partial[0] / "network.safetensors").touch()
    partial[1].touch()
    store.state_path(digest).touch()
    store.state_path(job(1).digest).touch()
    recent = store.path / ".run.json.part"
    recent.touch()
    remove_leftovers(store)
    assert not any(path.exists() for path in partial)
    assert not store.state_path(digest).exists()
    assert store.state_path(job(1).digest).exists()
    assert recent.exists()


def test_a_folder_used_again_lists_all_jobs(store):
    store.prepare(jobs(5))
    manifest = store.manifest()
    assert list(manifest.jobs) == [one.digest for one in jobs(5)]
    assert manifest.description == {"name": "test"}
    assert Job.from_json(json.dumps(manifest.jobs[job(4).digest])).digest == job(4).digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"format": "other", "description": {}, "jobs": {}}',
        json.dumps({"format": FORMAT, "description": {}, "jobs": {"../../etc/passwd": {}}}),
        json.dumps({"format": FORMAT, "description": {}, "jobs": [1]}),
    ],
)
def test_a_foreign_run_json_is_refused(store, text):
    (store.path / "run.json").write_text(text)
    for use in (store.manifest, store.prepare):
        with pytest.raises(InputError, match=r"run.json of a run"):
            use()


def test_impossible_folders_are_refused(tmp_path, mount):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        RunFolder(tmp_path / "file" / "run").prepare()
    with pytest.raises(InputError, match=r"is not writable|cannot make the folder"):
        RunFolder(mount("ro") / "run").prepare()


def test_a_full_disk_leaves_no_partial_result(mount, done):
    store = RunFolder(mount("size=40k") / "run")
    store.prepare([done.job])
    (store.path / "filling").write_bytes(b"x" * 28_000)
    with pytest.raises(OSError, match="No space left"):
        store.save(done)
    assert list((store.path / "jobs").iterdir()) == []
