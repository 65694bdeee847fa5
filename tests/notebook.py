"""Runs a notebook's cells as Jupyter would, in one process and without Jupyter: `python -m tests.notebook FILE`.

Prints one JSON line per code cell: the text of its last expression, and the axes of each figure that was shown with how
much is drawn on them. A cell that raises ends it, with the traceback.
"""

import ast
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")


def main(file: Path) -> None:
    """Run every code cell in one namespace."""
    import matplotlib.pyplot as plt

    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in json.loads(file.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        value = run(ast.parse("".join(cell["source"]), f"{file.name}:{cell['id']}"), namespace)
        figures = [
            [len(axis.patches) + len(axis.images) + len(axis.collections) for axis in plt.figure(number).axes]
            for number in plt.get_fignums()
        ]
        plt.close("all")
        print(json.dumps({"id": cell["id"], "value": None if value is None else str(value), "figures": figures}))


def run(cell: ast.Module, namespace: dict[str, Any]) -> Any:
    """Execute the statements; the value of the last one if it is an expression."""
    last = cell.body.pop() if cell.body and isinstance(cell.body[-1], ast.Expr) else None
    exec(compile(cell, "notebook", "exec"), namespace)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "notebook", "eval"), namespace)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
