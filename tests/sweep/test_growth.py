"""Runs that grow: only what is new is trained, more epochs continue, and the rest is refused with the way out."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError
from rankscope.sweep import RunFolder, run

BASE = {
    "task": {"name": "flipflop", "duration": 10, "pulse": 2},
    "network": {"hidden_size": 8},
    "measurements": ("norms",),
}


def sweep(samples=2, epochs=6, training=None, **grid):
    base = rs.Job(**BASE, training={"epochs": epochs, "recorded_epochs": (0, 5), **(training or {})})
    return rs.Sweep(base=base, grid={"gain": [0.0, 0.9], **grid}, samples=samples).jobs()


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_a_finished_run_grows_by_samples_a_gain_an_axis_epochs_and_a_measurement(tmp_path, executor):
    folder = tmp_path / "run"
    first = run(sweep(1, gain=[0.0]), folder, executor=executor)
    assert len(first.finished) == 1
    samples = run(sweep(3, gain=[0.0]), folder, executor=executor)
    assert (len(samples.finished), len(samples.already_done)) == (2, 1)
    gains = run(sweep(3), folder, executor=executor)
    assert (len(gains.finished), len(gains.already_done)) == (3, 3)
    axis = {"samples": 3, "gain": [0, 0.9], "learning_rate": [None, 0.01]}
    rates = run(sweep(**axis), folder, executor=executor)
    assert (len(rates.finished), len(rates.already_done)) == (6, 6)
    kept = rs.load_networks(folder, gain=0.9, sample=1, learning_rate=0.01)
    longer = run(sweep(epochs=9, **axis), folder, executor=executor)
    assert len(longer.finished) == len(longer.continued) == 12
    rs.measure_run(folder, ["spectra"], executor=executor)

    whole = run(sweep(epochs=9, **axis), tmp_path / "whole", executor=executor)
    assert whole.continued == {}
    rs.measure_run(tmp_path / "whole", ["spectra"], executor=executor)
    grown, at_once = rs.open_run(folder).load(), rs.open_run(tmp_path / "whole").load()
    # In any order and in one go: the same networks, bit for bit.
    assert (
        grown.drop_vars("training_seconds", errors="ignore")
        .drop_attrs()
        .identical(at_once.drop_vars("training_seconds", errors="ignore").drop_attrs())
    )
    assert {name: grown.sizes[name] for name in ("gain", "sample", "learning_rate", "epoch")} == {
        "gain": 2, "sample": 3, "learning_rate": 2, "epoch": 9
    }  # fmt: skip
    before, after = rs.load_networks(folder, gain=0.9, sample=1, learning_rate=0.01)
    assert torch.equal(before.recurrent_weights, kept[0].recurrent_weights)
    assert not torch.equal(after.recurrent_weights, kept[1].recurrent_weights)
    counts = RunFolder(folder).counts()
    assert (counts.total, counts.done) == (12, 12)
    assert len(list((folder / "earlier").iterdir())) == 12


def test_what_cannot_continue_is_trained_anew_and_fewer_epochs_are_refused(tmp_path, executor, caplog):
    run(sweep(1), tmp_path, executor=executor, keep_weights=False)
    longer = run(sweep(1, epochs=9), tmp_path, executor=executor)
    assert len(longer.anew) == len(longer.finished) == 2
    assert "no training state (keep_weights=False)" in caplog.text
    between = [sweep(1, epochs=epochs, training={"validation_every": 4}, gain=[0.9]) for epochs in (6, 8, 9)]
    results = [run(one, tmp_path / "validated", executor=executor) for one in between]
    assert [(len(one.continued), len(one.anew)) for one in results] == [(0, 0), (0, 1), (1, 0)]
    with pytest.raises(InputError, match=r"epochs must be >= 9, .* got 6; choose another folder"):
        run(sweep(1), tmp_path, executor=executor)


def test_epochs_of_the_grid_are_an_axis(tmp_path, executor):
    jobs = sweep(1, epochs=6, gain=[0.9], **{"training.epochs": [6, 9]})
    assert len({job.seed for job in jobs}) == 1
    run(jobs, tmp_path, executor=executor)
    data = rs.open_run(tmp_path)
    assert data["epochs"].values.tolist() == [6, 9]
    np.testing.assert_array_equal(data["loss"].sel(epochs=6)[:6], data["loss"].sel(epochs=9)[:6])


def test_a_changed_helper_of_a_task_is_another_task(tmp_path, executor, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """
from dataclasses import dataclass
import numpy as np, rankscope as rs
def target(x):
    return np.roll(x, 1, axis=1)
def other():
    pass
@dataclass(frozen=True)
class Echo:
    def sample(self, batch_size, rng):
        x = rng.normal(size=(batch_size, 5, 1))
        return rs.Trials.from_arrays(x, target(x), np.ones_like(x))
"""
    (tmp_path / "own.py").write_text(text)

    def job(epochs=3):
        training = {"epochs": epochs}
        return rs.Job(task="own.py:Echo", network={"hidden_size": 4}, training=training, measurements=("norms",))

    run([job()], "run", executor=executor)
    (tmp_path / "own.py").write_text(text.replace("    pass", "    return 3"))
    assert len(run([job()], "run", executor=executor).already_done) == 1
    (tmp_path / "own.py").write_text(text.replace("np.roll(x, 1", "np.roll(x, 2"))
    for epochs in (3, 5):
        with pytest.raises(InputError, match=r"1 of another one: the source of own.py:Echo has changed\."):
            run([job(epochs)], "run", executor=executor)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", r"must run for one step, got ZeroDivisionError: division by zero \(.*own.py, line 5\)"),
        ("return rng.normal(size=3)", "task must return Trials from sample, got ndarray"),
        ("return rs.Trials.from_arrays(x, x[:, :, :1] * np.nan, np.ones((len(x), 4, 1)))", "targets must be finite"),
        ("return rs.Trials.from_arrays(x, x[:, :3], x[:, :3])", "targets must have the batch and time of inputs"),
    ],
)
def test_a_wrong_task_leaves_nothing_on_disk(tmp_path, executor, body, message):
    text = "import numpy as np, rankscope as rs\nclass Own:\n    def sample(self, batch_size, rng):\n"
    (tmp_path / "own.py").write_text(text + f"        x = rng.normal(size=(batch_size, 4, 2))\n        {body}\n")
    job = rs.Job(task=f"{tmp_path}/own.py:Own", network={"hidden_size": 4}, training={"epochs": 2})
    with pytest.raises(InputError, match=message):
        run([job], tmp_path / "run", executor=executor)
    assert not (tmp_path / "run").exists()
