"""Sliders that redraw a picture. Without a running kernel the picture does not change."""

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any


def explore(draw: Callable[..., Any], **choices: Sequence[Any]) -> None:
    """Shows `draw` at each argument's middle choice. In a notebook with ipywidgets it adds a slider for each argument.

    A saved notebook (on a web page, for example) shows that one picture. The sliders work once the notebook runs.

    Args:
        draw: function of one choice for each argument. It returns an object that a notebook can show, such as a
            `lab.plot_*` picture.
        **choices: the values of each argument, at least 1, in the order of its slider.

    Raises:
        ValueError: if there is no argument, or an argument has no choice.

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
    from IPython.display import DisplayHandle, Pretty, display

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
        except Exception as error:  # replaces the picture, which would show an old choice
            shown = Pretty(f"{type(error).__name__}: {error} (at {chosen})")
        picture.update(shown)

    for slider in sliders.values():
        slider.observe(redraw, names="value")
    shown = ipywidgets.VBox(list(sliders.values()))._repr_mimebundle_() or {}
    names = ", ".join(slider.description for slider in sliders.values())
    display(shown | {"text/plain": f"[Run this cell for a slider: {names}]"}, raw=True)  # the text is saved


def in_a_notebook() -> bool:
    """Whether this code runs in IPython, which can show pictures."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    return get_ipython() is not None
