"""The page as HTML. Every text is escaped; styles and scripts are inside the page."""

import json
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

import gradtx
from gradtx.instruments.diagnosis.report import number

from ..compare import Comparison
from ..comparison_tables import comparison_table
from ..plots.style import COLOURS
from .panels import PagePanel, page_panels, plain_panels
from .runs import ShownRun

# The colours of the pictures, and lighter ones of the same hues for a dark page.
DARK_COLOURS = (
    "#4DA6E8", "#FF8B45", "#2FC79A", "#E79CC6", "#F2B534", "#9AD4F7", "#F0F0F0", "#CFCF63", "#E0709F", "#A9A9A9",
)  # fmt: skip
MANY_COLOURS = len(COLOURS)


def page_html(runs: list[ShownRun], summary: str, given: Any, library: str) -> str:
    """The whole page."""
    pages = page_panels(runs)
    name = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    heading = summary or (runs[0].headline if len(runs) == 1 else ", ".join(run.name for run in runs))
    parts = {
        "title": escape(f"{name}: {heading}"),
        "name": escape(name),
        "headline": escape(heading),
        "style": _part("page.css"),
        "table": _table(comparison_table(given)) if isinstance(given, Comparison) else "",
        "runs": _runs(runs) if len(runs) > 1 else "",
        "findings": "".join(_findings(i, run, len(runs) > 1) for i, run in enumerate(runs)),
        "verdicts": "".join(_verdicts(i, run.diagnosis) for i, run in enumerate(runs)),
        "panels": _panels(pages, runs),
        "version": escape(gradtx.__version__),
        "data": _json(_data(runs, pages)),
        "library": library,
        "script": _part("page.js"),
    }
    pieces = _part("page.html").split("$$")  # text, name, text, name, ..., text: inserted parts are not split again
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _part(name: str) -> str:
    return files("gradtx.lab.page").joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON for a script element. It has no "<", which could close the element."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(runs: list[ShownRun], pages: list[PagePanel]) -> dict[str, Any]:
    ends = [curve.steps[[0, -1]] for page in pages for curve in page.curves if len(curve.steps)]
    gaps = [float(np.median(np.diff(c.steps))) for page in pages for c in page.curves if len(c.steps) > 1]
    return {
        "colours": {"light": COLOURS, "dark": DARK_COLOURS},
        "steps": [float(min(end[0] for end in ends)), float(max(end[1] for end in ends))] if ends else [0.0, 1.0],
        "gap": min(gaps, default=1.0),
        "runs": [
            {"name": run.name, "shown": run.group == runs[0].group, "group": run.group, "colour": colour}
            for run, colour in zip(runs, _colours_of(runs), strict=True)
        ],
        "panels": plain_panels(pages),
    }


def _colours_of(runs: list[ShownRun]) -> list[int]:
    """The colour of each run: its number among the runs of its problem, which are shown together."""
    return [[run.group for run in runs[:i]].count(runs[i].group) % MANY_COLOURS for i in range(len(runs))]


def _runs(runs: list[ShownRun]) -> str:
    """A box to show or hide the curves of each run, and a button that switches to its findings."""
    rows = "".join(
        f'<li><label><input type="checkbox" class="show" data-run="{i}"{" checked" * (run.group == runs[0].group)}>'
        f'<span class="hidden">show the curves of {escape(run.name)}</span></label>'
        f'<button type="button" class="run" data-run="{i}" aria-pressed="{str(i == 0).lower()}">'
        f'<span class="swatch" data-colour="{colour}"></span>'
        f"<span><b>{escape(run.name)}</b><small>{escape(run.headline)}</small></span></button></li>"
        for i, (run, colour) in enumerate(zip(runs, _colours_of(runs), strict=True))
    )
    groups = list(dict.fromkeys(run.group for run in runs))
    choices = [("all", ""), ("none", "none")] if len(groups) < 2 else [*((g, g) for g in groups), ("all", "")]
    buttons = "".join(
        f'<button type="button" class="choose" data-group="{escape(group)}">{escape(label)}</button>'
        for label, group in choices
    )
    return (
        '<section id="runs"><h2>Runs</h2><p class="hint">The box of a run shows or hides its curves. '
        f"Its name shows its findings.</p><p>Curves of: {buttons}</p><ul>{rows}</ul></section>"
    )


def _findings(i: int, run: ShownRun, several: bool) -> str:
    found = run.diagnosis.findings
    items = "".join(_finding(f"finding-{i}-{k}", finding, k) for k, finding in enumerate(found))
    said = f"<p>{escape(run.name)}: {escape(run.headline)}</p>" if several else ""
    hint = '<p class="hint">Click a finding to mark its steps in every curve.</p>' if found else ""
    return _of_run("div", i, f"<h2>Findings</h2>{said}{hint}<ol>{items}</ol>")


def _of_run(tag: str, i: int, content: str) -> str:
    """A part of the page that the script shows if the run with this number is chosen."""
    return f'<{tag} class="of-run" data-run="{i}"{" hidden" * (i > 0)}>{content}</{tag}>'


def _finding(key: str, finding: gradtx.Finding, k: int) -> str:
    first, last = finding.steps
    colour = (k + 1) % MANY_COLOURS
    numbers = "".join(
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(number(value))}</dd>"
        for name, value in finding.numbers.items()
    )
    effects = "".join(f"<li>It explains: {escape(text)}</li>" for text in finding.consequences.values())
    look = f"<p>To see more:</p>{_code(finding.next_look)}" if finding.next_look else ""
    return (
        f'<li class="finding"><button type="button" class="mark" aria-expanded="false" aria-controls="{key}" '
        f'data-first="{first}" data-last="{last}" data-colour="{colour}">'
        f'<span class="swatch" data-colour="{colour}"></span><span><b>{escape(finding.title)}</b>'
        f"<small>chapter {escape(finding.section)} · {finding.confidence} confidence · steps {first} to {last} · "
        f"{escape(finding.challenge)}</small></span></button>"
        + (f'<ul class="consequences">{effects}</ul>' if effects else "")
        + f'<div class="body" id="{key}" hidden><h3>Evidence</h3><p>{escape(finding.evidence)}</p><dl>{numbers}</dl>'
        f"<h3>Remedy</h3><p>{escape(finding.advice)}</p>{_code(finding.remedy) if finding.remedy else ''}{look}"
        f'<h3>Source</h3><p>{escape(finding.source)}.</p><button type="button" class="zoom" data-first="{first}" '
        f'data-last="{last}">Zoom to these steps</button></div></li>'
    )


def _code(code: str) -> str:
    return (
        f'<div class="code"><pre tabindex="0"><code>{escape(code)}</code></pre>'
        '<button type="button" class="copy">Copy</button></div>'
    )


def _verdicts(i: int, diagnosis: gradtx.Diagnosis) -> str:
    lists = ""
    for heading, items in (("Ruled out", diagnosis.ruled_out), ("Not judged", diagnosis.unjudged)):
        rows = "".join(f"<li><b>{escape(k.replace('_', ' '))}</b>: {escape(why)}</li>" for k, why in items.items())
        if rows:
            lists += f"<details open><summary>{heading} ({len(items)})</summary><ul>{rows}</ul></details>"
    return _of_run("div", i, lists)


def _panels(pages: list[PagePanel], runs: list[ShownRun]) -> str:
    drawn: dict[str, list[str]] = {"main": [], "more": []}
    for i, page in enumerate(pages):
        drawn[page.kind].append(_panel(i, page, runs))
    main, more = (f'<div class="grid">{"".join(panels)}</div>' for panels in drawn.values())
    count = len(drawn["more"])
    return main + (f"<details><summary>More readings ({count})</summary>{more}</details>" if count else "")


def _panel(i: int, page: PagePanel, runs: list[ShownRun]) -> str:
    """A picture that the script will draw, its legend, and its meaning for each run."""
    title = page.panel.title
    labels = {curve.slot: curve.label for curve in page.curves}
    legend = "".join(
        f'<li><span class="{"line" if len(runs) == 1 else "line dash"}" data-colour="{slot}" data-slot="{slot}"></span>'
        f"{escape(label)}</li>"
        for slot, label in sorted(labels.items())
    )
    captions = "".join(
        _of_run("p", run, escape(said if len(runs) == 1 or not said else f"{runs[run].name}: {said}"))
        for run, said in page.captions.items()
    )
    return (
        f'<figure class="panel{" wide" * (title == "Loss")}"><h3>{escape(title)}</h3><ul class="legend">{legend}</ul>'
        f'<div class="plot" data-panel="{i}" role="img" aria-label="{escape(title)} over the optimizer steps"></div>'
        f"<figcaption>{captions}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = _row("th", (str(column.header) for column in table.columns))
    cells = zip(*(column.cells for column in table.columns), strict=True)
    rows = "".join(_row("td", (Text.from_markup(str(cell)).plain for cell in row)) for row in cells)
    caption = escape(f"{table.title}. {table.caption}")
    return f'<div class="table"><table><caption>{caption}</caption>{head}{rows}</table></div>'


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
