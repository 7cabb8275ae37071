"""Networks that train together and were stopped anywhere go on bit for bit, together or one by one."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from test_state_file import interrupted_at_line, kill_in_training

import rankscope as rs
from rankscope.training import group_checkpoint, together
from rankscope.training.together import train_together

TASK = rs.tasks.FlipFlop(duration=12)
EPOCHS = 5
OPTIONS = {
    "batch_size": 3,
    "recorded_epochs": [0, 2, 3],
    "record_weights": True,
    "singular_values": 4,
    "eigenvalues": 2,
}
SEEDS = (7, 8, 9)


def networks(**options):
    return [rs.RateRNN.initialize(TASK, hidden_size=8, gain=0.5 * s, rng=s, **options) for s in range(3)]


def run(path, nets=None, task=TASK, epochs=EPOCHS, rngs=SEEDS, **options):
    return train_together(nets or networks(), task, epochs, list(rngs), checkpoint=path, **{**OPTIONS, **options})


def contents(path):
    """Everything in the file that has to be equal: all but the time it took."""
    with safe_open(path, framework="np") as file:
        metadata = {name: json.loads(text) for name, text in file.metadata().items() if name != "format"}
        for each in metadata["each"]:
            del each["seconds"]
        return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_same_training(path, histories, whole_path, whole):
    for history, expected in zip(histories, whole, strict=True):
        assert history.status == expected.status
        for name in ("losses", "gradient_norms", "recorded_epochs", "singular_values", "eigenvalues", "weights"):
            np.testing.assert_array_equal(getattr(history, name), getattr(expected, name), err_msg=name)
    metadata, tensors = contents(path)
    expected_metadata, expected = contents(whole_path)
    assert metadata == expected_metadata
    assert tensors.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(tensors[name], values, err_msg=name)


@pytest.fixture
def whole(tmp_path):
    return tmp_path / "whole", run(tmp_path / "whole")


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


@pytest.fixture(params=[False, True], ids=["at once", "beside"])
def beside(request, monkeypatch):
    """As on a graphics card: trials are drawn ahead in a thread, weights looked at in others, losses heard of late."""
    if request.param:
        monkeypatch.setitem(together.BESIDE, "cpu", True)
        monkeypatch.setitem(together.HEARD_EVERY, "cpu", 3)


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("drawn", [False, True])
def test_goes_on_after_an_interruption_in_the_task(tmp_path, optimizer, drawn):
    options = {"optimizer": optimizer, "learning_rate": 0.02}
    expected = run(tmp_path / "whole", **options)
    for stops in ([0], [4], [5], [14], [7, 4, 1]):
        path = tmp_path / f"stopped{stops}"
        for at in stops:
            with pytest.raises(KeyboardInterrupt):
                run(path, task=Stopping(at, drawn), **options)
        # the state of the generators given does not matter any more
        rngs = [np.random.default_rng(seed) for seed in SEEDS]
        for rng in rngs:
            rng.normal(size=3)
        assert_same_training(path, run(path, rngs=rngs, **options), tmp_path / "whole", expected)


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("at", [1, 3, EPOCHS])
def test_goes_on_after_an_error_in_progress(tmp_path, whole, at):
    def failing(done, total, loss):
        if done == at:
            raise RuntimeError("the disk of the callback is full")

    path = tmp_path / "stopped"
    with pytest.raises(RuntimeError, match="callback is full"):
        run(path, progress=failing)
    assert_same_training(path, run(path), *whole)


@pytest.mark.parametrize(("every", "stride"), [(0, 61), (60, 23)])
def test_ctrl_c_before_any_line_costs_nothing(tmp_path, every, stride):
    options = {"epochs": 2, "recorded_epochs": [1], "checkpoint_seconds": every}
    expected = run(tmp_path / "whole", **options)
    stopped_with_a_file = 0
    for line in range(1, 5000, stride):
        path = tmp_path / f"stopped{line}"
        if not interrupted_at_line(line, lambda path=path: run(path, **options)):
            break
        stopped_with_a_file += path.exists()
        assert_same_training(path, run(path, **options), tmp_path / "whole", expected)
    else:
        pytest.fail("the training never got to its end")
    assert stopped_with_a_file > 4


def test_a_killed_process_leaves_a_file_to_go_on_from(tmp_path):
    path = tmp_path / "killed"
    kill_in_training(run, path)
    reached = int(contents(path)[0]["each"][0]["epoch"])
    assert reached >= 5
    whole = run(tmp_path / "whole", epochs=reached + 3)
    assert_same_training(path, run(path, epochs=reached + 3), tmp_path / "whole", whole)


def test_longer_than_at_first(tmp_path, whole):
    path = tmp_path / "grown"
    for epochs in (4, 4, EPOCHS):
        assert [(h.epochs, h.status) for h in run(path, epochs=epochs)] == [(epochs, "finished")] * 3
    assert_same_training(path, run(path), *whole)


def test_a_finished_training_is_read_not_repeated(whole):
    path, expected = whole
    nets = networks()
    histories = run(path, nets=nets, task=Stopping(0, drawn=False))
    assert_same_training(path, histories, path, expected)
    for e, net in enumerate(nets):
        np.testing.assert_array_equal(
            net.recurrent_weights.detach().numpy(), contents(path)[1][f"{e}/network.recurrent_weights"]
        )


def test_one_that_ended_stays_ended_and_the_others_go_on(tmp_path):
    nets = networks()
    with torch.no_grad():
        nets[1].output_weights *= 1e25
    wild = {name: weights.clone() for name, weights in nets[1].state_dict().items()}
    options = {"optimizer": "sgd", "learning_rate": 0.02}

    def begun():
        begun = networks()
        begun[1].load_state_dict(wild)
        return begun

    expected = run(tmp_path / "whole", nets=begun(), **options)
    path = tmp_path / "stopped"
    run(path, nets=begun(), epochs=4, **options)
    histories = run(path, nets=begun(), **options)
    assert [history.status for history in histories] == ["finished", "diverged", "finished"]
    assert histories[1].epochs == 1
    assert_same_training(path, histories, tmp_path / "whole", expected)


def test_each_is_taken_out_as_it_would_have_been_alone(tmp_path, whole):
    path, expected = whole
    group_checkpoint.take_out(path, {e: tmp_path / f"{e}" for e in range(3)})
    for e, history in enumerate(expected):
        standing = group_checkpoint.standing(tmp_path / f"{e}")
        assert (standing.epoch, standing.status, standing.notes) == (EPOCHS, "finished", {"device": "cpu"})
        net, alone = networks()[e], networks()[e]
        read = rs.train(net, TASK, EPOCHS, 0, checkpoint=tmp_path / f"{e}", **OPTIONS)
        np.testing.assert_array_equal(read.losses, history.losses)
        np.testing.assert_array_equal(read.weights, history.weights)
        longer = rs.train(net, TASK, EPOCHS + 3, 0, checkpoint=tmp_path / f"{e}", **OPTIONS)
        from_the_start = rs.train(alone, TASK, EPOCHS + 3, SEEDS[e], **OPTIONS)
        np.testing.assert_allclose(longer.losses, from_the_start.losses, rtol=2e-5)
        torch.testing.assert_close(net.recurrent_weights, alone.recurrent_weights, rtol=1e-4, atol=2e-5)


def test_begun_one_by_one_they_go_on_together(tmp_path, whole):
    _, expected = whole
    for e, net in enumerate(networks()):
        rs.train(net, TASK, 4, SEEDS[e], checkpoint=tmp_path / f"{e}", **OPTIONS)
    group_checkpoint.put_together(tmp_path / "all", [tmp_path / f"{e}" for e in range(3)])
    for history, other in zip(run(tmp_path / "all"), expected, strict=True):
        np.testing.assert_allclose(history.losses, other.losses, rtol=2e-5)
        np.testing.assert_allclose(history.weights, other.weights, rtol=1e-4, atol=2e-5)
    rs.train(networks()[0], TASK, 5, SEEDS[0], checkpoint=tmp_path / "0", **OPTIONS)
    group_checkpoint.put_together(tmp_path / "uneven", [tmp_path / f"{e}" for e in range(3)])
    with pytest.raises(rs.InputError, match="networks at one epoch, got some at 4 and 5"):
        run(tmp_path / "uneven", epochs=6)


def test_what_is_not_its_checkpoint_is_refused_and_changes_nothing(tmp_path, whole):
    path, _ = whole
    others = [*networks()[:2], networks()[1]]
    before = [net.snapshot() for net in others]
    for message, options in {
        "got other recurrent_weights": {"nets": others},
        "holds 3 networks that train together, not 2": {"nets": networks()[:2], "rngs": SEEDS[:2]},
        "learning_rate = 0.00625, not 0.5": {"learning_rate": 0.5},
        "epochs must be >= 5": {"epochs": 4},
    }.items():
        with pytest.raises(rs.InputError, match=message):
            run(path, **options)
    for net, was in zip(others, before, strict=True):
        torch.testing.assert_close(net.recurrent_weights, was.recurrent_weights, rtol=0, atol=0)
    rs.train(networks()[0], TASK, 3, 0, checkpoint=tmp_path / "alone")
    with pytest.raises(rs.InputError, match="not one of ours"):
        run(tmp_path / "alone")
    (tmp_path / "half").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(rs.InputError, match="not a readable safetensors file"):
        run(tmp_path / "half")
    assert group_checkpoint.standing(tmp_path / "half") is None
    assert group_checkpoint.notes_in(tmp_path / "half") == group_checkpoint.notes_in(tmp_path / "none") == {}
