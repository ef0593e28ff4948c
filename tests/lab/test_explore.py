"""`lab.explore` shows one picture outside a notebook, and sliders in a notebook."""

import nbformat
import pytest
from nbclient import NotebookClient

from gradtx import lab


def test_the_middle_choice_is_shown_outside_a_notebook(capsys):
    lab.explore(lambda rate, momentum: (rate, momentum), rate=[1, 2, 3], momentum=[0.0, 0.9])
    assert capsys.readouterr().out == "(2, 0.9)\n"


@pytest.mark.parametrize("choices", [{}, {"rate": []}])
def test_an_argument_without_a_choice_is_refused(choices):
    with pytest.raises(ValueError, match="explore: needs one value or more of each argument"):
        lab.explore(print, **choices)


def test_moving_a_slider_in_a_notebook_redraws_the_picture_in_place():
    code = """
import gc
import ipywidgets
from gradtx import lab
lab.explore(lambda rate: f"a picture at {rate}", rate=[0.01, 0.1, 1.0])
[slider] = [o for o in gc.get_objects() if isinstance(o, ipywidgets.SelectionSlider)]
slider.value = 1.0
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120).execute()
    shown, sliders = notebook.cells[0].outputs
    assert shown.data["text/plain"] == "'a picture at 1.0'"
    assert "application/vnd.jupyter.widget-view+json" in sliders.data
    assert sliders.data["text/plain"] == "[Run this cell for a slider: rate]"


def test_the_error_of_a_choice_is_shown_in_place_of_the_picture():
    code = """
import gc
import ipywidgets
from gradtx import lab

def draw(rate):
    print("noise for the log")
    if rate == 1.0:
        raise ValueError("the rate is too high")
    return "a picture"

lab.explore(draw, rate=[0.01, 0.1, 1.0])
[slider] = [o for o in gc.get_objects() if isinstance(o, ipywidgets.SelectionSlider)]
slider.value = 1.0
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120).execute()
    shown = next(o for o in notebook.cells[0].outputs if o.output_type == "display_data")
    assert shown.data["text/plain"] == "ValueError: the rate is too high (at {'rate': 1.0})"
    assert [o.text for o in notebook.cells[0].outputs if o.output_type == "stream"] == ["noise for the log\n"]
