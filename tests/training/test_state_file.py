"""An interrupted training continues bit for bit: weights, optimizer, randomness and records."""

import signal
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors import safe_open

import rankscope as rs
from forking import Program
from rankscope.errors import InputError
from rankscope.io import atomic
from rankscope.tasks import FlipFlop
from rankscope.training.optimizers import OPTIMIZERS

TASK = FlipFlop(duration=12)
EPOCHS = 5
OPTIONS = {
    "batch_size": 3,
    "recorded_epochs": [0, 2, 3],
    "record_weights": True,
    "singular_values": 4,
    "eigenvalues": 3,
}


def network(noise_std=0.1, size=8, **options):
    return rs.RateRNN.initialize(TASK, hidden_size=size, rng=0, noise_std=noise_std, **options)


def fresh(kind=np.random.PCG64):
    return np.random.Generator(kind(7))


def run(path, net=None, task=TASK, epochs=EPOCHS, rng=None, **options):
    return rs.train(net or network(), task, epochs, rng or fresh(), checkpoint=path, **{**OPTIONS, **options})


def contents(path):
    """Everything in the file that has to be equal: all but the time it took, and the checksum over that."""
    with safe_open(path, framework="np") as file:
        metadata = {name: text for name, text in file.metadata().items() if name not in ("seconds", "header_sha256")}
        return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_same_training(path, history, whole_path, whole):
    assert history.status == whole.status
    for name in ("losses", "gradient_norms", "recorded_epochs", "singular_values", "eigenvalues", "weights"):
        np.testing.assert_array_equal(getattr(history, name), getattr(whole, name), err_msg=name)
    metadata, tensors = contents(path)
    expected_metadata, expected = contents(whole_path)
    assert metadata == expected_metadata
    assert tensors.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(tensors[name], values, err_msg=name)


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole"
    return path, run(path)


def test_what_is_in_the_file(whole):
    path, history = whole
    metadata, tensors = contents(path)
    assert metadata["epoch"] == str(EPOCHS)
    assert metadata["status"] == "finished"
    np.testing.assert_array_equal(tensors["losses"], history.losses)
    assert Counter(name.split(".")[0] for name in tensors)["optimizer"] == 9  # three weights, three numbers of Adam
    assert {
        f"{name}.recurrent_weights" for name in ("initial", "singular_values", "eigenvalues", "weights", "network")
    } <= tensors.keys()


class Stopping:
    """The task, which is interrupted at one sample, before or after it has drawn."""

    def __init__(self, at, drawn):
        self.left, self.drawn = at, drawn

    def sample(self, batch_size, rng):
        self.left -= 1
        if self.left < 0 and not self.drawn:
            raise KeyboardInterrupt
        trials = TASK.sample(batch_size, rng)
        if self.left < 0:
            raise KeyboardInterrupt
        return trials


@pytest.mark.parametrize(
    ("kind", "optimizer", "drawn"),
    [
        (np.random.PCG64, "adam", False),
        (np.random.MT19937, "sgd", True),
        (np.random.Philox, "adamw", False),
        (np.random.SFC64, "rmsprop", True),
    ],
)
def test_continues_after_an_interruption_in_the_task(tmp_path, kind, optimizer, drawn):
    options = {"optimizer": optimizer, "learning_rate": 0.02}
    expected = run(tmp_path / "whole", rng=fresh(kind), **options)
    for stops in ([0], [1], [EPOCHS - 1], [2, 1, 1]):
        path = tmp_path / f"stopped{stops}"
        for at in stops:
            with pytest.raises(KeyboardInterrupt):
                run(path, task=Stopping(at, drawn), rng=fresh(kind), **options)
        # the state of the given generator has no influence
        rng = fresh(kind)
        rng.normal(size=3)
        history = run(path, rng=rng, **options)
        assert_same_training(path, history, tmp_path / "whole", expected)


@pytest.mark.parametrize("dtype", [torch.float64])
@pytest.mark.parametrize("optimizer", sorted({*OPTIMIZERS} - {"muon"}))
def test_every_named_optimizer_continues(tmp_path, optimizer, dtype):
    options = {"optimizer": optimizer, "learning_rate": 0.02}
    expected = run(tmp_path / "whole", network(dtype=dtype), epochs=6, **options)
    for epochs in (4, 5, 6):
        history = run(tmp_path / "stopped", network(dtype=dtype), epochs=epochs, **options)
    assert_same_training(tmp_path / "stopped", history, tmp_path / "whole", expected)


@pytest.mark.parametrize("at", [1, 2, EPOCHS])
def test_continues_after_an_error_in_progress(tmp_path, whole, at):
    def failing(done, total, loss):
        if done == at:
            raise RuntimeError("the disk of the callback is full")

    path = tmp_path / "stopped"
    with pytest.raises(RuntimeError, match="callback is full"):
        run(path, progress=failing)
    assert contents(path)[0]["epoch"] == str(at)
    assert_same_training(path, run(path), *whole)


@pytest.mark.parametrize("engine", ["fused", "plain"])
@pytest.mark.parametrize("at", [0, 3])
def test_continues_after_an_interruption_of_the_backward_pass(tmp_path, at, engine):
    def watched():
        net = network(engine=engine)
        net.recurrent_weights.register_hook(lambda gradient: None)
        return net

    expected = run(tmp_path / "whole", net=watched())
    net, calls = network(engine=engine), []

    def interrupt(gradient):
        calls.append(1)
        if len(calls) > at:
            raise KeyboardInterrupt

    net.recurrent_weights.register_hook(interrupt)
    path = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        run(path, net=net)
    assert_same_training(path, run(path, net=watched()), tmp_path / "whole", expected)


def interrupted_at_line(count, call):
    """Run `call`, with Ctrl-C before the `count`-th line of rankscope/training; return whether it got there."""
    seen = 0

    def enter(frame, event, _):
        # pydantic turns an interruption inside a validator or serializer into an error of its own
        file = frame.f_code.co_filename
        return step if "/rankscope/training/" in file and not file.endswith("config.py") else None

    def step(frame, event, _):
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == count:
                raise KeyboardInterrupt
        return step

    previous = sys.gettrace()
    sys.settrace(enter)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(previous)
    return False


@pytest.mark.parametrize(("every", "stride"), [(0, 11), (60, 11)])
def test_ctrl_c_before_any_line_loses_nothing(tmp_path, every, stride):
    options = {"epochs": 2, "recorded_epochs": [1], "checkpoint_seconds": every}
    expected = run(tmp_path / "whole", **options)
    stopped_with_a_file = 0
    for line in range(1, 2000, stride):
        path = tmp_path / f"stopped{line}"
        if not interrupted_at_line(line, lambda path=path: run(path, **options)):
            break
        stopped_with_a_file += path.exists()
        history = run(path, **options)
        assert_same_training(path, history, tmp_path / "whole", expected)
    else:
        pytest.fail("the training never got to its end")
    assert stopped_with_a_file > 20


def test_longer_than_at_first(tmp_path, whole):
    path = tmp_path / "grown"
    for epochs in (4, 4, EPOCHS):
        history = run(path, epochs=epochs)
        assert (history.epochs, history.status) == (epochs, "finished")
    assert_same_training(path, history, *whole)


def test_a_finished_training_is_read_not_repeated(tmp_path, whole):
    path, expected = whole
    net = network()
    history = run(path, net=net, task=Stopping(0, drawn=False))
    assert_same_training(path, history, path, expected)
    assert history.seconds == expected.seconds
    torch.testing.assert_close(net.recurrent_weights.detach().numpy(), contents(path)[1]["network.recurrent_weights"])


@pytest.mark.parametrize("kind", [list, iter])
def test_an_iterable_goes_on_where_it_was(tmp_path, kind):
    rng = np.random.default_rng(0)
    batches = [TASK.sample(3, rng) for _ in range(EPOCHS)]
    expected = run(tmp_path / "whole", task=kind(batches), epochs=None)
    path = tmp_path / "stopped"
    if kind is list:
        run(path, task=batches, epochs=4)
        with pytest.raises(InputError, match="content of the trials = "):
            run(path, task=batches[::-1], epochs=EPOCHS)
    else:
        with pytest.warns(UserWarning, match="ended after 4 of"):
            short = run(path, task=iter(batches[:4]), epochs=EPOCHS)
        assert (short.epochs, short.status) == (4, "exhausted")
    history = run(path, task=kind(batches), epochs=None)
    assert_same_training(path, history, tmp_path / "whole", expected)


@pytest.mark.parametrize(
    ("reason", "options"),
    [("stopped", {"stop_below": 2.0}), ("diverged", {"optimizer": "sgd", "learning_rate": 1e30})],
)
def test_stopped_and_diverged_trainings_do_not_continue(tmp_path, reason, options):
    path = tmp_path / "ended"
    expected = run(path, **options)
    assert expected.status == reason
    assert expected.epochs < EPOCHS
    assert_same_training(path, run(path, **options), path, expected)


def test_time_between_two_saves(tmp_path):
    epochs = {0: [], 60: []}
    for every, found in epochs.items():
        path = tmp_path / str(every)

        def read(done, total, loss, path=path, found=found):
            found.append(int(contents(path)[0]["epoch"]) if path.exists() else None)

        run(path, checkpoint_seconds=every, progress=read)
    assert epochs == {0: [1, 2, 3, 4, 5], 60: [None] * 5}


def test_a_write_that_fails_leaves_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "stopped"
    run(path, epochs=4)
    content = path.read_bytes()

    def full(path):
        raise OSError("no space left")

    monkeypatch.setattr(atomic, "force_to_disk", full)
    with pytest.raises(OSError, match="no space left"):
        run(path)
    assert path.read_bytes() == content
    assert [left.name for left in tmp_path.iterdir()] == ["stopped"]


def train_without_end(run, path, begun):
    """Train, and make a file named `begun` after six epochs."""
    torch.set_num_threads(1)

    def report(done, *_):
        if done == 6:
            begun.touch()

    run(path, epochs=10**6, checkpoint_seconds=0, progress=report)


def kill_in_training(run, path):
    """Have `run` train in a process of its own, and kill it after six epochs."""
    begun = path.with_name("begun")
    program = Program(path.parent, train_without_end, run, path, begun)
    program.wait_for(begun)
    program.kill()
    errors = program.communicate()[1]
    assert program.returncode == -signal.SIGKILL, errors


def test_a_training_continues_after_its_process_was_killed(tmp_path):
    path = tmp_path / "killed"
    kill_in_training(run, path)
    reached = int(contents(path)[0]["epoch"])
    assert reached >= 6
    history = run(path, epochs=reached + 3)
    assert_same_training(path, history, tmp_path / "whole", run(tmp_path / "whole", epochs=reached + 3))
