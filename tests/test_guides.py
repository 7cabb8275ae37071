"""Every block of Python in the guides runs, in order, and says what the page says it does."""

import re
from pathlib import Path

import pytest

from rankscope.experiments import run_cells
from rankscope.experiments.user_sweep import read_sweep

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
WITH_PYTHON = sorted(path.name for path in GUIDES.glob("*.md") if "```python" in path.read_text())


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_python_runs(name, capsys, tmp_path, monkeypatch):
    text = (GUIDES / name).read_text()
    monkeypatch.chdir(tmp_path)
    if name == "sweeps.md":  # its code opens the run of its sweep
        (sweep,) = re.findall(r"```yaml\n(task:.*?)```", text, flags=re.DOTALL)
        Path("sweep.yaml").write_text(re.sub(r"epochs: \d+", "epochs: 5", sweep))
        run_cells(read_sweep("sweep.yaml"), "runs/mine")
    space: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, name, "exec"), space)
    assert "nan" not in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(GUIDES.glob("*.md")), ids=lambda path: path.name)
def test_pictures_and_pages_exist(path):
    targets = re.findall(r'src="([^"]+)"|\]\(([^)]+)\)', path.read_text())
    for target in (image or link for image, link in targets):
        assert target.startswith("http") or (path.parent / target).exists(), target
