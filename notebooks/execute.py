"""Runs notebook sources from top to bottom and writes their .ipynb and README picture.

    python notebooks/execute.py 03 11      # those whose names begin so; all without an argument

The metadata of a code cell describe its figure (`# %% alt="Two paths ..."`). nbconvert's template `classic` and the
one in `slides/` write this text into the page, for screen readers. The figure of the cell tagged "cover" is the picture
that the README shows.
"""

import base64
import io
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent


def execute(source):
    """Writes the executed notebook and its picture."""
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.pop("jupytext", None)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem[:2]}-{i:02}"  # the same at each run: a change shows what changed
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            if "cover" in cell.metadata.get("tags", []):
                _save_cover(cell, FOLDER / "pictures" / f"{source.stem}.png")
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    nbformat.write(notebook, source.with_suffix(".ipynb"))


def _save_cover(cell, path):
    png = next(output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    image.thumbnail((520, 520))
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(path, optimize=True)


if __name__ == "__main__":
    wanted = sys.argv[1:] or [""]
    for path in sorted(FOLDER.glob("[0-9]*.py")):
        if any(path.stem.startswith(name) for name in wanted):
            print(path.stem, flush=True)
            execute(path)
