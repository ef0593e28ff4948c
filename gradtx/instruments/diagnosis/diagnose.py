"""`diagnose`: applies all rules to one run."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .batch_size import batch_size
from .causes import CERTAINTY, causes_first
from .evidence import Evidence
from .flat_places import shelf
from .leaps import leaps
from .noise import gradient_noise, stationary
from .nonfinite import nonfinite
from .report import Diagnosis, Finding, Verdict
from .slow_descent import ill_conditioning, wandering
from .steps_taken import StepsTaken
from .too_high import edge_of_stability, learning_rate_too_high, oscillation
from .too_low import learning_rate_too_low
from .vanishing import vanishing

Rule = Callable[[Evidence, StepsTaken, Verdict], list[Finding]]

# The order does not matter: no rule reads the findings of another. `causes.py` holds which finding explains which. If
# two rules find the same challenge, the surest finding counts.
RULES: tuple[Rule, ...] = (
    nonfinite, leaps, learning_rate_too_high, learning_rate_too_low, oscillation, edge_of_stability, ill_conditioning,
    shelf, vanishing, gradient_noise, stationary, batch_size, wandering,
)  # fmt: skip


def diagnose(history: Any) -> Diagnosis:
    """Finds the chapter's challenges in a run, with the evidence for each and a remedy.

    Args:
        history: a `lab.History`; or a dict of your own loop's arrays or lists: `loss` [steps], readings by their names,
            each [steps] (the results of `gradtx.readings(state)`, stacked); or a DataFrame, or a list of dicts.
            Optionally `learning_rate` (or `lr`) and `batch_size`, numbers or [steps], and `iterates` [steps + 1, dim].
            None and NaN stand for steps that were not logged. The readings of `gradtx.observed` with `every=1` allow
            most findings. `unjudged` names missing and ignored curves. Neither the unit of the loss nor its zero
            matters.

    Returns:
        The `Diagnosis`: `challenges`, a set of words; `findings` with evidence, confidence, chapter section, source and
        code to paste; `ruled_out`; `unjudged`. Print it, show it in a notebook, or take `to_dict()` / `to_json()`.
        A challenge that another one explains is among the `consequences` of the other's finding.

    Raises:
        TypeError: `history` is none of these, or the loss does not consist of numbers. ValueError: there is no loss,
            or the curves differ in length.

    >>> import gradtx, numpy as np
    >>> k = np.arange(50)
    >>> run = {"loss": 2.0 * 1.1**k, "curvature_ratio/ratio": np.full(50, 1.025), "gradient_norm/global": 1.05**k}
    >>> print(sorted(gradtx.diagnose(run).challenges))
    ['learning_rate_too_high']
    """
    return judged(history, RULES)


def judged(history: Any, rules: tuple[Rule, ...]) -> Diagnosis:
    """The diagnosis by these rules."""
    evidence, verdict = Evidence(history), Verdict()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # A number that is unknown becomes NaN, which no rule takes for evidence. NumPy would warn about it.
        warnings.simplefilter("ignore", RuntimeWarning)
        steps = StepsTaken(evidence)
        told = [one for rule in (rules if evidence.steps else (nonfinite,)) for one in rule(evidence, steps, verdict)]
    found: dict[str, Finding] = {}
    for one in sorted(told, key=_surest_first):
        found.setdefault(one.challenge, one)
    findings = _without_cure(causes_first(found.values()))
    in_count_of_log = tuple(replace(one, steps=tuple(map(evidence.name, one.steps))) for one in findings)
    ruled_out = {name: why for name, why in sorted(verdict.ruled_out.items()) if name not in found}
    unjudged = {name: why for name, why in sorted(verdict.unjudged.items()) if name not in found | ruled_out}
    return Diagnosis(in_count_of_log, ruled_out, unjudged | evidence.log.ignored, len(evidence.log.loss))


def _surest_first(finding: Finding) -> tuple[int, int, str]:
    """Sorts by confidence, and then by the number of steps that a finding names, the fewest first."""
    first, last = finding.steps
    return CERTAINTY[finding.confidence], last - first, finding.evidence


def _without_cure(findings: list[Finding]) -> list[Finding]:
    """Removes the remedy for a NaN at the end of a run that went wrong before. The cause is to be cured instead."""
    causes = {f.challenge for f in findings} & {"learning_rate_too_high", "cliff", "exploding_gradients"}
    return [
        replace(f, remedy="", advice=f"A finding above has led to it ({', '.join(sorted(causes))}). Cure that one.")
        if f.challenge == "nonfinite" and causes and f.remedy
        else f
        for f in findings
    ]
