"""docs/notebook.ipynb runs from its first cell to its last, and shows in each what it did."""

from __future__ import annotations

import runpy

import pytest

from support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_the_notebook_runs_and_shows_what_it_did() -> None:
    nbformat = pytest.importorskip("nbformat")
    for package in ("nbclient", "ipykernel", "pandas"):
        pytest.importorskip(package)
    recorded = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    made = runpy.run_path(str(ROOT / "docs" / "notebook.py"))["executed"]()
    assert len(made.cells) == len(recorded.cells)
    for before, now in zip(recorded.cells, made.cells, strict=True):
        if now.cell_type != "code":
            continue
        kinds = [{it.output_type for it in cell.outputs} for cell in (before, now)]
        assert kinds[0] == kinds[1], now.source
        assert "error" not in kinds[1]
    shown = [str(it) for cell in made.cells for it in cell.get("outputs", ())]
    assert any("In[3]:2:27: unknown key 'source_ury'" in text for text in shown)
    assert any("replayed, identical" in text for text in shown)
