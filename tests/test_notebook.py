"""The notebook of the documentation runs in Jupyter, and shows what it promises."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "first.ipynb"


@pytest.mark.filterwarnings("default")
def test_the_notebook_runs(tmp_path, monkeypatch):
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install 'rankscope[dev]'")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'rankscope[dev]'")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    html = [data["text/html"] for data in shown if "text/html" in data]
    assert sum("<svg" in text for text in html) == 4
    assert any("finished now" in text for text in html)
    assert sum("image/png" in data for data in shown) >= 1
    assert any("<progress" in text and "of 2 networks" in text for text in html)
