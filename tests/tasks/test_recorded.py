"""Recorded trials: every format gives the same trials, and a mistake names the array and the remedy."""

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.errors import InputError
from rankscope.tasks import Recorded

X = np.random.default_rng(0).normal(size=(10, 6, 2)).astype(np.float32)
Y = X.cumsum(axis=1)[:, :, :1]
M = (np.arange(6) >= 3).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x=X, y=Y, m=M, time_first=X.swapaxes(0, 1), classes=(Y[..., 0] > 0).astype(int))
    return tmp_path


def everything(task):
    return task.sample(100, 0), task.validation()


def assert_same(one, other):
    for a, b in zip(
        [everything(one)[0], *everything(one)[1]], [everything(other)[0], *everything(other)[1]], strict=True
    ):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
        assert torch.equal(a.mask, b.mask)


def test_trials_are_split_once_and_passed_through(folder):
    task = rs.tasks.make({"recorded": "data.npz", "inputs": "x", "targets": "y", "mask": "m"})
    (held,) = task.validation()
    batches = task.batches(3, rng=1)
    assert [batch.batch_size for batch in batches] == [3, 3, 2]
    assert held.batch_size == 2
    drawn = torch.cat([batch.inputs for batch in [*batches, held]]).numpy()
    assert sorted(drawn[:, 0, 0]) == sorted(X[:, 0, 0])
    assert (held.mask[:, :3] == 0).all()
    assert (task.input_size, task.output_size, task.steps) == (2, 1, 6)
    chosen = Recorded("data.npz", "x", "y", validation_trials=[0, 9])
    np.testing.assert_array_equal(chosen.validation()[0].inputs, X[[0, 9]])
    assert Recorded("data.npz", "x", "classes", loss="cross_entropy").output_size == 2


def test_every_format_gives_the_same_trials(folder):
    expected = Recorded("data.npz", "x", "y")
    (folder / "arrays").mkdir()
    np.save("arrays/x.npy", X)
    np.save("arrays/y.npy", Y)
    assert_same(Recorded("arrays", "x", "y"), expected)
    from scipy.io import savemat

    savemat("data.mat", {"x": X, "y": Y})
    assert_same(Recorded("data.mat", "x", "y"), expected)
    rows = [[t, *X[t, s], *Y[t, s]] for t in range(10) for s in range(6)]
    np.savetxt("data.csv", rows, delimiter=",", header="trial,u1,u2,z", comments="", fmt="%.9g")
    assert_same(Recorded("data.csv", ["u1", "u2"], "z"), expected)
    assert_same(Recorded("data.npz", "time_first", "time_first", axes=["time", "trial", "channel"]),
                Recorded("data.npz", "x", "x"))  # fmt: skip
    h5py = pytest.importorskip("h5py")
    with h5py.File("data.nwb", "w") as file:
        file["acquisition/x"], file["acquisition/y"] = X, Y
    assert_same(Recorded("data.nwb", "/acquisition/x", "acquisition/y"), expected)


def test_shorter_trials_are_padded_and_masked(folder):
    x, y = X.copy(), Y.copy()
    x[0, 4:] = y[0, 4:] = y[1, 2] = np.nan
    np.savez("short.npz", x=x, y=y)
    trials = Recorded("short.npz", "x", "y", validation_trials=0).sample(100, 0)
    assert trials.lengths.tolist() == [4] + [6] * 9
    assert trials.mask[0, :, 0].tolist() == [1, 1, 1, 1, 0, 0]
    assert trials.mask[1, 2, 0] == 0
    trials.check_content()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"file": "none.npz"}, "'none.npz', which does not exist"),
        ({"inputs": "xx"}, "array of data.npz must be one of .* got 'xx' .did you mean 'x'"),
        ({"inputs": "time_first"}, r"targets .* trials and times of its inputs, \(6, 10\), got \(10, 6\); `axes`"),
        ({"targets": "m"}, r"targets must have the axes trial, time, channel, .* got shape \(6,\); repeat"),
        ({"mask": "time_first"}, r"mask of data.npz must have the shape of the targets, \(10, 6, 1\), or"),
        ({"axes": "TNC"}, "axes must be trial, time and channel"),
        ({"validation_trials": 1}, "validation_trials must be a finite number >= 0 and < 1"),
        ({"validation_trials": [10]}, "validation_trials must be a whole number >= 0 and <= 9"),
        ({"validation_trials": list(range(10))}, "must leave trials for training"),
        ({"targets": "x", "loss": "cross_entropy"}, None),
        ({"loss": "cross_entropy"}, "targets of data.npz must be probabilities, or classes"),
    ],
)
def test_mistakes_are_named(folder, fields, message):
    given = {"file": "data.npz", "inputs": "x", "targets": "y", **fields}
    if message is None:
        Recorded(**given).sample(2, 0)
        return
    with pytest.raises(InputError, match=message):
        Recorded(**given).sample(2, 0)


def test_changed_data_is_other_data(folder):
    job = rs.Job(task={"recorded": "data.npz", "inputs": "x", "targets": "y"}, network={"hidden_size": 4})
    assert rs.Job.from_json(job.to_json()).digest == job.digest
    text = job.to_json()
    np.savez("data.npz", x=X + 1, y=Y)
    with pytest.raises(InputError, match="the data has changed since"):
        rs.Job.from_json(text).make_task()
