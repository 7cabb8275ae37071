"""The structure of the package: folders import downwards only, and `import rankscope` imports nothing heavy."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rankscope

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


def heavy_modules_after(code):
    program = f"import sys; {code}; print(*{{'numpy', 'torch', 'xarray', 'pandas', 'rich'}}.intersection(sys.modules))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("code", ["import rankscope", "import rankscope.cli", "import rankscope as rs; dir(rs)"])
def test_nothing_heavy_is_imported_before_its_use(code):
    assert heavy_modules_after(code) == []
    assert "torch" in heavy_modules_after("import rankscope; rankscope.RateRNN")


def test_every_public_name_is_there_and_known_to_type_checkers():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    declared = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert declared - {None} == set(dir(rankscope))
    assert all(getattr(rankscope, name) is not None for name in dir(rankscope))
    with pytest.raises(AttributeError, match="RateRNNN"):
        _ = rankscope.RateRNNN
