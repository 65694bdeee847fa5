"""The notebook lies in git without what it printed: pictures and numbers of one home are nobody else's."""

import json
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "explore.ipynb"


def test_the_notebook_holds_no_output():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 10
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
