"""The report of a diagnosis as data, as text, and as a page in a notebook."""

import html
import json
import math
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .challenges import CHALLENGES

Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Finding:
    """One challenge that the run shows."""

    challenge: str  # a key of the chapter's challenges, such as "saddle"
    evidence: str  # a sentence with numbers
    numbers: dict[str, float]
    steps: tuple[int, int]  # first and last step at which it shows
    confidence: Confidence  # high: right in at least 95 % of labelled runs; medium: a reading is missing; low: a guess
    section: str  # section of the chapter
    source: str
    advice: str
    remedy: str  # code to paste after the line that makes `tx`; empty if no optimizer cures it
    next_look: str = ""  # code that prints more details but is no cure
    consequences: dict[str, str] = field(default_factory=dict)  # challenge that it explains -> explanation

    @property
    def title(self) -> str:
        """The challenge in words."""
        return CHALLENGES[self.challenge].title


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis that you can print: the findings, the challenges ruled out, and those that could not be judged."""

    findings: tuple[Finding, ...]  # most certain first
    ruled_out: dict[str, str]  # challenge or suspect -> why it is not the cause
    unjudged: dict[str, str]  # challenge -> the missing instrument or reading
    steps: int

    @property
    def challenges(self) -> set[str]:
        """The names of the challenges found; empty if there are none."""
        return {finding.challenge for finding in self.findings}

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as a dict of plain values. An unknown number is NaN or inf."""
        return asdict(self) | {"findings": [asdict(f) for f in self.findings], "challenges": sorted(self.challenges)}

    def to_json(self) -> str:
        """The diagnosis as JSON, with null for NaN and inf."""
        plain = self.to_dict()
        for found in plain["findings"]:
            numbers = found["numbers"]
            found["numbers"] = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return json.dumps(plain, indent=2, allow_nan=False)

    def __str__(self) -> str:
        lines = [self.headline]
        for finding in self.findings:
            first, last = finding.steps
            lines += [
                "",
                f"{finding.title} [{finding.challenge}] chapter {finding.section}, {finding.confidence} confidence, "
                f"steps {first} to {last}",
                *_wrapped(finding.evidence),
                *_wrapped(finding.advice),
                *(f"      {line}" for line in finding.remedy.splitlines()),
                *(_wrapped("To see more:") if finding.next_look else []),
                *(f"      {line}" for line in finding.next_look.splitlines()),
                *(line for text in finding.consequences.values() for line in _wrapped(f"It explains: {text}")),
                *_wrapped(f"Source: {finding.source}."),
            ]
        for heading, items in (("Ruled out", self.ruled_out), ("Not judged", self.unjudged)):
            if items:
                lines += ["", f"{heading}:", *(line for k, v in items.items() for line in _wrapped(f"{k}: {v}"))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        blocks = [f"<h4>{html.escape(self.headline)}</h4>"]
        for f in self.findings:
            blocks.append(
                f"<details open><summary><b>{html.escape(f.title)}</b> · chapter {f.section} · {f.confidence} "
                f"confidence · steps {f.steps[0]}–{f.steps[1]}</summary>"
                f"<p>{html.escape(f.evidence)}<br>{html.escape(f.advice)}</p>"
                + (f"<pre>{html.escape(f.remedy)}</pre>" if f.remedy else "")
                + (f"<p>To see more:</p><pre>{html.escape(f.next_look)}</pre>" if f.next_look else "")
                + "".join(f"<p>It explains: {html.escape(text)}</p>" for text in f.consequences.values())
                + f"<p><small>{html.escape(f.source)}</small></p></details>"
            )
        for heading, items in (("Ruled out", self.ruled_out), ("Not judged", self.unjudged)):
            if items:
                rows = "".join(f"<li><b>{html.escape(k)}</b>: {html.escape(v)}</li>" for k, v in items.items())
                blocks.append(f"<details><summary>{heading}</summary><ul>{rows}</ul></details>")
        return "".join(blocks)

    @property
    def headline(self) -> str:
        """One sentence on the findings."""
        if not self.findings:
            return f"{self.steps} steps: these readings show no problem."
        names = ", ".join(finding.challenge.replace("_", " ") for finding in self.findings)
        return f"{self.steps} steps: {names}."


class Verdict:
    """The suspects ruled out, with the reasons, and the challenges not judged, with the missing readings."""

    def __init__(self) -> None:
        self.ruled_out: dict[str, str] = {}
        self.unjudged: dict[str, str] = {}

    def rules_out(self, suspect: str, reason: str) -> None:
        """Records that `suspect` is not the cause, for this reason."""
        self.ruled_out[suspect] = reason

    def needs(self, challenge: str, instrument: str) -> None:
        """Records that the log cannot show `challenge`, and which instrument would."""
        self.unjudged.setdefault(challenge, f"needs the readings of {instrument}.")


def finding(
    challenge: str,
    evidence: str,
    numbers: dict[str, float],
    steps: tuple[int, int],
    confidence: Confidence,
    remedy: str | None = None,
    advice: str | None = None,
) -> Finding:
    """Makes a finding with the section, source and advice of its challenge. `remedy` and `advice` replace the usual."""
    known = CHALLENGES[challenge]
    shown = numbers | {name: in_code(x) for name, x in numbers.items() if name in ("factor", "limit", "momentum")}
    return Finding(
        challenge,
        evidence,
        {name: float(value) for name, value in numbers.items()},
        (int(steps[0]), int(steps[1])),
        confidence,
        known.section,
        known.source,
        (known.advice if advice is None else advice).format_map(shown),
        (known.remedy if remedy is None else remedy).format_map(shown),
        known.next_look,
    )


def number(value: float) -> str:
    """A number with three digits. Powers of ten are used only if it is very large or small."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def in_code(value: float) -> str:
    """A number as a person would write it in code: three digits, without a power of ten from 0.0001 to a million."""
    return f"{float(f'{value:.3g}'):.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share in per cent. Above 1,000 % it is 'more than 1,000 %', so that it stays short."""
    return "more than 1,000 %" if share > 10 else f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 112, initial_indent="    ", subsequent_indent="    ")
