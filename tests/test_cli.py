"""The command line: results, JSON, one-line errors with status 2, and going on after an interruption."""

import json
import signal
import time

import pytest

import rankscope as rs
from forking import Program
from rankscope import sweep
from rankscope.cli import main
from rankscope.io.dataset_file import open_dataset

SMALL = ["--hidden-size", "16", "--epochs", "12"]


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_train_writes_measurements_and_a_network_that_is_the_same_function(capsys, tmp_path):
    out = tmp_path / "one"
    status, printed, _ = call(
        capsys, "train", "--task", "flipflop", "--gain", "0.9", *SMALL, "--out", str(out), "--json"
    )
    assert status == 0
    row = json.loads(printed)["networks"][0]
    measured = open_dataset(out / "measurements.safetensors").load()
    assert measured["change_norm"].item() == row["change_norm"]
    assert measured["loss"].sizes == {"epoch": 12}
    assert measured["example_output"].dims == ("step", "output_channel")
    after = rs.RateRNN.load(out / "network.safetensors")
    before = rs.RateRNN.load(out / "network.safetensors", initial=True)
    assert rs.lowrank.change(before, after).norm == pytest.approx(row["change_norm"], rel=1e-12)
    assert sorted(path.name for path in out.iterdir()) == ["measurements.safetensors", "network.safetensors"]


def test_the_same_seed_gives_the_same_results_and_another_seed_others(capsys, tmp_path):
    rows = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        call(capsys, "train", *SMALL, "--seed", seed, "--out", str(tmp_path / name))
        rows.append(open_dataset(tmp_path / name / "measurements.safetensors").array("loss").tolist())
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_results_are_not_replaced_unasked(capsys, tmp_path):
    arguments = ["train", *SMALL, "--out", str(tmp_path)]
    assert call(capsys, *arguments)[0] == 0
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "--overwrite" in err
    assert call(capsys, *arguments, "--overwrite")[0] == 0


@pytest.mark.usefixtures("forked_workers")
def test_demo_writes_table_figure_and_data(capsys, tmp_path):
    status, out, err = call(capsys, "demo", *SMALL, "--out", str(tmp_path), "--workers", "2")
    assert status == 0
    assert err == ""  # no progress bars where nobody watches
    assert "functional rank" in out
    assert (tmp_path / "flipflop.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "flipflop.pdf").read_bytes().startswith(b"%PDF")
    assert rs.open_run(tmp_path)["gain"].values.tolist() == [0.0, 0.9]


def test_tasks_lists_every_task_with_its_parameters(capsys):
    listed = json.loads(call(capsys, "tasks", "--json")[1])
    assert set(listed) == set(rs.tasks.TASKS)
    assert listed["romo"]["parameters"]["delay_max"] == 8.0
    table = call(capsys, "tasks")[1]
    assert all(name in table for name in rs.tasks.TASKS)


def test_version(capsys):
    assert call(capsys, "--version")[1] == f"rankscope {rs.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--task", "flipflip"], ["'flipflip'", "'flipflop'"]),
        (["train", "--gain", "-1"], ["gain", ">= 0", "-1"]),
        (["train", "--gain", "strong"], ["--gain", "strong"]),
        (["train", "--hidden-size", "0"], ["hidden_size", ">= 1", "0"]),
        (["train", "--epochs", "0"], ["epochs", ">= 1", "0"]),
        (["train", "--epochs", "1.5"], ["--epochs", "1.5"]),
        (["train", "--seed", "-3"], ["seed", ">= 0", "-3"]),
        (["train", "--learning-rate", "0"], ["learning_rate", "> 0", "0"]),
        (["train", "--optimizer", "adamm"], ["'adamm'", "'adam'"]),
        (["train", "--nonlinearity", "tan"], ["'tan'", "'tanh'"]),
        (["train", "--convention", "voltage"], ["convention", "'voltage'"]),
        (["train", "--trained", "input,recurent"], ["'recurent'", "'recurrent'"]),
        (["train", "--batch-size", "0"], ["batch_size", ">= 1"]),
        (["train", "--set", "pulse"], ["--set", "'pulse'"]),
        (["train", "--set", "puls=1"], ["'puls'", "'pulse'"]),
        (["train", "--set", "pulse=100"], ["pulse", "100"]),
        (["train", "--set", "dt=0"], ["dt", "0"]),
        (["train", "--noise-std", "nan"], ["noise_std", "nan"]),
        (["trian"], ["trian"]),
        (["train", "--gian", "1"], ["--gian"]),
        (["demo", "--workers", "0"], ["workers", ">= 1", "0"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, tmp_path, arguments, named):
    if arguments[0] in ("train", "demo"):
        arguments = [*arguments, "--out", str(tmp_path / "out")]
    status, out, err = call(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("rankscope: ")
    for text in named:
        assert text in err
    assert not list(tmp_path.rglob("*.nc"))


def test_a_missing_option_is_one_line(capsys):
    status, _, err = call(capsys, "train")
    assert status == 2
    assert "--out" in err
    assert err.count("\n") == 1


def test_a_folder_that_cannot_be_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, _, err = call(capsys, "train", *SMALL, "--out", str(tmp_path / "file" / "out"))
    assert status == 2
    assert err.count("\n") == 1


LONG = ["train", "--hidden-size", "32", "--epochs", "2000", "--seed", "1", "--out"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What a training measured that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    with pytest.raises(SystemExit) as stop:
        main([*LONG, str(folder / "out")])
    assert stop.value.code == 0
    return folder / "out" / "measurements.safetensors"


def train_watched(begun, arguments):
    """The command, which makes a file named `begun` after a quarter of the epochs."""
    run_into = sweep.run_into

    def watched(one, out, progress, overwrite):
        def report(done, total, loss):
            if done == total // 4:
                begun.touch()
            if done >= total // 4:
                time.sleep(0.002)  # for the signal to come in time
            progress(done, total, loss)

        return run_into(one, out, report, overwrite)

    sweep.run_into = watched
    main(arguments)


def interrupted(folder, how):
    """Interrupt a training in its midst; return its exit status, what it said, and where it was to write."""
    for number in range(5):  # where we come after the training, on a machine that is very busy, it does not count
        out, begun = folder / str(number), folder / f"{number} begun"
        program = Program(folder, train_watched, begun, [*LONG, str(out)])
        program.wait_for(begun)
        program.send_signal(how)
        errors = program.communicate()[1]
        if program.returncode != 0 and list(out.iterdir()):
            return program.returncode, errors, out
    raise AssertionError("always too late")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_goes_on_bit_for_bit(capsys, tmp_path, how, straight):
    status, errors, out = interrupted(tmp_path, how)
    assert status == 128 + how, errors
    assert errors.count("\n") <= 1
    (left,) = (path.name for path in out.iterdir())
    assert left.startswith("state-")
    assert call(capsys, *LONG, str(out))[0] == 0
    expected, found = (open_dataset(path).load() for path in (straight, out / "measurements.safetensors"))
    assert found.drop_attrs().identical(expected.drop_attrs())
