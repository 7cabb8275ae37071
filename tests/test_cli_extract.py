"""`rankscope extract`: the table, JSON, and one line with status 2 before any work."""

import json

import pytest
import torch
from safetensors.torch import save_file

from commands import call


@pytest.fixture
def files(tmp_path):
    """Two files: a linear layer with a change of rank 2, a bias that changes, a weight of no module."""
    generator = torch.manual_seed(0)
    before = {"a.q_proj.weight": torch.zeros(30, 20), "a.q_proj.bias": torch.zeros(30), "[red]w": torch.zeros(30, 20)}
    directions = torch.randn(30, 2, generator=generator) @ torch.randn(2, 20, generator=generator)
    after = {name: directions.clone() if value.ndim == 2 else value + 1 for name, value in before.items()}
    for name, state in (("before", before), ("after", after)):
        save_file(state, tmp_path / f"{name}.safetensors")
    return tmp_path / "before.safetensors", tmp_path / "after.safetensors"


def test_the_table_has_ranks_shares_and_what_is_elsewhere(capsys, files, tmp_path):
    status, out, err = call(capsys, "extract", *files, "--rank", "1", "--out", tmp_path / "adapter")
    assert (status, err) == (0, "")
    for text in ("a.q_proj.weight", "[red]w *", "not in PEFT's format", "a.q_proj.bias", "a bias", "2 matrices"):
        assert text in out
    assert out.rstrip().endswith(str(tmp_path / "adapter"))
    matrices = json.loads(call(capsys, "inspect", tmp_path / "adapter", "--json")[1])["matrices"]
    assert {one["name"]: one["numerical_rank"] for one in matrices} == {"a.q_proj.weight": 1, "[red]w": 1}
    arguments = ("--rank", "energy:0.999", "--overwrite", "--json", "--out", tmp_path / "adapter")
    printed = json.loads(call(capsys, "extract", *files, *arguments)[1])
    assert {one["name"]: one["rank"] for one in printed["matrices"]} == {"a.q_proj.weight": 2, "[red]w": 2}
    assert [one["share"] for one in printed["matrices"]] == pytest.approx([1, 1])
    assert [one["name"] for one in printed["left_out"]] == ["a.q_proj.bias"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rank", "some"], ["rank must be a whole number >= 1", "'some'"]),
        (["--rank", "0"], ["rank must be", "got 0"]),
        (["--transposed", "c_attn"], ["transposed must name weights", "'c_attn'"]),
        (["--layers", "b"], ["layers must be one of", "'b'"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, files, tmp_path, arguments, named):
    status, out, err = call(capsys, "extract", *files, *arguments, "--out", tmp_path / "adapter")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "adapter").exists()
    for text in named:
        assert text in err


def test_another_adapter_is_not_overwritten(capsys, files, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    status, out, err = call(capsys, "extract", *files, "--out", tmp_path)
    assert (status, out) == (2, "")
    assert "--overwrite" in err
    assert (tmp_path / "adapter_config.json").read_text() == "{}"
    assert call(capsys, "extract", files[0], files[0], "--out", tmp_path / "none")[0] == 2
