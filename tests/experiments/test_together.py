"""Cells trained together on a device end as those trained on processes, and either goes on where the other was."""

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import rankscope as rs
from rankscope.cli import main
from rankscope.experiments import Cell, TextCell, run_cells, together
from rankscope.experiments.together import plan, run_together
from rankscope.sweep import RunFolder, locks, run_sweep
from rankscope.tasks import Cosine, FlipFlop
from rankscope.training import group_checkpoint

TASK = FlipFlop(duration=20)
EPOCHS = 12
CPU = torch.device("cpu")
OPTIONS = {"recorded_epochs": [0, 5], "batch_size": 4}


def cell(gain=0.9, sample=0, **changes):
    options = {"hidden_size": 12, "epochs": EPOCHS, "seed": 10 * sample + int(10 * gain), "training": OPTIONS}
    return Cell(TASK, gain=gain, sample=sample, measurements=("truncation",), **{**options, **changes})


CELLS = [cell(gain, sample) for gain in (0.0, 0.9) for sample in range(2)]
NOISY = cell(sample=2, network={"noise_std": 0.1})


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    """Measure in threads of this process: starting others is what takes the time."""
    with ThreadPoolExecutor(1) as executor:
        monkeypatch.setattr(together, "run_sweep", functools.partial(run_sweep, executor=executor))
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run in which each network was trained by itself."""
    folder = tmp_path_factory.mktemp("alone")
    with ThreadPoolExecutor(1) as executor:
        run_cells([*CELLS, NOISY], folder, executor=executor)
    return folder


def assert_same_results(folder, alone, cells=CELLS):
    for each in cells:
        found, expected = RunFolder(folder).read(each.digest), RunFolder(alone).read(each.digest)
        assert list(found.variables) == list(expected.variables)
        assert found.attrs.keys() == expected.attrs.keys()
        assert found.attrs["cell"] == expected.attrs["cell"]
        for name in ("loss", "singular_value_history", "truncation_loss", "change_norm"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def assert_tidy(folder):
    assert not list((folder / "checkpoints").iterdir())
    assert not list((folder / "claims").iterdir())


def stopping(monkeypatch, after, error=KeyboardInterrupt):
    """Interrupt the training of the first group after so many epochs; return a list of the sizes of all groups."""
    train_together, calls = together.train_together, []

    def interrupted(*arguments, progress, **options):
        calls.append(len(arguments[0]))
        first = len(calls) == 1

        def stop(done, total, loss):
            if first and done == after:
                raise error
            progress(done, total, loss)

        return train_together(*arguments, progress=stop, **options)

    monkeypatch.setattr(together, "train_together", interrupted)
    return calls


def test_what_can_be_trained_together():
    others = {
        "no noise": NOISY,
        "current convention": cell(network={"convention": "rate"}),
        "only one of its kind": cell(hidden_size=13),
        "no option matrices": cell(training={"matrices": ["recurrent_weights"]}),
        "not a rate network": TextCell(seed=3),
    }
    # Two noisy ones are of one kind, but not to be trained together.
    more = [replace(NOISY, seed=5), replace(others["current convention"], seed=5)]
    cosines = [Cell(Cosine(), gain=g, hidden_size=8, epochs=3) for g in (0.0, 0.5)]
    labelled = replace(CELLS[0], seed=99, labels={"arm": 3}, measurements=())
    found = plan([*CELLS, *others.values(), *more, *cosines, labelled])
    assert [set(map(id, kind)) for kind in found.kinds] == [{*map(id, CELLS), id(labelled)}, set(map(id, cosines))]
    assert set(found.alone) == {one.digest for one in (*others.values(), *more)}
    for message, one in others.items():
        assert message in found.alone[one.digest]


@pytest.mark.parametrize("most", [None, 2, 3])
def test_a_run_together_is_the_run_of_each_alone(tmp_path, alone, most, monkeypatch):
    calls = stopping(monkeypatch, 0)
    heard = []
    told = {"on_progress": lambda *seen: heard.append(seen)}
    report = run_together([*CELLS, NOISY, CELLS[0]], tmp_path, CPU, description={"a": 1}, most=most, **told)
    assert sorted(report.finished) == sorted(one.digest for one in [*CELLS, NOISY])
    assert report == replace(report, already_done=(), failed={}, elsewhere=(), set_aside=())
    assert calls == {None: [4], 2: [2, 2], 3: [2, 2]}[most]
    assert_same_results(tmp_path, alone, [*CELLS, NOISY])
    assert_tidy(tmp_path)
    assert {RunFolder(tmp_path).read(one.digest).attrs["device"] for one in CELLS} == {"cpu"}
    for index in range(4):
        shares = [done / total for i, done, total, _ in heard if i == index]
        assert 0 < shares[0] < 1 == shares[-1]
    again = run_together([*CELLS, NOISY], tmp_path, CPU)
    assert sorted(again.already_done) == sorted(report.finished)
    assert not again.finished
    assert len(rs.open_run(tmp_path)["gain"]) == 2


def test_interrupted_a_group_goes_on_bit_for_bit(tmp_path, alone, monkeypatch):
    run_together(CELLS, tmp_path / "whole", CPU)
    calls = stopping(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        run_together(CELLS, tmp_path / "stopped", CPU)
    left = sorted(path.suffix for path in (tmp_path / "stopped" / "checkpoints").iterdir())
    assert left == [".json", ".safetensors"]
    assert not list((tmp_path / "stopped" / "claims").iterdir())
    # Though by now more of them would fit, or fewer.
    run_together(CELLS, tmp_path / "stopped", CPU, most=2)
    assert calls == [4, 4]
    for each in CELLS:
        found, whole = (RunFolder(tmp_path / name).read(each.digest) for name in ("stopped", "whole"))
        for name in ("loss", "singular_value_history", "truncation_loss"):
            np.testing.assert_array_equal(found[name], whole[name])
    assert_same_results(tmp_path / "stopped", alone)
    assert_tidy(tmp_path / "stopped")


def test_begun_together_it_is_finished_one_by_one(tmp_path, alone, monkeypatch):
    stopping(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        run_together(CELLS, tmp_path, CPU)
    together.disband_groups(tmp_path, CELLS)
    paths = [RunFolder(tmp_path).checkpoint_path(each.digest) for each in CELLS]
    assert [group_checkpoint.standing(path)[:2] for path in paths] == [(7, "")] * 4
    with ThreadPoolExecutor(1) as executor:
        assert len(run_cells(CELLS, tmp_path, executor=executor).finished) == 4
    assert_same_results(tmp_path, alone)
    assert_tidy(tmp_path)


def test_begun_one_by_one_it_is_finished_together(tmp_path, alone, monkeypatch):
    store = RunFolder(tmp_path)
    store.prepare()

    def begin(each, epochs):
        def stop(done, *_):
            if done == epochs:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            each.measure(stop, store.checkpoint_path(each.digest))

    calls = stopping(monkeypatch, 0)
    for each, epochs in zip(CELLS, (6, 6, 8, EPOCHS), strict=True):
        begin(each, epochs)
    heard = []
    report = run_together(CELLS, tmp_path, CPU, on_progress=lambda *seen: heard.append(seen))
    assert min(done for index, done, total, _ in heard if index == 0 and total > 1) == 7
    assert len(report.finished) == 4
    assert calls == [2]  # the other two are not at one epoch with anybody
    assert_same_results(tmp_path, alone)
    assert_tidy(tmp_path)


def test_a_group_without_those_that_others_finished_or_hold(tmp_path, alone, monkeypatch):
    calls = stopping(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        run_together(CELLS, tmp_path, CPU)
    store = RunFolder(tmp_path)
    store.save(CELLS[0].digest, RunFolder(alone).read(CELLS[0].digest))
    release = locks.acquire(store.claim_path(CELLS[3].digest))
    monkeypatch.setattr(together, "_whole_report", lambda reports, last: (reports, last))
    finish = functools.partial(run_sweep, executor=ThreadPoolExecutor(1))

    def last_sweep(work, cells, folder, **options):
        if len(cells) == len(CELLS):
            release.release()  # as somebody does who gives up
        return finish(work, cells, folder, **options)

    monkeypatch.setattr(together, "run_sweep", last_sweep)
    run_together(CELLS, tmp_path, CPU)
    assert calls == [4, 2]
    assert_same_results(tmp_path, alone)
    assert_tidy(tmp_path)


def test_a_group_too_large_is_halved(tmp_path, alone, monkeypatch):
    train_together, sizes = together.train_together, []

    def cramped(networks, *arguments, **options):
        sizes.append(len(networks))
        if len(networks) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_together(networks, *arguments, **options)

    monkeypatch.setattr(together, "train_together", cramped)
    assert len(run_together(CELLS, tmp_path, CPU).finished) == 4
    assert sizes == [4, 2, 2]
    assert_same_results(tmp_path, alone)
    assert_tidy(tmp_path)


def test_as_many_as_fit(monkeypatch):
    one = together.bytes_of_one(together.initial_network(CELLS[0]), TASK.steps, 4)
    for memory, size in ((0, 1), (one / together.SHARE_OF_MEMORY * 3.5, 3)):
        monkeypatch.setattr(together, "free_bytes", lambda device, memory=memory: memory)
        assert together._group_size(CELLS[0], CPU) == size


def test_a_group_that_fails_is_left_to_the_sweep(tmp_path, alone, monkeypatch):
    calls = stopping(monkeypatch, 3, ZeroDivisionError("out of order"))
    assert len(run_together(CELLS, tmp_path, CPU).finished) == 4
    assert calls == [4]
    assert_same_results(tmp_path, alone)
    assert_tidy(tmp_path)
    broken = [cell(gain, training=OPTIONS | {"learning_rate": -1}) for gain in (0.0, 0.3)]
    report = run_together(broken, tmp_path / "broken", CPU)
    assert set(report.failed) == {one.digest for one in broken}
    assert all("learning_rate must be" in message for message in report.failed.values())
    # A failure stays one until it is to be tried again.
    assert set(run_together(broken, tmp_path / "broken", CPU).failed) == set(report.failed)
    assert set(run_together(broken, tmp_path / "broken", CPU, retry_failed=True).failed) == set(report.failed)
    assert_tidy(tmp_path / "broken")


@pytest.mark.parametrize("damage", [b"half of a file", None])
def test_a_damaged_checkpoint_of_a_group_is_set_aside(tmp_path, alone, monkeypatch, damage):
    calls = stopping(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        run_together(CELLS, tmp_path, CPU)
    (path,) = (tmp_path / "checkpoints").glob("*.safetensors")
    path.write_bytes(damage or path.read_bytes()[:-100])
    run_together(CELLS, tmp_path, CPU)
    assert calls == [4, 4, 4]
    assert len(list((tmp_path / "set-aside").glob("together-*.safetensors"))) == 1
    assert_same_results(tmp_path, alone)
    assert_tidy(tmp_path)


def test_an_interruption_ends_the_measuring(tmp_path, monkeypatch):
    started = []

    def slow(work, cells, folder, on_progress, **_):
        started.append(len(cells))
        while True:
            on_progress(0, 0, 1, 0.0)

    monkeypatch.setattr(together, "run_sweep", slow)
    stopping(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        run_together([*CELLS, NOISY], tmp_path, CPU)
    assert started == [1]


def test_what_is_wrong_is_said_before_any_work(tmp_path):
    for options in ({"device": "tpu"}, {"device": "cuda:99"}, {"device": "cpu", "workers": 0}):
        with pytest.raises(rs.InputError, match="must be"):
            run_cells(CELLS, tmp_path / "none", **options)
    with ThreadPoolExecutor(1) as executor, pytest.raises(rs.InputError, match="device must be None beside"):
        run_cells(CELLS, tmp_path / "none", device="cpu", executor=executor)
    assert not (tmp_path / "none").exists()


SWEEP = """
task: flipflop
hidden_size: 12
epochs: 3
batch_size: 4
grid:
  gain: [0.0, 0.9]
  noise_std: [0.0, 0.1]
samples: 2
"""


@pytest.mark.usefixtures("forked_workers")
def test_on_the_command_line(tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text(SWEEP)

    def call(*options):
        with pytest.raises(SystemExit) as stop:
            main(["run", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "run"), *options])
        return stop.value.code, capsys.readouterr()

    status, printed = call("--device", "cpu", "--json")
    assert status == 0
    counts = json.loads(printed.out)
    assert (counts["finished"], counts["device"]) == (8, "cpu")
    ((reason, number),) = counts["trained_one_by_one"].items()
    assert number == 4
    assert "no noise" in reason
    assert "4 trained on processes, not together on cpu: " in call("--device", "cpu")[1].out
    status, printed = call("--device", "gpu")
    assert status == 2
    assert printed.err.count("\n") == 1
    assert "device must be" in printed.err
