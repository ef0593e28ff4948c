"""`diagnose`: all rules over one run."""

import warnings
from collections.abc import Callable
from typing import Any

from .evidence import Evidence
from .flat_places import shelf
from .noise import batch_size, noise, stationary
from .report import Diagnosis, Finding
from .steep_places import nonfinite, spikes
from .step_length import edge_of_stability, ill_conditioning, learning_rate_too_high, learning_rate_too_low, oscillation
from .verdict import Verdict
from .wandering import wandering

# In an order in which later rules may ask what earlier ones found.
RULES: tuple[Callable[[Evidence, Verdict], Any], ...] = (
    nonfinite,
    spikes,
    learning_rate_too_high,
    shelf,
    learning_rate_too_low,
    oscillation,
    edge_of_stability,
    noise,
    stationary,
    wandering,
    ill_conditioning,
    batch_size,
)
_ORDER = {"high": 0, "medium": 1, "low": 2}


def diagnose(history: Any) -> Diagnosis:
    """Which of the chapter's challenges a run shows, on what evidence, and what to do about each.

    Args:
        history: a `lab.History`, or a dict of your own loop's arrays: `loss` [steps], readings by their names, each
            [steps] (what `gradtx.readings(state)` gave at each step, stacked); optionally `learning_rate` and
            `batch_size`, numbers or [steps], and `iterates` [steps + 1, dim]. Full batches, or one `gradtx.panel` with
            `every=1`, tell most; what is missing is named in `unjudged`.

    Returns:
        The `Diagnosis`: `challenges`, a set of words; `findings` with evidence, confidence, chapter section, source and
        code to paste; `ruled_out`; `unjudged`. Print it, show it in a notebook, or take `to_dict()` / `to_json()`.

    Raises:
        TypeError: no history, or curves that are no numbers. ValueError: no loss, or curves of other lengths.

    >>> import gradtx, numpy as np
    >>> k = np.arange(50)
    >>> run = {"loss": 2.0 * 1.1**k, "curvature_ratio/ratio": np.full(50, 1.025), "gradient_norm/global": 1.05**k}
    >>> print(sorted(gradtx.diagnose(run).challenges))
    ['learning_rate_too_high']
    """
    evidence, verdict = Evidence(history), Verdict()
    findings: list[Finding] = []
    with warnings.catch_warnings():
        # What was never measured has no median: NaN, which no rule takes for evidence. NumPy would warn of it.
        warnings.simplefilter("ignore", RuntimeWarning)
        for rule in RULES if evidence.steps else (nonfinite,):
            said = rule(evidence, verdict)
            new = said if isinstance(said, list) else [] if said is None else [said]
            new = [f for f in new if f.challenge not in verdict.found]
            verdict.found |= {f.challenge for f in new}
            findings += new
    for challenge in verdict.found:
        verdict.ruled_out.pop(challenge, None)
        verdict.unjudged.pop(challenge, None)
    for challenge in verdict.ruled_out:
        verdict.unjudged.pop(challenge, None)
    # A NaN is what something else has led to: among equals that comes first.
    findings.sort(key=lambda f: (_ORDER[f.confidence], f.challenge == "nonfinite"))
    return Diagnosis(tuple(findings), verdict.ruled_out, verdict.unjudged, len(evidence.all_loss))
