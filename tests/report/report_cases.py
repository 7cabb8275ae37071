"""Small real networks for the tests of the report, and a text that would like to be a script."""

from rankscope.experiments import Cell
from rankscope.sweep import RunFolder
from rankscope.tasks import FixedPoint, FlipFlop

HOSTILE = "</script><script>alert(1)</script>"


def small_cells():
    """Two tasks, two gains, two samples; one task without spectra or trial, but with eigenvalues over epochs."""
    records = {"recorded_epochs": 12, "batch_size": 4}
    return [
        Cell(task, gain=gain, hidden_size=10, epochs=40, sample=sample, seed=seed, **options)
        for seed, (task, gain, sample, options) in enumerate(
            (task, gain, sample, options)
            for task, options in (
                (FlipFlop(), {"training": records | {"learning_rate": 0.03}}),
                (FixedPoint(), {"training": records | {"eigenvalues": 3}, "measurements": ("outlier",)}),
            )
            for gain in (0.0, 0.8)
            for sample in (0, 1)
        )
    ]


def store(folder, cells, description, skip=0):
    """Store the results of cells, but of the last `skip`, as a sweep does."""
    run = RunFolder(folder)
    run.prepare([(cell.digest, cell.describe()) for cell in cells], description)
    for cell in cells[: len(cells) - skip]:
        run.save(cell.digest, cell.measure(lambda *_: None))
    return run
