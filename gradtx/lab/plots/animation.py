"""Animated paths over a landscape."""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.animation import FuncAnimation, PillowWriter

from gradtx._core.arguments import checked_count
from gradtx.landscapes import Landscape

from ..archive import whole_file
from .style import RC, Picture, in_legend, look, names_as_they_are, with_few_colours
from .trajectories import Paths, check_landscape, draw_contours, draw_critical_points, paths_by_name


class Frames(Picture):
    """The picture that an animation saves once per frame, as a PNG in memory. These PNGs have few colours."""

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Saves like `Figure.savefig`, but with few colours if the target is a PNG in memory."""
        if kwargs.get("format") != "png" or not isinstance(fname, io.BytesIO):
            super().savefig(fname, **kwargs)
            return
        full = io.BytesIO()
        super().savefig(full, **kwargs)
        fname.write(with_few_colours(full))


# In place of the icon font that matplotlib loads from the network. Without a network its buttons would be blank.
ICONS = {
    "minus": "−", "fast-backward": "⏮", "step-backward": "⏴", "play fa-flip-horizontal": "◀", "pause": "⏸", "play": "▶",
    "step-forward": "⏵", "fast-forward": "⏭", "plus": "+",
}  # fmt: skip


class Animation:
    """An animation that plays in a notebook (HTML and images, no video codec) and can be saved as HTML or GIF."""

    def __init__(self, animation: FuncAnimation, frames_per_second: int) -> None:
        self._animation, self._rate = animation, frames_per_second

    def _repr_html_(self) -> str:
        with mpl.rc_context({"animation.embed_limit": 64}):  # MB
            html = self._animation.to_jshtml(fps=self._rate, default_mode="loop")
        # Matplotlib's image is empty until its script runs. JupyterLab does not lay out cells that are out of sight,
        # and Chromium then keeps the empty image's size. If scripts are disabled, nothing would show at all.
        last = re.findall(r'frames\[\d+\] = "(data:[^"]*)"', html)[-1].replace("\\\n", "")
        html = html.replace("<img id=", f'<img src="{last}" alt="the last frame" id=', 1)
        html = re.sub(r'<link[^>]*href="https?:[^>]*>', "", html, flags=re.DOTALL)
        return re.sub(r'<i class="fa fa-([^"]*)"></i>', lambda icon: ICONS.get(icon[1], icon[1]), html)

    def save(self, path: str | Path) -> None:
        """Writes `.html` (with controls) or `.gif`."""
        path = Path(path)
        if path.suffix not in (".html", ".gif"):
            raise ValueError(f"Animation.save: path must end in .html or .gif, got {path.name!r}.")
        with whole_file(path) as partial:
            if path.suffix == ".html":
                partial.write_text(self._repr_html_(), encoding="utf-8")
            else:
                self._animation.save(partial, writer=PillowWriter(fps=self._rate))


def animate_trajectories(
    landscape: Landscape, paths: Paths, *, frames: int = 60, frames_per_second: int = 12
) -> Animation:
    """Animates paths over the contours of a landscape. In each frame every path has made the same share of its steps.

    Args:
        landscape: a landscape of at least 2 dimensions.
        paths: as in `plot_trajectories`.
        frames: number of frames, at least 2.
        frames_per_second: speed of the animation.

    Raises:
        ValueError: if the landscape has 1 dimension, a number is out of range, or a path has no iterates on it.
        TypeError: if `landscape` is not a landscape, or a number is not an integer.
    """
    check_landscape("animate_trajectories", landscape, least=2)
    checked_count("animate_trajectories", "frames", frames, 2)
    checked_count("animate_trajectories", "frames_per_second", frames_per_second)
    named = paths_by_name("animate_trajectories", landscape, paths)
    with mpl.rc_context(RC):
        figure = Frames(figsize=(6.5, 5.4), layout="constrained", dpi=80)
        axes = figure.subplots()
        draw_contours(axes, landscape)
        draw_critical_points(axes, landscape)
        lines = [
            axes.plot([], [], color=look(i)["color"], lw=1.6, label=in_legend(name))[0] for i, name in enumerate(named)
        ]
        heads = [axes.plot([], [], **look(i), ms=9, mec="k")[0] for i in range(len(named))]
        axes.legend(loc="upper right")
        title = axes.set_title(" ")
        names_as_they_are(figure)

    def draw(frame: int) -> Any:
        for line, head, path in zip(lines, heads, named.values(), strict=True):
            last = round(frame / (frames - 1) * (len(path) - 1))
            line.set_data(*path[: last + 1, :2].T)
            head.set_data(*path[last : last + 1, :2].T)
        longest = max(len(path) for path in named.values()) - 1
        title.set_text(f"{landscape.name}, step {round(frame / (frames - 1) * longest)} of {longest}")
        return (*lines, *heads, title)

    return Animation(FuncAnimation(figure, draw, frames=frames, blit=False), frames_per_second)
