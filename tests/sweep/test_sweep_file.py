"""Sweeps in Python and in YAML: the same jobs, grids over any option, and mistakes named before any training."""

import time
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

import rankscope as rs
from rankscope.errors import InputError
from rankscope.sweep.axes import labels_of_jobs

SMALL = """
task: flipflop
hidden_size: 64
epochs: 150
grid:
  gain: [0.0, 0.6, 1.2, 1.8]
samples: 4
"""


def read(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return rs.Sweep.from_yaml(path).jobs()


def test_a_file_and_python_describe_the_same_jobs(tmp_path):
    base = rs.Job(task="flipflop", network={"hidden_size": 64}, training={"epochs": 150})
    jobs = rs.Sweep(base=base, grid={"network.gain": np.array([0.0, 0.6, 1.2, 1.8])}, samples=4).jobs()
    assert [job.digest for job in jobs] == [job.digest for job in read(tmp_path, SMALL)]
    nested = SMALL.replace("hidden_size: 64", "network: {hidden_size: 64}").replace("epochs", "training.epochs")
    assert [job.digest for job in jobs] == [
        job.digest for job in read(tmp_path, nested.replace("training.epochs: 150", "training: {epochs: 150}"))
    ]
    assert len({job.seed for job in jobs}) == len(jobs) == 16
    assert {(job.network["gain"], job.labels["sample"]) for job in jobs} == {
        (gain, sample) for gain in (0.0, 0.6, 1.2, 1.8) for sample in range(4)
    }


def test_a_seed_follows_from_what_a_job_is(tmp_path):
    few = read(tmp_path, SMALL.replace("[0.0, 0.6, 1.2, 1.8]", "[1.2, 0.6]").replace("samples: 4", "samples: 2"))
    assert {job.digest for job in few} < {job.digest for job in read(tmp_path, SMALL)}
    other = read(tmp_path, SMALL + "seed: 1\n")
    assert {job.seed for job in other}.isdisjoint(job.seed for job in few)


def test_a_grid_varies_options_of_task_network_and_training(tmp_path):
    text = """
    task: {name: flipflop, pulse: 2}
    training: {epochs: 20}
    measurements: [norms]
    labels: {study: a}
    grid:
      task.target: [0.5, 1.0]
      hidden_size: [16, 32]
      learning_rate: [0.01, null]
      trained: [[recurrent], [input, recurrent]]
      network.kind: [rate]
    """
    jobs = read(tmp_path, text)
    assert len(jobs) == 16
    assert jobs[0].network["hidden_size"] == 32  # the longest first
    labels = list(labels_of_jobs({job.digest: job.description for job in jobs}).values())
    assert {one["learning_rate"] for one in labels} == {0.01, "none"}
    assert {one["trained"] for one in labels} == {"recurrent", "input+recurrent"}
    assert [job.task["target"] for job in jobs] == [one["target"] for one in labels]
    assert all(job.task["pulse"] == 2 and job.measurements == ("norms",) for job in jobs)
    assert all(job.labels == {"sample": 0, "study": "a"} for job in jobs)


def test_any_task_and_network_of_your_own(tmp_path):
    (tmp_path / "own.py").write_text("""
from dataclasses import dataclass
import numpy as np, torch
from rankscope import Trials

@dataclass(frozen=True)
class Echo:
    delay: int = 1
    def sample(self, batch_size, rng):
        x = rng.normal(size=(batch_size, 5, 1))
        return Trials.from_arrays(x, np.roll(x, self.delay, axis=1), np.ones_like(x))

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.rnn = torch.nn.RNN(1, width, batch_first=True)
        self.out = torch.nn.Linear(width, 1)
    def forward(self, inputs):
        return self.out(self.rnn(inputs)[0])

def make(task, rng, width=4):
    return Net(width)
""")
    text = f"""
    task: {tmp_path}/own.py:Echo
    network: {{kind: "{tmp_path}/own.py:make"}}
    epochs: 2
    grid: {{delay: [1, 2], width: [3]}}
    """
    jobs = read(tmp_path, text)
    assert [job.description["task"]["delay"] for job in jobs] == [1, 2]
    done = jobs[0].run()
    assert done.measurements["task"].item() == "Echo"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("task: flipflop", "task: flipflap"), "task must be one of .* got 'flipflap' .did you mean 'flipflop'"),
        (("samples: 4", "sampels: 4"), "key must be one of .* got 'sampels' .did you mean"),
        (("hidden_size: 64", "hidden_size: many"), "hidden_size must be .* got 'many'"),
        (("epochs: 150", "epochs: 0"), "epochs must be .* got 0"),
        (("gain: [0.0", "gian: [0.0"), "grid key must be one of .* got 'gian' .did you mean 'gain'"),
        (("gain: [0.0", "network.gian: [0.0"), "did you mean 'gain'"),
        (("gain: [0.0", "nets.gain: [0.0"), "grid key must be one of"),
        (("[0.0, 0.6, 1.2, 1.8]", "[0.0, -1]"), "gain must be .* got -1"),
        (("[0.0, 0.6, 1.2, 1.8]", "[]"), r"grid.gain must be a list of values, got \[\]"),
        (("[0.0, 0.6, 1.2, 1.8]", "0.5"), "grid.gain must be a list of values, got 0.5"),
        (("samples: 4", "nonlinearity: tan"), "nonlinearity must be one of .* got 'tan' .did you mean 'tanh'"),
        (("samples: 4", "pulse: 100"), "pulse must be at most .* got 100"),
        (("task: flipflop", ""), "task is missing"),
        (("samples: 4", "samples: [4"), "is not readable YAML"),
        (("  gain: [0.0, 0.6, 1.2, 1.8]", "  - gain"), "grid must be a mapping"),
        (("samples: 4", "samples: 0"), "samples must be a whole number >= 1, got 0"),
        (("samples: 4", "measurements: [spectrum]"), "did you mean 'spectra'"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, SMALL.replace(*change))
    assert "sweep.yaml" in str(error.value)


@pytest.mark.parametrize("text", ["", "- 1", "just words", "1: 2", "!!python/object/apply:os.getcwd []"])
def test_other_files_are_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"sweep\.yaml"):
        read(tmp_path, text)
    with pytest.raises(InputError, match="does not exist"):
        rs.Sweep.from_yaml(tmp_path / "nowhere.yaml")


LAUGHS = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "\n".join(
    f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]" for before, here in pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: flipflop\nsamples: 900000000\n", "at most 20000 networks, got 9e.08"),
        (
            "task: flipflop\ngrid:\n"
            + "".join(f"  {key}: {list(range(1, 100))}\n" for key in ("gain", "epochs", "batch_size")),
            "at most 20000 networks, got 970299",
        ),
        (LAUGHS, "at most 20000 values"),
        ("task: flipflop\ngrid: &all {gain: [*all]}", "at most 20000 values, got more, or one that contains itself"),
        ("task: " + "[" * 30_000, "is not readable YAML: .* brackets"),
        ("task: " + "- " * 30_000, "is not readable YAML"),
        ("task: flipflop\nseed: 2020-99-99", "is not readable YAML: month must be in"),
        ("task: !!bool x", "is not readable YAML"),
        ("seed: " + "1" * 5000, "is not readable YAML"),
        (f"task: flipflop\nepochs: {'9' * 60}", "numbers up to"),
        (f"task: flipflop\nepochs: {'9' * 400}", "numbers up to"),
        ("task: flipflop\nhidden_size: 9999999999", "numbers up to"),
        ("task: flipflop\nepochs: 100000000\nrecorded_epochs: 100000000", "recorded_epochs must be at most"),
        ("task: " + "x" * 100_000, "must be smaller than 100000 bytes"),
    ],
)
def test_a_file_that_would_take_all_memory_or_time_is_refused(tmp_path, text, message):
    began = time.process_time()
    tracemalloc.start()
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
    assert time.process_time() - began < 10
    assert "sweep.yaml" in str(error.value)
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("values", ["[0.5, 1, 0.5]", "[1, 1.0]", "[a, a]", "[[1, 2], [1, 2]]"])
def test_a_value_twice_in_the_grid_is_refused(tmp_path, values):
    with pytest.raises(InputError, match=r"grid\.gain must have different values, got .* more than once"):
        read(tmp_path, f"task: flipflop\ngrid: {{gain: {values}}}\n")
