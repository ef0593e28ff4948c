"""The common style of all pictures: colours for any colour vision, and a headline that states the conclusion."""

import io
import textwrap
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter
from PIL import Image

# Okabe & Ito 2008: these colours can be told apart with any colour vision. Each line also has its own marker.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933", "#882255", "#666666")
MARKERS = "osD^vP*X<>"
GREY, LIGHT = "#c8c8c8", "#e6e6e6"
RC: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.fontsize": 9,
    "legend.framealpha": 0.9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.5,
}
P = ParamSpec("P")
_VISIBLE = "\0"  # prefix of names that begin with "_", which matplotlib would leave out of the legend


class Picture(Figure):
    """A figure that a notebook shows with any back end of matplotlib."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return with_few_colours(buffer)


def new_picture(width: float, height: float) -> Picture:
    """An empty picture of `width` x `height` inches; a notebook is about 10 inches wide."""
    return Picture(figsize=(width, height), layout="constrained", dpi=110)


def with_few_colours(png: io.BytesIO) -> bytes:
    """The same picture in 256 colours. It takes about a quarter of the bytes in a notebook or an animation."""
    image = Image.open(png)
    if image.mode == "RGBA" and np.asarray(image)[..., 3].min() < 255:
        return png.getvalue()  # a palette of solid colours cannot show its transparent parts
    # The palette follows the most common colours and would turn a thin blue line green. So the image from which the
    # palette is computed gets a broad line of each colour below the picture.
    width, height = image.size
    taller = Image.new("RGB", (width, height + 4 * len(COLOURS)))
    taller.paste(image.convert("RGB"))
    for i, colour in enumerate(COLOURS):
        taller.paste(colour, (0, height + 4 * i, width, height + 4 * i + 4))
    smaller = io.BytesIO()
    few = taller.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.crop((0, 0, width, height)).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


def styled(plot: Callable[P, Picture]) -> Callable[P, Picture]:
    """Makes a plot use the common style without changing the user's settings, and shows names literally."""

    @wraps(plot)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Picture:
        with mpl.rc_context(RC):
            figure = plot(*args, **kwargs)
        names_as_they_are(figure)
        return figure

    return draw


def in_legend(name: str) -> str | None:
    """The label of a line, which is None if the name is empty. `names_as_they_are` removes the prefix again."""
    return f"{_VISIBLE}{name}" if name.startswith("_") else name or None


def names_as_they_are(figure: Figure | SubFigure) -> None:
    """Shows the names of runs, methods and readings literally. Matplotlib would read two dollar signs as a formula."""
    texts: list[Text] = [*figure.texts]
    legends: list[Any] = [*figure.legends]
    for axes in figure.axes:
        texts += [*axes.texts, *(getattr(axes, title) for title in ("title", "_left_title", "_right_title"))]
        legends += [axes.get_legend()] if axes.get_legend() else []
        for axis in axes._axis_map.values():
            texts.append(axis.label)
            if isinstance(axis.get_major_formatter(), FixedFormatter):  # labels that were given as text
                texts += axis.get_ticklabels()
    for legend in legends:
        for text in legend.get_texts():
            text.set_text(text.get_text().removeprefix(_VISIBLE))
        texts += legend.get_texts()
    for text in texts:
        text.set_parse_math(False)
    for part in figure.subfigs:
        names_as_they_are(part)


def headline(figure: Picture | SubFigure, text: str, size: float = 12) -> None:
    """Writes the conclusion above the picture, wrapped to its width. Lines do not break around "=" or "±"."""
    for sign in "=±":
        text = text.replace(f" {sign} ", f"\u00a0{sign}\u00a0")
    width = figure.get_figure(root=True).get_figwidth()
    wrapped = "\n".join(textwrap.wrap(text, int(110 * width / size)))
    figure.suptitle(wrapped, fontsize=size, fontweight="bold", x=0.01, ha="left")


def look(index: int) -> dict[str, Any]:
    """Colour and marker of the `index`-th line."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def light_grid(axes: Axes, axis: Any = "both") -> None:
    """Draws faint grid lines behind the data."""
    axes.grid(axis=axis, color=LIGHT)
    axes.set_axisbelow(True)
