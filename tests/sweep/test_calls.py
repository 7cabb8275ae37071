"""The record of the calls that worked on a run: wall time over interruptions, nothing from calls without work."""

import rankscope as rs
from rankscope.sweep.calls import Call, read_calls, wall_seconds
from rankscope.sweep.runner import run


def call(began, ended):
    return Call(began, ended, 2, "processes", "here", "a processor", 2)


def test_wall_time_is_that_of_the_union():
    assert wall_seconds([]) == 0
    assert wall_seconds([call(100, 110), call(105, 120), call(106, 107), call(200, 201)]) == 21


def test_calls_are_recorded_if_they_have_work(tmp_path):
    jobs = [rs.Job(task="flipflop", network={"hidden_size": 8}, training={"epochs": 2}, seed=n, measurements=["norms"])
            for n in range(2)]  # fmt: skip
    jobs = [job.model_copy(update={"labels": {"sample": n}}) for n, job in enumerate(jobs)]
    run(jobs[:1], tmp_path / "run", workers=1)
    (first,) = read_calls(tmp_path / "run")
    assert (first.workers, first.kind) == (1, "processes")
    assert first.cores >= 1
    assert first.processor
    assert 0 < first.ended - first.began < 100
    run(jobs[:1], tmp_path / "run")
    assert read_calls(tmp_path / "run") == [first]
    run(jobs, tmp_path / "run", workers=1)
    calls = read_calls(tmp_path / "run")
    assert calls[0] == first
    assert wall_seconds(calls) == sum(one.ended - one.began for one in calls)
    (tmp_path / "run" / "calls" / "broken.jsonl").write_text("{}")
    for path in (tmp_path / "run" / "calls").glob("*.jsonl"):
        with path.open("a") as file:
            file.write('{"began": 17')  # as a killed process leaves it
    assert read_calls(tmp_path / "run") == calls
