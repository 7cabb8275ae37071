"""Sweep files: the smallest one, grids over everything, and mistakes that are named before anything is trained."""

import tracemalloc
from itertools import pairwise

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


LAUGHS = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "\n".join(
    f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]" for before, here in pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: flipflop\nsamples: 900000000\n", "at most 20000 networks, got 9e.08"),
        (
            "task: flipflop\ngrid:\n" + "".join(f"  {key}: {[1] * 99}\n" for key in ("gain", "epochs", "batch_size")),
            "at most 20000 networks, got 970299",
        ),
        (
            f"task: flipflop\ntask_parameters:\n  {LAUGHS}".replace("\n", "\n  "),
            "is not readable YAML|at most 20000 values",
        ),
        (LAUGHS, "at most 20000 values"),
        ("task: flipflop\ngrid: &all {gain: [*all]}", "at most 20000 values, got more, or one that holds itself"),
        ("task: " + "[" * 30_000, "is not readable YAML"),
        ("task: flipflop\nseed: 2020-99-99", "is not readable YAML: month must be in"),
        ("task: !!bool x", "is not readable YAML"),
        ("task: !!timestamp x", "is not readable YAML"),
        ("task: !!int ''", "is not readable YAML"),
        ("seed: " + "1" * 5000, "is not readable YAML"),
        *(
            (f"task: flipflop\n{name}: {'9' * 60}", f"{name}: .* less than or equal to")
            for name in ("epochs", "hidden_size")
        ),
        ("task: flipflop\nrecorded_epochs: 1000000000", "recorded_epochs: .* less than or equal to"),
        ("task: " + "x" * 100_000, "must be smaller than 100000 bytes"),
    ],
)
def test_a_file_that_would_take_all_memory_or_time_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        cells(tmp_path, text)
    assert "sweep.yaml" in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_long_list_that_holds_itself_does_not_fill_the_memory(tmp_path):
    """Found by fuzzing: twenty thousand references are 60 kB, and their product four hundred million."""
    path = tmp_path / "sweep.yaml"
    path.write_text("task: flipflop\ntask_parameters:\n  duration: &a [" + "*a," * 19_000 + "]\n")
    tracemalloc.start()
    with pytest.raises(InputError, match="holds itself"):
        read_sweep(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
