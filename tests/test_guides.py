"""The Python of the documentation runs, its commands and options exist, and so do its pictures and pages."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from rankscope.cli import main
from rankscope.sweep import Sweep, run
from rankscope.tasks.neurogym import installed

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("guides/*.md")])
WITH_PYTHON = [path for path in PAGES if "```python" in path.read_text()]


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_the_python_runs(page, capsys, tmp_path, monkeypatch):
    if page.name == "neurogym.md" and not installed():
        pytest.skip("NeuroGym is not installed: pip install 'rankscope[neurogym]'")
    if page.name == "needed.md" and find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed: pip install 'rankscope[populations]'")
    if page.name == "neuralrnn.md" and find_spec("neuralrnn") is None:
        pytest.skip("NeuralRNN is not installed: pip install neuralrnn")
    text = page.read_text()
    monkeypatch.chdir(tmp_path)
    if page.name == "sweeps.md":  # its code opens the run of its first sweep
        sweeps = re.findall(r"```yaml\n(task:.*?)```", text, flags=re.DOTALL)
        for sweep in reversed(sweeps):
            Path("sweep.yaml").write_text(re.sub(r"epochs: \d+", "epochs: 5", sweep))
            jobs = Sweep.from_yaml("sweep.yaml").jobs()
            assert len(jobs) in (12, 16)
        run(jobs, "runs/mine")
    space: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        line = text[: text.index(block)].count("\n")
        if file := re.match(r"# (\w+\.py)\n", block):  # a block that the page tells the reader to save
            Path(file[1]).write_text(block)
            continue
        exec(compile("\n" * line + block, page.name, "exec"), space)
    assert "nan" not in capsys.readouterr().out


@pytest.mark.parametrize("page", [*PAGES, DOCS.parent / "README.md"], ids=lambda page: page.name)
def test_commands_and_options_exist(page, capsys):
    text = re.sub(r"\s*\n\s*(?=--)", " ", page.read_text())
    code = "\n".join(map("".join, re.findall(r"```\n(.*?)```|(?<!`)(`[^`\n]+`)", text, flags=re.DOTALL)))
    for command, rest in re.findall(r"^`?rankscope ([a-z-]+)([^`\n]*)", code, flags=re.MULTILINE):
        arguments = [command, *re.findall(r"^ (sentiment)", rest)] if command == "data" else [command]
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--help"])
        known = capsys.readouterr().out
        assert stop.value.code == 0, command
        for option in re.findall(r" (--[a-z][a-z-]+)", rest):
            assert f"{option} " in known, f"{command} {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_pages_exist(page):
    targets = re.findall(r'src="([^"]+)"|\]\(([^)]+)\)', page.read_text())
    for target in (image or link for image, link in targets):
        made = target.startswith(("http", "auto_gallery/"))  # by `make docs`, which fails if there is no such page
        assert made or (page.parent / target).exists(), target
