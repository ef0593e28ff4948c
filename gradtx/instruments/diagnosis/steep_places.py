"""Rules on where the gradient is very large: cliffs, exploding gradients, and numbers that are none.

A *spike* is a gradient of ten times or more the norms on both sides of it, and of three times all but the largest
twentieth of the run. A cliff shows as one, or a few, at places where the model of the loss saw nothing coming (r < 1
the step before); many, or a norm that grows by orders of magnitude, are gradients that explode. (Pascanu, Mikolov &
Bengio 2013 clip at half to ten times the usual norm: beyond ten nothing usual is left.)
"""

import numpy as np

from .evidence import Evidence
from .medians import medians
from .report import Finding, finding
from .verdict import Verdict


def nonfinite(e: Evidence, verdict: Verdict) -> Finding | None:
    """NaN or inf in loss, gradients or parameters."""
    where = []
    if e.steps < len(e.all_loss):
        where.append(e.steps)
    if e.diverged_at >= 0:
        where.append(e.diverged_at)
    counts = e.whole("gradient_norm/nonfinite")
    if counts is not None and np.nanmax(counts, initial=0) > 0:
        where.append(int(np.argmax(np.nan_to_num(counts) > 0)))
    norms = e.whole("gradient_norm/global")
    if norms is not None and np.isinf(norms).any():
        where.append(int(np.argmax(np.isinf(norms))))
    if not where:
        verdict.rules_out("nonfinite", "every loss is finite.")
        return None
    text = f"From step {min(where)} on a loss, gradient or parameter is NaN or inf."
    return finding("nonfinite", text, {"step": min(where)}, (min(where), len(e.all_loss) - 1), "high")


def spikes(e: Evidence, verdict: Verdict) -> list[Finding]:
    """Cliffs and exploding gradients, from the norms."""
    if e.norm is None:
        for challenge in ("cliff", "exploding_gradients"):
            verdict.needs(challenge, "gradtx.gradient_norm()")
        return []
    found = _spikes(e.norm)
    usual = float(np.nanmedian(e.norm))
    if growth := _growth(e, e.norm):
        return [growth]
    ratio = e.curve("curvature_ratio/ratio")
    if ratio is not None:
        found = [k for k in found if k == 0 or not ratio[k - 1] >= 1]
    if not found:
        largest = float(np.nanmax(e.norm)) / max(usual, 1e-30)
        if largest < 5:
            verdict.rules_out("cliff", f"the largest gradient is {largest:.2g} times the usual one.")
        return []
    height, usual = float(np.nanmax(e.norm[found])), float(np.nanmedian(e.norm[: found[0]]))
    after = e.loss[min(found[0] + 1, e.steps - 1)] - e.loss[found[0]]
    text = (
        f"At {_listed(found)} the gradient norm leaps to {height:.3g}, {height / max(usual, 1e-30):.0f} times the "
        f"usual {usual:.3g}, and the loss goes from {e.loss[found[0]]:.3g} to {e.loss[found[0]] + after:.3g}."
    )
    numbers = {"spikes": len(found), "height": height, "usual_norm": usual}
    many = len(found) > max(3, 0.02 * e.steps)
    word = "exploding_gradients" if many and e.has_layers else "cliff"
    return [finding(word, text, numbers, (found[0], found[-1]), "high" if len(found) < 3 else "medium")]


def _spikes(norm: np.ndarray) -> list[int]:
    """Steps of isolated large gradients."""
    known = norm[np.isfinite(norm) & (norm > 0)]
    if len(known) < 4:
        return []
    floor = 3 * np.percentile(known, 95) if len(known) >= 40 else 0.5 * known.max()
    found = []
    for k in np.flatnonzero(norm >= floor):
        before, after = norm[max(0, k - 20) : k], norm[k + 1 : k + 21]
        if not len(before) or not np.isfinite(after).any():
            continue
        jumped = norm[k] >= 10 * np.nanmedian(before) and norm[k] >= 5 * before[-1]
        fell = norm[k] >= 10 * np.nanmedian(after)
        if jumped and fell:
            found.append(int(k))
    return found


def _growth(e: Evidence, norm: np.ndarray) -> Finding | None:
    """Gradients that explode: four ways in which it shows."""
    return (
        (_last_leap(e, norm) or _rise(e, norm) or _runaway(e, norm) or _enormous_start(e, norm))
        if e.has_layers
        else None
    )


def _last_leap(e: Evidence, norm: np.ndarray) -> Finding | None:
    """The norm leaps by three orders of magnitude, and then nothing is finite."""
    with np.errstate(all="ignore"):
        leaps = norm[1:] / norm[:-1]
    if not (e.steps < len(e.all_loss) and len(leaps) and np.nanmax(leaps[-5:]) >= 1e3):
        return None
    k = len(leaps) - len(leaps[-5:]) + int(np.nanargmax(leaps[-5:]))
    text = (
        f"At step {k + 1} the gradient norm leaps from {norm[k]:.3g} to {norm[k + 1]:.3g}, and then nothing is finite."
    )
    usual = float(np.nanmedian(norm[: k + 1]))
    return finding("exploding_gradients", text, {"leap": leaps[k], "usual_norm": usual}, (k, k + 1), "high")


def _rise(e: Evidence, norm: np.ndarray) -> Finding | None:
    """The norm grows by two orders of magnitude and more, and takes the loss up with it, though no step overshot."""
    parts = medians(norm)
    lowest, highest = int(np.nanargmin(parts)), int(np.nanargmax(parts))
    grew = parts[highest] / max(parts[lowest], 1e-30)
    ratio = e.curve("curvature_ratio/ratio")
    overshoots_first = ratio is not None and bool(np.nanmax(ratio[: max(3, e.steps // 20)]) >= 1)
    takes_the_loss_up = highest > lowest and e.levels[highest] > 2 * abs(e.levels[lowest])
    if overshoots_first or grew < 100 or not takes_the_loss_up:
        return None
    text = (
        f"The gradient norm grew {grew:.0f} times, from {parts[lowest]:.3g} to {parts[highest]:.3g}, and the loss with "
        "it."
    )
    edges = np.linspace(0, e.steps, len(parts) + 1).astype(int)
    numbers = {"growth": grew, "usual_norm": float(parts[lowest])}
    return finding("exploding_gradients", text, numbers, (edges[lowest], edges[highest + 1] - 1), "high")


def _runaway(e: Evidence, norm: np.ndarray) -> Finding | None:
    """A hundred times the usual norm, on curvatures for which the step is a thousand times too long."""
    ratio = e.curve("curvature_ratio/ratio")
    wild = 0.0 if ratio is None else float(np.nanmax(np.abs(ratio)))
    highest_at, usual = int(np.nanargmax(norm)), float(np.nanmedian(norm))
    if wild < 1e3 or norm[highest_at] < 100 * usual:
        return None
    text = (
        f"Gradients of up to {norm[highest_at]:.3g} (step {highest_at}) where {usual:.3g} is usual, on curvatures that "
        f"make a step {wild:.2g} times too long: products that run away."
    )
    numbers = {"height": norm[highest_at], "usual_norm": usual, "ratio": wild}
    seen = np.flatnonzero(norm >= 10 * usual)
    return finding("exploding_gradients", text, numbers, (seen[0], seen[-1]), "high")


def _enormous_start(e: Evidence, norm: np.ndarray) -> Finding | None:
    """Moving the first parameters by a thousandth of their length would change the loss by more than all of it."""
    pull = _pull(e, norm)
    if pull <= 1e3:
        return None
    text = (
        "The first gradients are enormous: a step of a thousandth of the parameters' length changes the loss by "
        f"{pull / 10:.0f} % to first order."
    )
    numbers = {"pull": pull, "usual_norm": float(np.nanmedian(norm))}
    return finding("exploding_gradients", text, numbers, (0, e.steps - 1), "medium")


def _pull(e: Evidence, norm: np.ndarray) -> float:
    """‖g‖ ‖θ‖ / loss at the first steps: 2 on any bowl about 0, a few on healthy nets."""
    ratio = e.curve("update_ratio/global")
    if ratio is None or not e.learning_rate or e.start <= 0:
        return 0.0
    first = slice(0, max(3, e.steps // 50))
    with np.errstate(all="ignore"):
        length = e.learning_rate * norm[first] / ratio[first]
        pull = norm[first] * length / np.abs(e.loss[first])
    pull = pull[np.isfinite(pull)]
    return float(np.median(pull)) if len(pull) else 0.0


def _listed(steps: list[int]) -> str:
    shown = ", ".join(map(str, steps[:4]))
    return f"step{'s' if len(steps) > 1 else ''} {shown}{', ...' if len(steps) > 4 else ''}"
