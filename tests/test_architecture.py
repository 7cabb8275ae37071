"""The structure of the package: folders import downwards only, and `import rankscope` imports nothing heavy."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rankscope
from rankscope.extras import EXTRAS, needs

PACKAGE = Path(rankscope.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
# The first block of that page: a level a line, the highest first.
(BLOCK,) = re.findall(r"```text\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
LEVELS = [line.split("#")[0].split() for line in BLOCK.splitlines()]
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}


def imported(module):
    """Yield the folder or module of rankscope that each import of a module names."""
    for node in ast.walk(ast.parse(module.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *rest = name.split(".")
            if first == "rankscope":
                yield rest[0] if rest else first


def test_the_page_names_files_that_exist():
    named = re.findall(r"`([\w/]+\.py)`", PAGE.read_text())
    assert len(named) > 40
    missing = [
        name for name in named if not any((root / name).exists() for root in (PACKAGE, PACKAGE.parent, PAGE.parents[1]))
    ]
    assert not missing


def test_every_folder_has_a_level():
    assert {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")} <= set(LEVEL_OF)


@pytest.mark.parametrize("name", LEVEL_OF)
def test_imports_go_downwards(name):
    modules = [*(PACKAGE / name).rglob("*.py"), *PACKAGE.glob(f"{name}.py")]
    wrong = {
        (str(module.relative_to(PACKAGE)), other)
        for module in modules
        for other in imported(module)
        if other != name and LEVEL_OF.get(other, -1) <= LEVEL_OF[name]
    }
    assert not wrong


def test_nothing_is_imported_before_its_use_and_nothing_optional_at_all():
    heavy = {"numpy", "torch", "xarray", "pandas", "rich"}
    # PyTorch and dask bring jinja2 and markupsafe.
    optional = {module for modules in EXTRAS.values() for module in modules} - {"jinja2", "markupsafe"}
    program = f"""
import sys, rankscope as rs, rankscope.cli
dir(rs)
print(*{heavy!r}.intersection(sys.modules))
rs.RateRNN
print("torch" in sys.modules)
import rankscope.figures, rankscope.experiments, rankscope.cli.main
for name in dir(rs): getattr(rs, name)
print(*{optional!r}.intersection(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "\nTrue\n\n"


def test_every_public_name_is_there_and_known_to_type_checkers():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    declared = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert declared - {None} == set(dir(rankscope))
    assert all(getattr(rankscope, name) is not None for name in dir(rankscope))
    with pytest.raises(AttributeError, match="RateRNNN"):
        _ = rankscope.RateRNNN


def test_every_extra_is_in_pyproject_and_a_missing_one_is_named():
    project = tomllib.loads((PAGE.parents[1] / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"all", "docs", "dev"}
    with (
        pytest.raises(rankscope.InputError, match=r"format 'zarr' needs zarr: pip install 'rankscope\[zarr\]'"),
        needs("zarr", "format 'zarr'"),
    ):
        raise ModuleNotFoundError("No module named 'zarr.storage'", name="zarr.storage")
    with pytest.raises(ModuleNotFoundError), needs("zarr", "format 'zarr'"):
        raise ModuleNotFoundError("No module named 'numcodecs_x'", name="numcodecs_x")
