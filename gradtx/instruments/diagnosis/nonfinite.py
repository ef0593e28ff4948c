"""Rule on values that are not finite."""

import numpy as np

from .evidence import Evidence
from .report import Finding, Verdict, finding
from .steps_taken import StepsTaken


def nonfinite(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if a computed loss, gradient or parameter is NaN or inf. A loss that was not logged does not count.

    Source: Goodfellow et al. 2016, §8.2.4. Wrong if the NaN is in the log alone and the step was finite.
    """
    counts, norms = e.whole("gradient_norm/nonfinite"), e.whole("gradient_norm/global")
    is_bad = e.is_bad | (counts is not None and counts > 0) | (norms is not None and np.isinf(norms))
    where = sorted({*np.flatnonzero(is_bad).tolist(), e.log.diverged_at} - {-1})
    if not where:
        verdict.rules_out("nonfinite", "every loss is finite.")
        return []
    first = where[0]
    goes_on = e.steps == len(e.log.loss) and np.isfinite(e.loss[first + 1 :]).any()
    if not goes_on:
        text = f"From step {e.name(first)} on, the loss, the gradient or a parameter is NaN or inf."
        return [finding("nonfinite", text, {"step": first}, (first, len(e.log.loss) - 1), "high")]
    listed = ", ".join(str(e.name(k)) for k in where[:4]) + (", ..." if len(where) > 4 else "")
    text = (
        f"At {len(where)} step{'s' if len(where) > 1 else ''} ({listed}) the loss or the gradient is NaN or inf. The "
        "loss is finite again afterwards, so these values did not reach the parameters."
    )
    advice = "The run leaves such steps out already. Find their batches, and look for an example that they all share."
    return [finding("nonfinite", text, {"step": first}, (first, where[-1]), "high", remedy="", advice=advice)]
