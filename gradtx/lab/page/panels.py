"""The curves of a page, panel by panel: the groups of `plot_readings`, and one panel for each other curve."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gradtx.instruments.diagnosis.logs import Log, read_log

from ..history import scalar_columns
from ..plots.panel_list import PANELS, Panel
from ..plots.readings import curves_of, floor_of, has_steps, panels_of, scale_of
from .runs import ShownRun

MOST_POINTS = 2000  # per curve
PAGE_POINTS = 200_000  # of all curves together, but at least FEWEST_POINTS per curve
FEWEST_POINTS = 200
EVALUATED_LOSS = "Loss at evaluations"
MOST_COLUMNS = 4  # per reading that has several numbers at each step


@dataclass(frozen=True)
class Curve:
    """One line in one panel."""

    run: int
    label: str
    slot: int  # the index of its label in the panel; selects the colour or dash
    steps: np.ndarray
    values: np.ndarray


@dataclass
class PagePanel:
    """One picture of the page."""

    panel: Panel
    kind: str  # "main", or "more" for readings that are shown on demand
    curves: list[Curve] = field(default_factory=list)
    captions: dict[int, str] = field(default_factory=dict)  # run -> the meaning of its curves


def page_panels(runs: list[ShownRun]) -> list[PagePanel]:
    """All panels that hold a curve, the loss first."""
    groups = {panel.title: PagePanel(panel, "main") for panel in PANELS}
    others: dict[tuple[str, str], PagePanel] = {}
    for i, shown in enumerate(runs):
        if not has_steps(shown.run):
            continue
        log, curves = read_log(shown.run), curves_of(shown.run)
        for panel in panels_of(curves) or [PANELS[0]]:
            group = groups[panel.title]
            more = _not_finite(log) if panel.title == "Loss" else ""
            group.captions[i] = f"{panel.meaning(curves)} {more}".strip()
            for slot, (name, label) in enumerate(panel.curves.items()):
                if name in curves:
                    group.curves.append(Curve(i, label, slot, curves["step"], curves[name]))
        for kind, title, label, steps, values in _others(shown, log):
            other = others.setdefault((kind, title), PagePanel(Panel(title, {}, lambda _: ""), kind))
            other.panel.curves.setdefault(label, label)
            slot = list(other.panel.curves).index(label)
            other.curves.append(Curve(i, label, slot, steps, values))
    own = [_with_scale(page) for page in others.values()]
    return [page for page in [*groups.values(), *own] if page.curves]


def _others(shown: ShownRun, log: Log) -> Iterable[tuple[str, str, str, np.ndarray, np.ndarray]]:
    """The evaluations, the readings that no panel of `plot_readings` shows, and the user's own curves."""
    for label, values in shown.evaluations.items():
        title = EVALUATED_LOSS if label.endswith(" loss") else label.capitalize()
        yield "main", title, label, shown.eval_steps, values
    in_panels = {name for panel in PANELS for name in panel.curves} | {"step"}
    for name, values in log.curves.items():
        if name not in in_panels:
            is_reading = "/" in name
            title = name.replace("_", " ").replace("/", ": ") if is_reading else name.replace("_", " ").capitalize()
            for label, column in _columns(name, values):
                yield "more" if is_reading else "main", title, label, log.step, column
    for name, values in log.others.items():
        if np.isfinite(values).any():
            yield "main", name, name, log.step, values


def _columns(name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """One curve per number at each step. If there are many, the lowest, the median and the highest."""
    columns = scalar_columns({name: values})
    if len(columns) > MOST_COLUMNS:
        ordered = np.sort(np.stack(list(columns.values()), axis=1), axis=1)  # NaN comes last
        known = np.maximum((~np.isnan(ordered)).sum(axis=1), 1)
        rows = np.arange(len(ordered))
        places = {"lowest": 0 * known, "median": (known - 1) // 2, "highest": known - 1}
        columns = {f"{word} of {len(columns)}": ordered[rows, place] for word, place in places.items()}
    return [(label, column) for label, column in columns.items() if np.isfinite(column).any()]


def _with_scale(page: PagePanel) -> PagePanel:
    """Chooses a log scale for losses, and if all values are above 0 and differ by more than a factor of 100."""
    values = np.concatenate([curve.values[np.isfinite(curve.values)] for curve in page.curves])
    is_wide = len(values) > 0 and values.min() > 0 and values.max() > 100 * values.min()
    return replace(page, panel=replace(page.panel, log=bool(is_wide) or page.panel.title == EVALUATED_LOSS))


def _not_finite(log: Log) -> str:
    """How many values of the loss are missing from its curve because they are NaN or inf."""
    is_lost = ~np.isfinite(log.loss) & ~log.is_gap
    if not is_lost.any():
        return ""
    first = log.step[int(np.argmax(is_lost))]
    return f"NaN or inf values: {int(is_lost.sum())}, the first at step {first:.0f}. The curve has gaps there."


def plain_panels(pages: list[PagePanel]) -> list[dict[str, Any]]:
    """The panels as plain values for JSON."""
    total = sum(len(page.curves) for page in pages)
    most = int(np.clip(PAGE_POINTS // max(1, total), FEWEST_POINTS, MOST_POINTS))
    return [_plain_panel(page, most) for page in pages]


def _plain_panel(page: PagePanel, most: int) -> dict[str, Any]:
    panel = page.panel
    measured = [curve.values[np.isfinite(curve.values)] for curve in page.curves]
    scale = scale_of(panel, [finite for finite in measured if len(finite)] or measured)
    values = np.concatenate(measured)
    plain: dict[str, Any] = {"scale": scale, "curves": [_plain_curve(curve, scale, most) for curve in page.curves]}
    if scale == "log":
        high = float(values.max())
        plain["floor"] = floor_of(values, high)
        low = max(plain["floor"], float(values[values > 0].min()))
    else:
        low, high = -np.inf, np.inf
    lines = {h: text for h, text in panel.lines.items() if low / 30 < h < 30 * high}
    plain["lines"] = [[symlog(np.array(h)).item() if scale == "symlog" else h, text] for h, text in lines.items()]
    if panel.limits:
        plain["limits"] = list(panel.limits)
    return plain


def _plain_curve(curve: Curve, scale: str, most: int) -> dict[str, Any]:
    values = np.where(curve.values > 0, curve.values, np.nan) if scale == "log" else curve.values
    steps, values = thinned(curve.steps, values, most)
    is_known = np.isfinite(values)
    around = np.concatenate([[False], is_known, [False]])
    has_dots = is_known.sum() < 40 or (is_known & ~around[:-2] & ~around[2:]).any()
    plain: dict[str, Any] = {"run": curve.run, "label": curve.label, "slot": curve.slot, "dots": bool(has_dots)}
    plain |= {"x": [_rounded(x) for x in steps], "y": [_rounded(y) for y in values]}
    if scale == "symlog":
        plain |= {"y": [_rounded(y) for y in symlog(values)], "raw": plain["y"]}
    return plain


def symlog(values: np.ndarray) -> np.ndarray:
    """Heights that are linear up to 1 and logarithmic beyond, as matplotlib's "symlog" with linthresh=1.

    >>> print(symlog(np.array([-100.0, 0.5, 1.0, 1000.0])))
    [-3.   0.5  1.   4. ]
    """
    size = np.abs(values)
    return np.where(size > 1, np.sign(values) * (1 + np.log10(np.maximum(size, 1))), values)


def thinned(steps: np.ndarray, values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` points of a curve, each at its own step. Non-finite values in a row become one NaN, a gap.

    A longer curve is split into `most` / 2 parts of equal length. Each part keeps its lowest and its highest value, so
    that no spike is lost, and one value that is not finite, if it has any. The first and the last point stay. If more
    than half of the values are missing, as for a loss that is logged once per epoch, gaps are left out.

    >>> print(thinned(np.arange(8), np.array([3.0, 1, 2, 9, 5, 4, 6, 5.5]), 4))
    (array([0, 1, 3, 5, 6, 7]), array([3. , 1. , 9. , 4. , 6. , 5.5]))
    """
    known = np.isfinite(values)
    if 2 * known.sum() < len(values):
        steps, values, known = steps[known], values[known], known[known]
    is_first = np.concatenate([[True], known[:-1]])[: len(known)]  # of non-finite values in a row
    kept = known | is_first
    steps, values, known = steps[kept], np.where(known, values, np.nan)[kept], known[kept]
    if len(values) <= most:
        return steps, values
    keep = {0, len(values) - 1}
    edges = np.linspace(0, len(values), most // 2 + 1).astype(int)
    for first, last in itertools.pairwise(edges):
        part, is_known = values[first:last], known[first:last]
        if is_known.any():
            keep |= {first + int(np.nanargmin(part)), first + int(np.nanargmax(part))}
        if not is_known.all():
            keep.add(first + int(np.argmin(is_known)))
    places = sorted(keep)
    return steps[places], values[places]


def _rounded(value: Any) -> float | int | None:
    """The value to six digits, more than a screen shows; None if it is not finite."""
    number = float(value)
    if not np.isfinite(number):
        return None
    short = float(f"{number:.6g}") if abs(number) < 1e5 or number != round(number) else number
    return int(short) if short == round(short) and abs(short) < 2**53 else short
