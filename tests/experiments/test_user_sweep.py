"""Sweep files: the smallest one, grids over everything, and mistakes that are named before anything is trained."""

import pytest

from rankscope.errors import InputError
from rankscope.experiments.user_sweep import read_sweep

SMALLEST = """
task: flipflop
hidden_size: 64
epochs: 150
grid:
  gain: [0.0, 0.6, 1.2, 1.8]
samples: 4
"""


def cells(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return read_sweep(path)


def test_the_smallest(tmp_path):
    found = cells(tmp_path, SMALLEST)
    assert len(found) == 16
    assert {(c.gain, c.sample) for c in found} == {(g, s) for g in (0.0, 0.6, 1.2, 1.8) for s in range(4)}
    assert {(c.hidden_size, c.epochs, c.task.name) for c in found} == {(64, 150, "flipflop")}
    assert len({c.seed for c in found}) == len({c.digest for c in found}) == 16


def test_seeds_follow_from_the_cell_alone(tmp_path):
    few = cells(tmp_path, SMALLEST.replace("samples: 4", "samples: 2").replace("[0.0, 0.6, 1.2, 1.8]", "[1.2, 0.6]"))
    all_of_them = {(c.gain, c.sample): c.seed for c in cells(tmp_path, SMALLEST)}
    assert all(all_of_them[c.gain, c.sample] == c.seed for c in few)


def test_a_grid_over_options_and_parameters_of_the_task(tmp_path):
    text = """
task: romo
grid:
  nonlinearity: [tanh, relu]
  learning_rate: [0.001, 0.002]
  trained: [[recurrent], [input, recurrent]]
  delay_max: [4.0, 8.0]
"""
    found = cells(tmp_path, text)
    assert len(found) == 16
    assert {c.task.delay_max for c in found} == {4.0, 8.0}
    assert {c.labels["trained"] for c in found} == {"recurrent", "input+recurrent"}
    assert {(c.network["nonlinearity"], c.labels["nonlinearity"]) for c in found} == {
        ("tanh", "tanh"),
        ("relu", "relu"),
    }
    assert all(c.training["learning_rate"] == c.labels["learning_rate"] for c in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("task: flipflop", "task: flipflap"), "task must be one of .* got 'flipflap' .did you mean 'flipflop'"),
        (("samples: 4", "sampels: 4"), "key must be one of .* got 'sampels' .did you mean 'samples'"),
        (("hidden_size: 64", "hidden_size: many"), "hidden_size: .* got 'many'"),
        (("epochs: 150", "epochs: 0"), "epochs: .* got 0"),
        (("gain: [0.0", "gian: [0.0"), "grid key must be one of .* got 'gian' .did you mean 'gain'"),
        (("[0.0, 0.6, 1.2, 1.8]", "[0.0, -1]"), "grid: gain: .* got -1"),
        (("[0.0, 0.6, 1.2, 1.8]", "[]"), "grid.gain must be a list of values, got an empty one"),
        (("samples: 4", "nonlinearity: tan"), "nonlinearity must be one of .* got 'tan' .did you mean 'tanh'"),
        (("samples: 4", "task_parameters: {pulse: 100}"), "pulse must be at most .* got 100"),
        (("task: flipflop", "jobs: 3"), "key must be one of .* got 'jobs'"),
        (("task: flipflop", ""), "task is missing"),
        (("samples: 4", "samples: [4"), "is not readable YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        cells(tmp_path, SMALLEST.replace(*change))
    assert "sweep.yaml" in str(error.value)


@pytest.mark.parametrize("text", ["", "- 1", "just words", "1: 2", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_sweep_is_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"sweep\.yaml"):
        cells(tmp_path, text)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="which is not there"):
        read_sweep(tmp_path / "nowhere.yaml")
