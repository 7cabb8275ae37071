"""What the README shows is real: its Python runs, its table is what the demo prints, its pictures exist."""

import re
from pathlib import Path

import pytest

import rankscope as rs
from commands import call

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    small = code.replace("hidden_size=256", "hidden_size=32").replace("epochs=1000", "epochs=30").replace("512", "32")
    assert small.count("32") == 2
    assert small.count("epochs=30") == 1
    exec(compile(small, "README.md", "exec"), {})
    assert re.fullmatch(r"(\d+|None) (\d+|None)\n", capsys.readouterr().out)


@pytest.mark.usefixtures("forked_workers")
def test_the_table_is_what_the_demo_prints_and_it_writes_figure_and_run(capsys, tmp_path):
    status, out, err = call(capsys, "demo", "--hidden-size", 16, "--epochs", 5, "--out", tmp_path, "--workers", 2)
    assert (status, err) == (0, "")
    assert (tmp_path / "flipflop.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "flipflop.pdf").read_bytes().startswith(b"%PDF")
    assert rs.open_run(tmp_path)["gain"].values.tolist() == [0.0, 0.9]
    header = next(line for line in out.splitlines() if "functional rank" in line)
    shown = next(line for line in README.splitlines() if "functional rank" in line and "┃" in line)
    assert re.split(r"\s*┃\s*", header) == re.split(r"\s*┃\s*", shown)


def test_pictures_and_pages_exist():
    targets = re.findall(r'src="([^"]+)"|\]\(([^)]+)\)', README)
    for image, link in targets:
        target = image or link
        assert target.startswith("http") or (ROOT / target).exists(), target
