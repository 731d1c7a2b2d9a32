"""Runs docs/notebook.ipynb from the first cell to the last, and writes it with what its cells show."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).parent
NOTEBOOK = DOCS / "notebook.ipynb"


def executed() -> nbformat.NotebookNode:
    """The notebook, run in a folder of its own that has the project's `graphs/`."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "graphs").symlink_to(DOCS.parent / "graphs")
        paths = filter(None, [str(Path(sys.executable).parent), os.environ.get("PATH")])
        os.environ["PATH"] = os.pathsep.join(paths)
        client = NotebookClient(notebook, kernel_name="python3", timeout=120)
        client.execute(cwd=folder)
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def main() -> None:
    nbformat.write(executed(), NOTEBOOK)


if __name__ == "__main__":
    main()
