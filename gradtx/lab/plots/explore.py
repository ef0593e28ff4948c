"""Sliders over a picture, which is a still picture where no kernel runs."""

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any


class Message(str):
    """Text that a notebook shows as it is, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def explore(draw: Callable[..., Any], **choices: Sequence[Any]) -> None:
    """Shows `draw` of each argument's middle choice and, in a notebook with ipywidgets, a slider for each argument.

    What a saved notebook shows (on a web page, say) is the still picture; the sliders come to life where the notebook
    runs. Without ipywidgets or outside a notebook the picture is all there is.

    Args:
        draw: called with one choice of each argument; returns what a notebook shows, such as a `lab.plot_*` picture.
        **choices: the values of each argument, in the order of its slider; 1 or more.

    Raises:
        ValueError: without an argument to choose, or with one that has no choice.

    >>> from gradtx import lab
    >>> lab.explore(lambda learning_rate: f"a picture at {learning_rate}", learning_rate=[0.01, 0.1, 1.0])
    'a picture at 0.1'
    """
    if not choices or any(len(values) == 0 for values in choices.values()):
        raise ValueError(f"explore: needs one value or more of each argument of draw, got {choices}.")
    middle = {name: values[len(values) // 2] for name, values in choices.items()}
    if not in_a_notebook():
        print(repr(draw(**middle)))
        return
    from IPython.display import DisplayHandle, display

    picture = DisplayHandle()
    picture.display(draw(**middle))
    try:
        import ipywidgets
    except ImportError:
        return
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=[(f"{value:g}" if isinstance(value, float) else str(value), value) for value in values],
            value=middle[name],
            description=name.replace("_", " "),
            continuous_update=False,
            style={"description_width": "initial"},
        )
        for name, values in choices.items()
    }

    def redraw(_: Any) -> None:
        chosen = {name: slider.value for name, slider in sliders.items()}
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # a callback's output goes to the log
                shown = draw(**chosen)
        except Exception as error:  # in the picture's place: a stale picture would pass for the new choice
            shown = Message(f"{type(error).__name__}: {error} (at {chosen})")
        picture.update(shown)

    for slider in sliders.values():
        slider.observe(redraw, names="value")
    shown = ipywidgets.VBox(list(sliders.values()))._repr_mimebundle_() or {}
    names = ", ".join(slider.description for slider in sliders.values())
    display(shown | {"text/plain": f"[Run this cell for a slider: {names}]"}, raw=True)  # the text is what is saved


def in_a_notebook() -> bool:
    """Whether this code runs in IPython, which shows pictures."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    return get_ipython() is not None
