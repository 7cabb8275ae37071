"""Runs: nothing finished is lost or done twice, and what happens to one job does not affect the others."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sweep_cases import EPOCHS, assert_complete, batches, job, jobs, networks_of

import rankscope as rs
from rankscope.errors import InputError
from rankscope.sweep import RunFolder, locks, run, schedule


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def one_thread():
    with ThreadPoolExecutor(1) as executor:
        yield executor


def digests(some):
    return tuple(one.digest for one in some)


def test_a_run_and_the_same_again(tmp_path, log, threads):
    few, more = jobs(2, log=log), jobs(4, log=log)
    first = run(few, tmp_path / "run", executor=threads, description={"name": "test"})
    assert first.finished == digests(few)
    assert (first.already_done, first.failed, first.elsewhere, first.set_aside, first.others) == ((), {}, (), (), 0)
    again = run([*more, *more], tmp_path / "run", executor=threads)
    assert again.already_done == digests(few)
    assert again.finished == digests(more[2:])
    assert len(batches(log)) == 4 * EPOCHS
    assert_complete(tmp_path / "run", more)
    assert RunFolder(tmp_path / "run").manifest().description == {"name": "test"}
    assert run([], tmp_path / "empty").finished == ()


def test_the_order_is_kept_and_few_jobs_are_submitted_at_once(tmp_path, log):
    submitted = []

    class Watched(ThreadPoolExecutor):
        def submit(self, *arguments):
            submitted.append(len(submitted) - len(batches(log)) / EPOCHS)
            return super().submit(*arguments)

    backwards = jobs(8, log=log)[::-1]
    with Watched(1) as executor:
        result = run(backwards, tmp_path / "run", executor=executor)
    assert result.finished == digests(backwards)
    assert max(submitted) <= 3


def test_another_sweep_in_the_same_folder_is_refused_unless_it_is_added(tmp_path, log, threads):
    run(jobs(2, log=log), tmp_path / "run", executor=threads)
    with pytest.raises(InputError, match=r"2 of another one: .*labels.sample = [01] there, 7 here.*--add"):
        run([job(7, log)], tmp_path / "run", executor=threads)
    assert len(batches(log)) == 2 * EPOCHS
    assert run([job(7, log)], tmp_path / "run", executor=threads, add=True).others == 2
    assert run(jobs(1, log=log), tmp_path / "run", executor=threads).already_done == digests(jobs(1, log=log))


def test_a_failed_job_is_recorded_and_the_others_continue(tmp_path, log, threads):
    some = [job(0, log), job(1, log, fate="raise"), job(2, log)]
    result = run(some, tmp_path / "run", executor=threads)
    assert result.finished == digests([some[0], some[2]])
    assert result.failed == {some[1].digest: "ValueError: this job cannot be trained"}
    assert "in sample" in RunFolder(tmp_path / "run").failures()[some[1].digest].traceback
    drawn = len(batches(log))
    assert run(some, tmp_path / "run", executor=threads).failed == result.failed
    assert len(batches(log)) == drawn
    assert run(some, tmp_path / "run", executor=threads, retry_failed=True).failed == result.failed
    assert len(batches(log)) == drawn + 1


def test_an_interrupted_job_continues_from_its_state_file(tmp_path, log, one_thread):
    store, long = RunFolder(tmp_path / "run"), job(0, log)
    store.prepare([long])

    def stop(done, total, loss):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        long.run(stop, store.state_path(long.digest))
    run([long], store.path, executor=one_thread)
    assert len(batches(log)) == EPOCHS
    assert_complete(store.path, [long])


def test_a_state_file_from_which_a_job_failed_is_not_used_again(tmp_path, one_thread):
    store = RunFolder(tmp_path / "run")
    store.prepare(jobs(1))
    store.state_path(job(0).digest).write_text("damaged")
    assert len(run(jobs(1), store.path, executor=one_thread).failed) == 1
    assert run(jobs(1), store.path, executor=one_thread, retry_failed=True).failed == {}
    assert_complete(store.path, jobs(1))


@pytest.mark.parametrize("name", ["measurements.safetensors", "network.safetensors"])
def test_damaged_results_are_named_and_computed_again(tmp_path, threads, name):
    run(jobs(2), tmp_path / "run", executor=threads)
    damaged = tmp_path / "run" / "jobs" / job(1).digest / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 4
    damaged.write_bytes(content)
    result = run(jobs(2), tmp_path / "run", executor=threads)
    assert result.already_done == digests(jobs(1))
    assert result.finished == (job(1).digest,)
    assert [one.name for one in result.set_aside] == [f"jobs/{job(1).digest}"]
    assert_complete(tmp_path / "run", jobs(2))


def test_measurements_added_later_are_those_of_a_run_that_made_them(tmp_path, log, threads):
    every = ("norms", "spectra", "evaluation", "shuffle")
    run(jobs(2, log=log, measurements=every), tmp_path / "whole", executor=threads)
    run(jobs(2, log=log), tmp_path / "run", executor=threads)
    drawn = len(batches(log))
    result = rs.measure_run(tmp_path / "run", ["spectra"], executor=threads)
    assert set(result.finished) == set(digests(jobs(2, log=log)))
    again = run(jobs(2, log=log, measurements=every), tmp_path / "run", executor=threads)
    assert len(again.finished) == 2
    assert len(batches(log)) == drawn
    assert len(run(jobs(2, log=log, measurements=every), tmp_path / "run", executor=threads).already_done) == 2
    added, whole = (rs.open_run(tmp_path / name).load().drop_attrs() for name in ("run", "whole"))
    assert added.identical(whole[list(added.data_vars)])
    assert set(added.data_vars) == set(whole.data_vars)


def test_without_weights_nothing_can_be_measured_later(tmp_path, threads):
    run(jobs(1), tmp_path / "run", executor=threads, keep_weights=False)
    assert not list((tmp_path / "run").rglob("network.safetensors"))
    assert "keep_weights=False" in rs.measure_run(tmp_path / "run", ["spectra"], executor=threads).failed[job(0).digest]
    assert rs.open_run(tmp_path / "run").sizes["epoch"] == EPOCHS
    with pytest.raises(InputError, match="did you mean 'spectra'"):
        rs.measure_run(tmp_path / "run", ["spectre"])


def test_progress_is_reported_for_every_settled_job(tmp_path, threads):
    run(jobs(1), tmp_path / "run", executor=threads)
    told = []
    some = [job(0), job(1), job(2, fate="raise")]
    run(some, tmp_path / "run", executor=threads, on_progress=lambda *report: told.append(report[:3]))
    assert sorted(told) == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]


def test_jobs_locked_by_another_process_are_waited_for(tmp_path, threads, monkeypatch):
    monkeypatch.setattr(schedule, "SECONDS_BETWEEN_CHECKS", 0.01)
    store = RunFolder(tmp_path / "run")
    store.prepare(jobs(2))
    finished, released = (locks.acquire(store.lock_path(one.digest)) for one in jobs(2))

    def others_work():
        store.save(job(0).run())
        finished.release()
        released.release()  # without a result, as after a death

    other = threading.Timer(0.3, others_work)
    other.start()
    result = run(jobs(2), store.path, executor=threads)
    other.join()
    assert result.elsewhere == (job(0).digest,)
    assert result.finished == (job(1).digest,)
    assert_complete(store.path, jobs(2))


def test_two_runs_on_one_folder_do_every_job_once(tmp_path, log):
    def work(results):
        with ThreadPoolExecutor(2) as executor:
            results.append(run(jobs(8, log=log), tmp_path / "run", executor=executor))

    results = []
    both = [threading.Thread(target=work, args=(results,)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sum(len(result.finished) for result in results) == 8
    assert len(batches(log)) == 8 * EPOCHS
    assert_complete(tmp_path / "run", jobs(8, log=log))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers must be a whole number >= 1, got 0"),
        ({"device": "tpu"}, "device must"),
        ({"jobs": [job(0, measurements=("spectre",))]}, "did you mean 'spectra'"),
        ({"jobs": [job(0, network={"kind": "gru", "gain": -1})]}, "gain must be"),
        ({"workers": 1.5}, "workers must be"),
    ],
)
def test_mistakes_are_named_before_any_work(tmp_path, arguments, message):
    arguments = {"jobs": jobs(1), **arguments}
    with pytest.raises(InputError, match=message):
        run(arguments.pop("jobs"), tmp_path / "run", **arguments)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_full_disk_ends_the_run_and_keeps_finished_jobs(tmp_path, log, one_thread, monkeypatch):
    real = os.fsync

    def full(descriptor):
        if len(batches(log)) > 2 * EPOCHS:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"cannot continue to write in .*No space left"):
            run(jobs(4, log=log), tmp_path / "run", executor=one_thread)
    assert len(RunFolder(tmp_path / "run").done()) == 2
    assert run(jobs(4, log=log), tmp_path / "run", executor=one_thread).failed == {}
    assert_complete(tmp_path / "run", jobs(4, log=log))


def test_an_executor_that_has_stopped_is_an_error(tmp_path):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(InputError, match="executor must accept work until the run ends"):
        run(jobs(1), tmp_path / "run", executor=executor)


def test_jobs_trained_together_on_a_device_are_measured_like_any_other(tmp_path):
    gains = [
        rs.Job(
            task="flipflop",
            network={"hidden_size": 6, "gain": gain},
            training={"epochs": 4},
            measurements=("norms",),
            seed=seed,
            labels={"sample": seed},
        )
        for gain in (0.5, 1.0)
        for seed in range(2)
    ]
    with ThreadPoolExecutor(1) as executor:
        run(gains, tmp_path / "alone", executor=executor)
        store = RunFolder(tmp_path / "together")
        store.prepare(gains)
        from rankscope.sweep.together import chosen_device, train_groups

        assert train_groups(gains, store, chosen_device("cpu")) == {}
        assert all(store.state_path(one.digest).exists() for one in gains)
        run(gains, tmp_path / "together", executor=executor)
    alone, together = (rs.open_run(tmp_path / name)["loss"].values for name in ("alone", "together"))
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert set(networks_of(tmp_path / "together")) == set(networks_of(tmp_path / "alone"))
