"""The notebooks: pairs of source and executed notebook, public names only, a question first and its proof last.

Here each source runs as a script, with its assertions. In the second tier pytest also runs every `notebooks/*.ipynb`.
"""

import ast
import runpy
from pathlib import Path

import jax
import jupytext
import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pytest

import gradtx
from gradtx import lab

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))

for_each = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


@pytest.mark.parametrize("notebook", SOURCES, ids=lambda path: path.stem)
def test_runs_as_a_script(notebook, monkeypatch, capsys):
    monkeypatch.chdir(notebook.parent)
    with matplotlib.rc_context():
        runpy.run_path(str(notebook), run_name="__main__")
    plt.close("all")
    jax.clear_caches()


def executed(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


@for_each
def test_each_notebook_is_what_its_source_says(source):
    cells = [(cell.cell_type, cell.source.strip()) for cell in jupytext.read(source).cells]
    assert [(cell.cell_type, cell.source.strip()) for cell in executed(source).cells] == cells


@for_each
def test_every_notebook_was_run_from_top_to_bottom_without_an_error(source):
    code = [cell for cell in executed(source).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@for_each
def test_every_notebook_asks_first_and_proves_last(source):
    cells = executed(source).cells
    assert cells[0].cell_type == "markdown"
    assert "?" in cells[0].source
    last = ast.parse(cells[-1].source).body
    assert sum(isinstance(statement, ast.Assert) for statement in last) >= 3


@for_each
def test_notebooks_use_public_names_only(source):
    tree = ast.parse(source.read_text(encoding="utf-8"))
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module.startswith("gradtx")}
    assert imported <= {"gradtx"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("gradtx", "lab"):
            assert hasattr({"gradtx": gradtx, "lab": lab}[node.value.id], node.attr)
            assert not node.attr.startswith("_")


@for_each
def test_readme_links_every_notebook_with_a_picture(source):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"(notebooks/{source.stem}.ipynb)" in readme
    assert f"notebooks/pictures/{source.stem}.png" in readme
    assert (ROOT / "notebooks" / "pictures" / f"{source.stem}.png").is_file()
