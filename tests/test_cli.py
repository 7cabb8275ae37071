"""The command line: results, JSON, one-line errors with status 2, and going on after an interruption."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import xarray as xr

import rankscope as rs
from rankscope.cli import main

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
    with xr.open_dataset(out / "measurements.nc", engine="h5netcdf") as measured:
        assert measured["change_norm"].item() == row["change_norm"]
        assert measured["loss"].sizes == {"epoch": 12}
        assert measured["example_output"].dims == ("step", "output_channel")
    after = rs.RateRNN.load(out / "network.safetensors")
    before = rs.RateRNN.load(out / "network.safetensors", initial=True)
    assert rs.analysis.change(before, after).norm == pytest.approx(row["change_norm"], rel=1e-12)
    assert sorted(path.name for path in out.iterdir()) == ["measurements.nc", "network.safetensors"]


def test_the_same_seed_gives_the_same_results_and_another_seed_others(capsys, tmp_path):
    rows = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        call(capsys, "train", *SMALL, "--seed", seed, "--out", str(tmp_path / name))
        with xr.open_dataset(tmp_path / name / "measurements.nc", engine="h5netcdf") as measured:
            rows.append(measured["loss"].values.tolist())
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_results_are_not_replaced_unasked(capsys, tmp_path):
    arguments = ["train", *SMALL, "--out", str(tmp_path)]
    assert call(capsys, *arguments)[0] == 0
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "--overwrite" in err
    assert call(capsys, *arguments, "--overwrite")[0] == 0


def test_demo_writes_table_figure_and_data(capsys, tmp_path):
    status, out, err = call(capsys, "demo", *SMALL, "--out", str(tmp_path), "--workers", "2")
    assert status == 0
    assert err == ""  # no progress bars where nobody watches
    assert "functional rank" in out
    assert (tmp_path / "flipflop.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "flipflop.pdf").read_bytes().startswith(b"%PDF")
    with xr.open_dataset(tmp_path / "demo.nc", engine="h5netcdf") as measured:
        assert measured["gain"].values.tolist() == [0.0, 0.9]


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
        (["train", "--optimiser", "adamm"], ["'adamm'", "'adam'"]),
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


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_goes_on_bit_for_bit(tmp_path, how):
    arguments = ["train", "--hidden-size", "32", "--epochs", "5000", "--seed", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    # A shell has what it starts in the background ignore Ctrl-C, the tests as well.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heeding}; from rankscope.cli import main; main()"

    def start(out):
        command = [sys.executable, "-c", code, *arguments, "--out", str(out)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    straight = start(tmp_path / "straight")
    interrupted = start(tmp_path / "interrupted")
    # Training has begun once its folder is there; a moment later it is in the midst of it.
    while not (tmp_path / "interrupted").exists():
        assert interrupted.poll() is None, interrupted.stderr.read()
        time.sleep(0.01)
    time.sleep(1.0)
    interrupted.send_signal(how)
    error = interrupted.communicate(timeout=60)[1]
    assert interrupted.returncode == 128 + how
    assert error.count("\n") <= 1
    left = [path.name for path in (tmp_path / "interrupted").iterdir()]
    assert all(name.startswith("checkpoint-") for name in left)
    again = start(tmp_path / "interrupted")
    assert again.wait(60) == 0
    assert straight.wait(60) == 0
    for process in (again, straight):
        process.stderr.close()
    names = [tmp_path / which / "measurements.nc" for which in ("straight", "interrupted")]
    with xr.open_dataset(names[0], engine="h5netcdf") as a, xr.open_dataset(names[1], engine="h5netcdf") as b:
        xr.testing.assert_identical(a.drop_attrs(), b.drop_attrs())
