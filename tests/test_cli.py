"""Command line: train, demo, tasks; JSON, one-line errors with status 2, resuming after an interruption."""

import json
import signal
import time

import pytest

import rankscope as rs
from commands import call
from forking import Program
from rankscope.cli import main
from rankscope.io.dataset_file import open_dataset
from rankscope.sweep import Job

SMALL = ["--hidden-size", "16", "--epochs", "12"]


def test_train_stores_both_networks_and_what_was_measured(capsys, tmp_path):
    out = tmp_path / "one"
    status, printed, _ = call(capsys, "train", *SMALL, "--gain", "0.9", "--seed", "3", "--out", out, "--json")
    assert status == 0
    row = json.loads(printed)["networks"][0]
    assert sorted(path.name for path in out.iterdir()) == ["measurements.safetensors", "network.safetensors"]
    after = rs.RateRNN.load(out / "network.safetensors")
    before = rs.RateRNN.load(out / "network.safetensors", initial=True)
    assert rs.change(before, after).norm == pytest.approx(row["change_norm"], rel=1e-12)
    same = Job(task="flipflop", network={"hidden_size": 16, "gain": 0.9}, training={"epochs": 12}, seed=3).run()
    assert float(same.measurements["change_norm"]) == row["change_norm"]
    # The folder of one job is not mistaken for a run without results.
    for read in (rs.open_run, rs.load_networks, lambda folder: rs.measure_run(folder, ["norms"])):
        with pytest.raises(rs.InputError, match="holds one job, not a run; open its network with RateRNN"):
            read(out)
    assert "holds one job, not a run" in call(capsys, "status", out)[2]


def test_train_from_a_file_whose_options_are_replaced_by_those_given(capsys, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("{task: romo, network: {hidden_size: 8, dale: 0.8}, epochs: 9, penalties: {rates_l2: 1e-3}}")
    out = tmp_path / "out"
    status, _, _ = call(capsys, "train", "--config", file, "--epochs", "2", "--out", out, "--json")
    assert status == 0
    job = json.loads(open_dataset(out / "measurements.safetensors").metadata["job"])
    assert (job["task"]["name"], job["network"]["dale"], job["training"]["epochs"]) == ("romo", 0.8, 2)
    assert job["training"]["penalties"] == [{"name": "rates_l2", "strength": 0.001}]
    file.write_text("{task: romo, grid: {gain: [0.1, 0.2]}}")
    status, _, error = call(capsys, "train", "--config", file, "--out", out)
    assert (status, "got grid: run a sweep with rankscope run" in error) == (2, True)


def test_options_of_task_network_and_training(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import rankscope as rs\n\n"
        "from dataclasses import dataclass\n\n"
        "@dataclass(frozen=True)\n"
        "class Longer:\n"
        "    duration: float = 20\n\n"
        "    def sample(self, batch_size, rng):\n"
        "        return rs.tasks.FlipFlop(duration=self.duration).sample(batch_size, rng)\n\n"
        "def make(task, rng, hidden_size=8):\n"
        "    return rs.GatedRNN.initialize(task, kind='lstm', hidden_size=hidden_size, rng=rng)\n"
    )
    for number, options in enumerate(
        (
            ["--task", "romo", "--set", "delay_max=4", "--set", "nonlinearity=relu", "--set", "training.clip_norm=1"],
            ["--kind", "gru", "--set", "num_layers=2", "--measure", "norms"],
            ["--task", f"{tmp_path}/mine.py:Longer", "--set", "duration=15", "--set", "trained=[recurrent]"],
            ["--kind", f"{tmp_path}/mine.py:make", "--set", "recorded_epochs=[0, 11]"],
        )
    ):
        status, out, err = call(capsys, "train", *SMALL, *options, "--out", tmp_path / str(number), "--json")
        assert status == 0, err
        assert json.loads(out)["networks"][0]["change_norm"] > 0


def test_results_are_not_replaced_unless_told(capsys, tmp_path):
    arguments = ["train", *SMALL, "--out", tmp_path]
    assert call(capsys, *arguments)[0] == 0
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "--overwrite" in err
    assert call(capsys, *arguments, "--overwrite")[0] == 0


def test_tasks_are_listed_with_their_parameters(capsys):
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
        (["train", "--kind", "gur"], ["'gur'", "'gru'"]),
        (["train", "--gain", "-1"], ["gain", ">= 0", "-1"]),
        (["train", "--gain", "strong"], ["--gain", "strong"]),
        (["train", "--hidden-size", "0"], ["hidden_size", ">= 1", "0"]),
        (["train", "--epochs", "1.5"], ["--epochs", "1.5"]),
        (["train", "--seed", "-3"], ["seed", ">= 0", "-3"]),
        (["train", "--learning-rate", "0"], ["learning_rate", "> 0", "0"]),
        (["train", "--optimizer", "adamm"], ["'adamm'", "'adam'"]),
        (["train", "--set", "nonlinearity=tan"], ["'tan'", "'tanh'"]),
        (["train", "--set", "trained=[input, recurent]"], ["'recurent'", "'recurrent'"]),
        (["train", "--set", "pulse"], ["--set", "'pulse'"]),
        (["train", "--set", "puls=1"], ["'puls'", "'pulse'"]),
        (["train", "--set", "pulse=100"], ["pulse", "100"]),
        (["train", "--set", "trained=[a"], ["--set", "[a"]),
        (["train", "--measure", "norm"], ["'norm'", "'norms'"]),
        (["trian"], ["trian"]),
        (["train", "--gian", "1"], ["--gian"]),
        (["demo", "--workers", "0"], ["workers", ">= 1", "0"]),
        (["measure", "--add", "norms"], ["run"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, tmp_path, arguments, named):
    if arguments[0] in ("train", "demo"):
        arguments = [*arguments, "--out", tmp_path / "out"]
    status, out, err = call(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("rankscope: ")
    for text in named:
        assert text in err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_missing_option_or_an_impossible_folder_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for arguments in (["train"], ["train", *SMALL, "--out", tmp_path / "file" / "out"]):
        status, _, err = call(capsys, *arguments)
        assert status == 2
        assert err.count("\n") == 1


LONG = ["train", "--hidden-size", "32", "--epochs", "800", "--seed", "1", "--out"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.raises(SystemExit) as stop:
        main([*LONG, str(folder / "out")])
    assert stop.value.code == 0
    return folder / "out"


def train_watched(begun, arguments):
    """Run the command, and create the file `begun` after a quarter of the epochs."""
    run = Job.run

    def watched(self, progress=None, checkpoint=None):
        def report(done, total, loss):
            if done == total // 4:
                begun.touch()
            if done >= total // 4:
                time.sleep(0.002)  # the signal arrives before the end
            progress(done, total, loss)

        return run(self, report, checkpoint)

    Job.run = watched
    main(arguments)


def interrupted(folder, how):
    """Interrupt a training; return its exit status, its errors and its folder."""
    for number in range(5):  # on a busy machine the signal may arrive after the training
        out, begun = folder / str(number), folder / f"{number} begun"
        program = Program(folder, train_watched, begun, [*LONG, str(out)])
        program.wait_for(begun)
        program.send_signal(how)
        errors = program.communicate()[1]
        if program.returncode != 0 and list(out.iterdir()):
            return program.returncode, errors, out
    raise AssertionError("always too late")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_resumes_bit_for_bit(capsys, tmp_path, how, undisturbed):
    status, errors, out = interrupted(tmp_path, how)
    assert status == 128 + how, errors
    assert errors.count("\n") <= 1
    (left,) = (path.name for path in out.iterdir())
    assert left.startswith("state-")
    assert call(capsys, *LONG, out)[0] == 0
    for initial in (True, False):
        a, b = (rs.RateRNN.load(folder / "network.safetensors", initial=initial) for folder in (undisturbed, out))
        assert rs.change(a, b).norm == 0
