"""Pictures of paths over a landscape: from above, and in three dimensions."""

import textwrap
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from gradtx._core.arguments import checked_count
from gradtx.landscapes import Landscape

from ..arguments import check_kind
from ..history import History
from .style import Picture, headline, in_legend, look, new_picture, styled

Paths = History | np.ndarray | Mapping[str, History | np.ndarray]
CRITICAL = {  # kind -> marker, label
    "minimum-like": ("*", "minimum"),
    "saddle": ("X", "saddle"),
    "maximum-like": ("^", "maximum"),
    "plateau": ("s", "flat point"),
}


@styled
def plot_trajectories(landscape: Landscape, paths: Paths, *, arrows: int = 12) -> Picture:
    """Draws paths over the contours of a landscape, with arrows that point where the plain gradient would go.

    Contours are at quantiles of the visible values, so that cliffs and valleys both show. As in Goodfellow et al. 2016,
    Fig. 8.5, the arrows are the steepest-descent direction (all of one length) at some iterates. If path and arrows
    disagree, the method does something that the gradient alone would not.

    Args:
        landscape: a landscape of 1 or more dimensions. From 3 dimensions on, its first two coordinates are shown and
            the others stay at the start.
        paths: {name: History or iterates [n + 1, dim]}, or a single one.
        arrows: number of arrows over all paths; 0 draws none.

    Raises:
        ValueError: if there is no path, a path has no iterates on the landscape, or `arrows` is negative.
        TypeError: if `landscape` is not a landscape, or `arrows` is not an integer.

    >>> import gradtx, jax
    >>> from gradtx import lab, landscapes
    >>> run = lab.run(landscapes.quadratic(10.0), gradtx.sgd(0.1), steps=50, key=jax.random.key(0))
    >>> print(lab.plot_trajectories(landscapes.quadratic(10.0), {"sgd": run}).get_suptitle())
    Height after 50 steps: sgd: 1.33e-05.
    """
    check_landscape("plot_trajectories", landscape)
    named = paths_by_name("plot_trajectories", landscape, paths)
    checked_count("plot_trajectories", "arrows", arrows, 0)
    figure = new_picture(7.5, 5.4)
    axes = figure.subplots()
    if landscape.dim == 1:
        _draw_line(axes, landscape, named)
    else:
        draw_contours(axes, landscape)
        for i, (name, path) in enumerate(named.items()):
            every = -(-len(path) // 60)  # about 60 markers at most: more would hide the path
            width = 1.4 + 2.2 * (1 - (i + 1) / len(named))  # later paths are thinner: they do not hide earlier ones
            axes.plot(*path[:, :2].T, **look(i), lw=width, ms=3.5, markevery=every, label=in_legend(name), zorder=3)
        _draw_arrows(axes, landscape, named, arrows)
        draw_critical_points(axes, landscape)
        axes.plot(*named[next(iter(named))][0, :2], "o", ms=12, mfc="none", mec="k", mew=1.5, label="start", zorder=5)
    axes.set_title(_description(landscape), fontsize=9)
    figure.legend(loc="outside lower center", ncols=min(4, len(figure.axes[0].get_legend_handles_labels()[1])))
    headline(figure, _conclusion(landscape, named), 11)
    return figure


@styled
def plot_surface(landscape: Landscape, paths: Paths | None = None) -> Picture:
    """Draws the landscape as a surface in three dimensions, with paths on it. The highest 2 % are cut off.

    Args:
        landscape: a landscape of at least 2 dimensions.
        paths: as in `plot_trajectories`; None draws the surface alone.

    Raises:
        ValueError: if the landscape has 1 dimension, or a path has no iterates on it.
        TypeError: if `landscape` is not a landscape.

    >>> from gradtx import lab, landscapes
    >>> print(lab.plot_surface(landscapes.quadratic(10.0)).get_suptitle())
    quadratic: the lowest value is 0, at 1 known point.
    """
    check_landscape("plot_surface", landscape, least=2)
    x, y, z = _heights(landscape, 150)
    top = np.quantile(z, 0.98)
    figure = new_picture(8, 5.6)
    axes: Any = figure.add_subplot(projection="3d", computed_zorder=False)
    axes.plot_surface(x, y, np.minimum(z, top), cmap="cividis", alpha=0.75, lw=0, rcount=150, ccount=150)
    named = {} if paths is None else paths_by_name("plot_surface", landscape, paths)
    for i, (name, path) in enumerate(named.items()):
        inside = _inside(landscape, path)
        heights = np.minimum(_values(landscape, path), top)
        axes.plot(*path[inside, :2].T, heights[inside], **look(i), ms=3, lw=2, label=in_legend(name), zorder=5)
    axes.set(xlabel="θ₁ (parameter)", ylabel="θ₂ (parameter)")
    axes.set_zlabel("f(θ)", labelpad=10)
    axes.set_title(_description(landscape) + " Blue is low.", fontsize=9)
    axes.view_init(elev=38, azim=-62)
    if named:
        axes.legend(loc="upper left")
    headline(figure, _conclusion(landscape, named) if named else f"{landscape.name}: {_infimum(landscape)}.", 11)
    return figure


def check_landscape(function: str, landscape: Landscape, least: int = 1) -> None:
    """Raises if `landscape` is something else, or has fewer than `least` dimensions."""
    check_kind(function, "landscape", landscape, Landscape, "such as gradtx.landscapes.Landscape.of(function, start)")
    if landscape.dim < least:
        raise ValueError(f"{function}: the landscape must have at least {least} dimensions, {landscape.name} has 1.")


def paths_by_name(function: str, landscape: Landscape, paths: Paths) -> dict[str, np.ndarray]:
    """The iterates [n + 1, dim] of each path, by its name."""
    given = dict(paths) if isinstance(paths, Mapping) else {landscape.name: paths}
    if not given:
        raise ValueError(f"{function}: paths must hold at least one path, got none.")
    named = {}
    for name, path in given.items():
        iterates = path.iterates if isinstance(path, History) else path
        if iterates is None or np.ndim(iterates) != 2 or np.shape(iterates)[1] != landscape.dim:
            rule = f"must hold iterates [n + 1, {landscape.dim}] of {landscape.name}"
            got = "none" if iterates is None else f"shape {np.shape(iterates)}"
            raise ValueError(f"{function}: the path {name!r} {rule}, got {got}.")
        named[name] = np.asarray(iterates)
    return named


def _values(landscape: Landscape, vectors: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(landscape))(jnp.asarray(vectors, jnp.result_type(float))))


def _heights(landscape: Landscape, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.meshgrid(*(np.linspace(*limits, points) for limits in landscape.view))
    vectors = np.tile(np.asarray(landscape.start, float), (x.size, 1))
    vectors[:, 0], vectors[:, 1] = x.ravel(), y.ravel()
    return x, y, _values(landscape, vectors).reshape(x.shape)


def draw_contours(axes: Axes, landscape: Landscape) -> None:
    """Draws the landscape's heights in its view, from white to grey."""
    axes.set(xlim=landscape.view[0], ylim=landscape.view[1], xlabel="θ₁ (parameter)", ylabel="θ₂ (parameter)")
    x, y, z = _heights(landscape, 240)
    levels = np.unique(np.quantile(z, np.linspace(0, 1, 26) ** 1.5).astype(np.float32))
    if len(levels) > 2:
        ranks = np.arange(len(levels))
        rank = np.interp(z, levels, ranks)  # colours by rank of the level: equal shares
        axes.contourf(x, y, rank, levels=ranks, cmap="Greys", alpha=0.35)
        axes.contour(x, y, rank, levels=ranks, colors="#8a8a8a", linewidths=0.5)


def _draw_arrows(axes: Axes, landscape: Landscape, named: dict[str, np.ndarray], count: int) -> None:
    points = [_spread_out(path[_inside(landscape, path)], -(-count // len(named))) for path in named.values()]
    chosen = np.concatenate(points)
    if not count or not len(chosen):
        return
    downhill = -np.asarray(jax.vmap(jax.grad(landscape))(jnp.asarray(chosen, jnp.result_type(float))))[:, :2]
    sides = np.ptp(np.asarray(landscape.view), axis=1)
    steep = np.linalg.norm(downhill, axis=1)
    is_slope = steep > 1e-4 * steep.max()  # near a minimum an arrow would show rounding errors
    chosen, downhill = chosen[is_slope], downhill[is_slope]
    length = np.linalg.norm(downhill / sides, axis=1, keepdims=True)  # on the page: the axes may have different scales
    steps = 0.06 * downhill / np.where(length > 0, length, 1)
    axes.quiver(*chosen[:, :2].T, *steps.T, angles="xy", scale_units="xy", scale=1, width=0.003, color="k", zorder=4)
    axes.plot([], [], "k", marker=r"$\rightarrow$", ms=14, ls="none", label="downhill (-gradient)")  # for the legend


def _spread_out(path: np.ndarray, count: int) -> np.ndarray:
    """At most `count` points of a path, about equally spaced along its length."""
    if not len(path):
        return path
    gone = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    places = np.linspace(0, gone[-1], count, endpoint=False)
    return path[np.unique(np.searchsorted(gone, places).clip(max=len(path) - 1))]


def draw_critical_points(axes: Axes, landscape: Landscape) -> None:
    """Marks each critical point, with one legend entry for each kind."""
    seen = set()
    for point, kind in landscape.critical_points:
        marker, label = CRITICAL[kind]
        place = point[:2] if landscape.dim > 1 else (*point, *_values(landscape, point[None]))
        axes.plot(
            *place, marker, ms=13 if marker == "*" else 8, mfc="w", mec="k", ls="none", zorder=4.5,
            label=None if kind in seen else label,
        )  # fmt: skip
        seen.add(kind)


def _draw_line(axes: Axes, landscape: Landscape, named: dict[str, np.ndarray]) -> None:
    x = np.linspace(*landscape.view[0], 400)
    axes.plot(x, _values(landscape, x[:, None]), color="k", lw=1)
    for i, (name, path) in enumerate(named.items()):
        axes.plot(path[:, 0], _values(landscape, path), **look(i), ms=5, lw=0.8, alpha=0.7, label=in_legend(name))
    start = next(iter(named.values()))[:1]
    axes.plot(start[:, 0], _values(landscape, start), "o", ms=12, mfc="none", mec="k", mew=1.5, label="start")
    draw_critical_points(axes, landscape)
    axes.set(xlim=landscape.view[0], xlabel="θ (parameter)", ylabel="f(θ)")


def _inside(landscape: Landscape, path: np.ndarray) -> np.ndarray:
    lows, highs = np.asarray(landscape.view).T
    return np.all((path[:, :2] >= lows) & (path[:, :2] <= highs), axis=1)


def _description(landscape: Landscape) -> str:
    chapter = f" (chapter {landscape.section})" if landscape.section else ""
    return textwrap.fill(f"{landscape.name}{chapter}: {landscape.description}.", 95)


def _conclusion(landscape: Landscape, named: dict[str, np.ndarray]) -> str:
    """Names the final heights, lowest first, and the paths that left the picture."""
    ends = {name: float(_values(landscape, path[-1:])[0]) for name, path in named.items()}
    order = sorted(ends, key=lambda name: ends[name] if np.isfinite(ends[name]) else np.inf)
    steps = max(len(path) for path in named.values()) - 1
    text = f"Height after {steps} steps" + (", lowest first" if len(ends) > 1 else "")
    text += f": {'; '.join(f'{name}: {ends[name]:.3g}' for name in order)}."
    gone = [name for name, path in named.items() if landscape.dim > 1 and not _inside(landscape, path[-1:])[0]]
    return text + (f" Left the picture: {'; '.join(gone)}." if gone else "")


def _infimum(landscape: Landscape) -> str:
    if np.isnan(landscape.minimum):
        return "its lowest value is not known"
    if landscape.minimum == -np.inf:
        return "unbounded below"
    count = len(landscape.minimisers)
    return f"the lowest value is {landscape.minimum:.3g}, at {count} known point{'' if count == 1 else 's'}"
