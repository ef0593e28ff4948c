"""A diagnosis on one page: the loss with a mark for each challenge, the findings, and the panels behind them."""

import textwrap

import numpy as np
from matplotlib.axes import Axes

import gradtx

from ..arguments import check_kind
from .readings import NO_STEP, Run, curves_of, draw_panels, has_steps, name_of, panels_of
from .style import COLOURS, Picture, headline, light_grid, new_picture, styled


@styled
def plot_diagnosis(run: Run, diagnosis: gradtx.Diagnosis | None = None) -> Picture:
    """Draws the diagnosis of a run on one page.

    Args:
        run: a `History`, or a dict of arrays [steps]: `loss` and readings by their names.
        diagnosis: the diagnosis of that run. If None, `gradtx.diagnose` is called.

    Raises:
        TypeError, ValueError: if `run` is not a run; the error is that of `gradtx.diagnose`.
    """
    if diagnosis is None:
        diagnosis = gradtx.diagnose(run) if has_steps(run) else gradtx.Diagnosis((), {}, {}, 0)
    check_kind("plot_diagnosis", "diagnosis", diagnosis, gradtx.Diagnosis, "which gradtx.diagnose returns")
    curves = curves_of(run)
    panels = [panel for panel in panels_of(curves) if panel.title != "Loss"]
    rows = -(-len(panels) // 3)
    text = _text(diagnosis)
    top = max(3.2, 0.19 * (text.count("\n") + 2))
    figure = new_picture(12, top + 2.9 * rows + 0.5)
    headline(figure, f"{name_of(run)}{diagnosis.headline if has_steps(run) else NO_STEP}", 13)
    grid = figure.add_gridspec(2, 1, height_ratios=[top, max(2.9 * rows, 0.01)])
    upper = figure.add_subfigure(grid[0])
    _loss(upper.add_subplot(1, 2, 1), curves["loss"], curves["step"], diagnosis)
    upper.text(0.53, 0.93, text, va="top", fontsize=9, linespacing=1.35)
    if rows:
        places = figure.add_subfigure(grid[1]).subplots(rows, 3, squeeze=False, sharex=True)
        draw_panels(list(places.ravel()), panels, curves)
    return figure


def _loss(axes: Axes, loss: np.ndarray, steps: np.ndarray, diagnosis: gradtx.Diagnosis) -> None:
    finite = loss[np.isfinite(loss)]
    axes.plot(steps, loss, color="k", lw=1.2, marker="." if len(loss) < 40 else "")
    if len(finite) and (finite > 0).all():
        axes.set_yscale("log")
    for i, finding in enumerate(diagnosis.findings):
        colour = COLOURS[(i + 1) % len(COLOURS)]
        first, last = finding.steps
        y = 0.02 + 0.045 * i  # one bar per challenge, so that spans that overlap can be told apart
        axes.axvspan(first, max(last, first + 1), color=colour, alpha=0.08, lw=0)
        axes.plot([first, max(last, first + 1)], [y, y], transform=axes.get_xaxis_transform(), color=colour, lw=5,
                  solid_capstyle="butt", label=finding.challenge.replace("_", " "))  # fmt: skip
    if diagnosis.findings:
        axes.legend(loc="upper right", fontsize=8)
    if not len(finite):
        axes.annotate("no finite value", (0.5, 0.5), xycoords="axes fraction", ha="center")
    axes.set(xlabel="optimizer step", ylabel="minibatch loss")
    axes.set_title("Loss, with the steps of each challenge", fontweight="bold")
    light_grid(axes)


def _text(diagnosis: gradtx.Diagnosis) -> str:
    lines = []
    for finding in diagnosis.findings:
        lines.append(f"{finding.title.upper()}  (chapter {finding.section}, {finding.confidence} confidence)")
        lines += [f"   {line}" for line in textwrap.wrap(finding.evidence, 82)]
        lines.append("   → " + "\n      ".join(textwrap.wrap(finding.advice, 80)))
        if finding.consequences:
            lines.append(f"   It explains: {', '.join(name.replace('_', ' ') for name in finding.consequences)}.")
        lines.append("")
    for heading, items in (("Ruled out", diagnosis.ruled_out), ("Not judged", diagnosis.unjudged)):
        names = ", ".join(name.replace("_", " ") for name in items)
        if names:
            lines += textwrap.wrap(f"{heading}: {names}.", 88)
    return "\n".join(lines)
