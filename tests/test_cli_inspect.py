"""`rankscope inspect`: the table, JSON, CSV and figure; one line and status 2 for what is no checkpoint."""

import csv
import json

import pytest
import torch
from safetensors.torch import save_file

from commands import call


@pytest.fixture
def files(tmp_path):
    """Two files: an LSTM before, and after a change of rank 2 (and noise), with a matrix of NaNs beside it."""
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in torch.nn.LSTM(6, 12).state_dict().items()}
    before |= {"broken.weight": torch.zeros(3, 3), "embedding.weight": torch.randn(9, 6)}
    after = {
        name: value + torch.randn(len(value), 2) @ torch.randn(2, value.shape[1]) if value.ndim == 2 else value
        for name, value in before.items()
    }
    after["broken.weight"] = torch.full((3, 3), torch.nan)
    paths = tmp_path / "before.safetensors", tmp_path / "after.pt"
    save_file(before, paths[0])
    torch.save({"state_dict": {f"module.{name}": value for name, value in after.items()}}, paths[1])
    return paths


def test_json_is_a_list_of_matrices_and_one_of_what_was_skipped(capsys, files):
    status, out, err = call(capsys, "inspect", *files, "--json")
    assert (status, err) == (0, "")
    printed = json.loads(out)
    found = {matrix["name"]: matrix for matrix in printed["matrices"]}
    gates = [f"weight_{which}_l0{gate}" for which in ("hh", "ih") for gate in ("", "[i]", "[f]", "[g]", "[o]")]
    assert list(found) == gates
    assert all(matrix["numerical_rank"] == matrix["standing_out"] == 2 for matrix in found.values())
    assert found["weight_hh_l0"]["shape"] == [48, 12]
    skipped = {one["name"]: one["reason"] for one in printed["skipped"]}
    assert set(skipped) == {"bias_hh_l0", "bias_ih_l0", "broken.weight", "embedding.weight"}
    assert "must be finite" in skipped["broken.weight"]
    whole = json.loads(call(capsys, "inspect", *files, "--json", "--no-gates")[1])
    assert [matrix["name"] for matrix in whole["matrices"]] == ["weight_hh_l0", "weight_ih_l0"]


def test_the_table_names_every_matrix_gate_and_reason(capsys, files):
    status, out, _ = call(capsys, "inspect", *files)
    assert status == 0
    for text in ("weight_hh_l0[f]", "48x12", "above round.", "an embedding", "a bias", "must be finite"):
        assert text in out


def test_csv_and_figure(capsys, files, tmp_path):
    status, out, _ = call(capsys, "inspect", *files, "--csv", tmp_path / "t.csv", "--out", tmp_path / "f.png")
    assert status == 0
    assert str(tmp_path / "f.png") in out
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows][:2] == ["weight_hh_l0", "weight_hh_l0[i]"]
    assert rows[1]["block"] == "i"
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_a_training_of_ours_is_compared_with_its_beginning(capsys, tmp_path):
    arguments = ("--hidden-size", "16", "--epochs", "12", "--out", tmp_path / "one", "--json")
    trained = json.loads(call(capsys, "train", *arguments)[1])["networks"][0]
    network = tmp_path / "one" / "network.safetensors"
    for path in (network, tmp_path / "one"):
        matrices = json.loads(call(capsys, "inspect", path, "--json")[1])["matrices"]
        (recurrent,) = [matrix for matrix in matrices if matrix["name"] == "recurrent_weights"]
        assert recurrent["norm"] == pytest.approx(trained["change_norm"], rel=1e-9)


def test_identical_files_say_so(capsys, files):
    status, out, _ = call(capsys, "inspect", files[0], files[0])
    assert status == 0
    assert "No matrix with a change" in out
    assert "the same before and after" in out


def test_names_from_a_file_neither_style_nor_steer_the_terminal(capsys, tmp_path):
    name = "w[red]\x1b[2J\n"
    for which in (0, 1):
        torch.save({name: which * torch.ones(2, 3), "\x07b": torch.ones(2)}, tmp_path / f"{which}.pt")
    _, out, _ = call(capsys, "inspect", tmp_path / "0.pt", tmp_path / "1.pt")
    assert "w[red]\\x1b[2J\\n" in out
    assert not {"\x1b", "\x07"} & set(out)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], ["before", "nowhere", "not there"]),
        (["before.safetensors"], ["after is missing"]),
        (["before.safetensors", "nowhere"], ["after", "nowhere"]),
        (["before.safetensors", "garbage.pt"], ["garbage.pt", "not a file of torch.save"]),
        (["before.safetensors", "cut.safetensors"], ["cut.safetensors", "not a readable safetensors file"]),
        (["before.safetensors", "other.safetensors"], ["weights named as in before", "'other'"]),
        (["before.safetensors", "after.pt", "--heads", "0"], ["heads", ">= 1", "0"]),
        (["before.safetensors", "after.pt", "--out", "figure.gif"], ["'gif'"]),
        (["."], ["folder", "name one"]),
        ([], ["before"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, files, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage.pt").write_bytes(b"garbage" * 99)
    (tmp_path / "cut.safetensors").write_bytes(files[0].read_bytes()[:-1])
    save_file({"other": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    status, out, err = call(capsys, "inspect", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("rankscope: ")
    assert err.count("\n") == 1
    for text in named:
        assert text in err


def test_more_than_two_are_compared_with_the_first(capsys, files, tmp_path):
    first, last = files
    between = tmp_path / "epoch=3.pt"
    state = torch.load(last)["state_dict"]
    torch.save({name: value / 2 for name, value in state.items()}, between)
    outputs = ("--csv", tmp_path / "t.csv", "--out", tmp_path / "f.png")
    status, out, err = call(capsys, "inspect", first, between, last, *outputs)
    assert (status, err) == (0, "")
    for text in ("epoch=3", "after", "weight_hh_l0", "changes from before", "a bias"):
        assert text in out
    assert (tmp_path / "t.csv").read_text().count("\n") == 5
    printed = json.loads(call(capsys, "inspect", first, between, last, "--json", "--layers", "weight_hh_l0")[1])
    assert printed["checkpoints"] == ["before", "epoch=3", "after"]
    assert [(one["name"], one["step"]) for one in printed["stages"]] == [("weight_hh_l0", 3), ("weight_hh_l0", None)]
    assert "--heads is for two checkpoints" in call(capsys, "inspect", first, between, last, "--heads", "2")[2]
