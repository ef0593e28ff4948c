"""Each notebook has a source and an executed copy. It begins with a question and ends with assertions.

These tests run each source as a script, with its assertions. In the second tier pytest also runs every
`notebooks/*.ipynb`. `test_claims.py` checks which claims the assertions stand for.
"""

import ast
import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest import mock

import jupytext
import nbformat
import pytest

import gradtx
from gradtx import lab
from tests import scripts
from tests.conftest import notebook_environment

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))

for_each = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def script():
    """Runs a script. All scripts of a worker run in one process, which imports and traces once what they share."""
    notebooks, context = ROOT / "notebooks", multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, scripts.start, (notebooks,)) as process:
        with mock.patch.dict(os.environ, notebook_environment() | {"MPLBACKEND": "agg"}):
            process.submit(os.getpid).result()  # the process starts now, and has this environment
        yield lambda name: process.submit(scripts.run, name).result()


@pytest.mark.parametrize("notebook", SOURCES, ids=lambda path: path.stem)
def test_every_notebook_runs_as_a_script(notebook, script):
    script(notebook.name)


def executed(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


@for_each
def test_every_executed_notebook_has_the_cells_of_its_source(source):
    def content(cells):
        return [(cell.cell_type, cell.source.strip(), cell.metadata.get("alt")) for cell in cells]

    assert content(executed(source).cells) == content(jupytext.read(source).cells)


@for_each
def test_every_notebook_was_run_from_top_to_bottom_without_an_error(source):
    code = [cell for cell in executed(source).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@for_each
def test_every_notebook_begins_with_a_question_and_ends_with_assertions(source):
    cells = executed(source).cells
    assert cells[0].cell_type == "markdown"
    assert "?" in cells[0].source
    last = ast.parse(cells[-1].source).body
    assert sum(isinstance(statement, ast.Assert) for statement in last) >= 3


def prose(source):
    return "\n\n".join(cell.source for cell in executed(source).cells if cell.cell_type == "markdown")


@for_each
def test_every_notebook_has_the_form_of_a_lecture(source):
    first = executed(source).cells[0].source
    assert re.match(rf"# {int(source.stem[:2])} · [^\n]*\?\n\n\*Chapter §", first)  # number, title, question, sections
    assert "**New in gradtx:**" in first
    text = prose(source)
    assert text.index("**To take away.**") < text.index("## Exercises") < text.index("## What was claimed, checked")
    taken = text.split("**To take away.**")[1].split("\n\n")[0].replace("e.g.", "").strip()
    assert len(re.findall(r"[.?!](?=\s|$)", taken)) == 3
    asked, answered = text.split("## Exercises")[1].split("<details><summary>Answers</summary>")
    numbers = r"^\d(?=\. )"
    assert re.findall(numbers, asked, re.M) == re.findall(numbers, answered.split("</details>")[0], re.M)
    assert 2 <= len(re.findall(numbers, asked, re.M)) <= 3


@for_each
def test_every_cell_has_a_slide_type(source):
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in executed(source).cells]
    assert set(kinds) <= {"slide", "subslide", "fragment", "skip", "notes"}
    assert kinds[0] == "slide"
    assert kinds[-1] == "skip"


@for_each
def test_every_figure_has_an_alternative_text(source):
    """The templates of nbconvert that the README names take it from the metadata of the cell."""
    for cell in executed(source).cells:
        if cell.cell_type == "code" and any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert len(cell.metadata["alt"].split()) >= 6


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
