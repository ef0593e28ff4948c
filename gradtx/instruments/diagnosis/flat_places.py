"""Rules on where the gradient is small: saddles, flat regions and vanishing gradients.

A *shelf* is a part of the run over which the gradient is below a tenth of the largest the run met, or the whole run
where moving the parameters by their own length would change the loss by less than 2 % to first order. At a shelf the
curvature along the gradient tells: clearly negative against the largest met (below -2 %), a saddle is being left; next
to nothing, the region is flat. (Both numbers from the labelled runs of the tests.)
"""

import numpy as np

from .evidence import Evidence
from .medians import late_median, median_of, medians
from .noise import noise_to_signal
from .report import Finding, finding
from .verdict import Verdict

_SMALL, _FLAT = 0.1, 0.02


def shelf(e: Evidence, verdict: Verdict) -> list[Finding]:
    """Saddle, plateau or vanishing gradients, where the norm and the curvature tell."""
    if e.norm is None:
        for challenge in ("saddle", "plateau", "vanishing_gradients"):
            verdict.needs(challenge, "gradtx.gradient_norm()")
        return []
    if verdict.found & {"learning_rate_too_high", "cliff", "exploding_gradients"}:
        return _from_temporal(e, verdict)  # where a run was thrown to is no place that it met on its way
    if silent := _no_signal(e):
        return [*silent, *_from_temporal(e, verdict)]
    norms = medians(e.norm)
    largest = float(np.nanmax(norms))
    if not _is_flat_throughout(e) and (passage := _passage(e, norms) or _leaving(e, norms)):
        return [passage, *_from_temporal(e, verdict)]
    if np.nanmin(norms) > _SMALL * largest and not _is_flat_throughout(e):
        reason = (
            f"the gradient norm never fell below {np.nanmin(norms) / largest:.0%} of its largest: no critical point"
        )
        verdict.rules_out("minima, saddles and plateaus", reason + " is to blame (chapter §2.2).")
        return _from_temporal(e, verdict)
    if e.curvature is None:
        for challenge in ("saddle", "plateau"):
            verdict.needs(challenge, "gradtx.curvature_ratio(learning_rate)")
        return _from_temporal(e, verdict)
    if _is_flat_throughout(e):
        return _flat_run(e, e.norm) + _from_temporal(e, verdict)
    return _passed_shelf(e, norms / largest, e.curvature) + _from_temporal(e, verdict)


def _passage(e: Evidence, norms: np.ndarray) -> Finding | None:
    """Past a saddle: the norm dips to a quarter and rises again, while the curvature turns clearly negative."""
    if e.curvature is None or len(norms) < 5 or not np.isfinite(norms[1:-1]).any():
        return None
    curvature = medians(e.curvature)
    k = int(np.nanargmin(norms[1:-1])) + 1
    dips = norms[k] < 0.25 * min(np.nanmax(norms[:k]), np.nanmax(norms[k + 1 :]))
    turns = np.nanmedian(curvature[max(0, k - 3) : k]) > 0 > np.nanmedian(curvature[k + 1 : k + 4])
    is_clear = np.nanmin(curvature[k + 1 :]) < -_FLAT * np.nanmax(np.abs(curvature))
    if not (dips and turns and is_clear and e.levels[-1] < e.levels[k]):
        return None
    edges = np.linspace(0, e.steps, len(norms) + 1).astype(int)
    text = (
        f"About step {edges[k]} the gradient norm dips to {norms[k]:.3g}, from {np.nanmax(norms[:k]):.3g}, and rises "
        f"again to {np.nanmax(norms[k + 1 :]):.3g}, as the curvature along it turns from positive to negative: a "
        "saddle passed by."
    )
    numbers = {"norm": norms[k], "before": np.nanmax(norms[:k]), "after": np.nanmax(norms[k + 1 :])}
    return finding("saddle", text, numbers, (edges[max(0, k - 3)], edges[min(k + 4, len(norms))] - 1), "high")


def _leaving(e: Evidence, norms: np.ndarray) -> Finding | None:
    """Away from a saddle: the run starts with a small gradient that grows while its curvature is negative."""
    if e.curvature is None or len(norms) < 5:
        return None
    k = int(np.nanargmax(norms))
    small = norms[:k] < 0.25 * norms[k]
    if not small.all() and k:
        small = small[: int(np.argmin(small))]
    if len(small) < 0.05 * len(norms) or not small.any():
        return None
    last = int(len(small) * e.steps / len(norms))
    curvature = medians(e.curvature)[: len(small)]
    steepest = float(np.nanmax(np.abs(medians(e.curvature))))
    is_level = abs(e.levels[len(small) - 1] - e.start) < 0.1 * e.drop
    if (
        not is_level
        or not np.nanmin(curvature) < -_FLAT * steepest
        or np.nanmedian(np.abs(curvature)) < _FLAT * steepest
    ):
        return None
    text = (
        f"Over the first {last} steps the loss stays near {e.start:.3g} and the gradient grows from {norms[0]:.3g} "
        f"towards {norms[k]:.3g}, with negative curvature along it ({np.nanmin(curvature) / steepest:.0%} of the "
        "largest): a saddle left."
    )
    numbers = {"norm": norms[0], "after": norms[k], "curvature": np.nanmin(curvature) / steepest}
    return finding("saddle", text, numbers, (0, last), "high")


def _no_signal(e: Evidence) -> list[Finding]:
    """A model whose loss hardly left its start, in gradients that are noise alone, on a surface without curvature."""
    against = noise_to_signal(e)
    if not e.has_layers or against is None or e.gradients_agree or e.curvature is None or e.steps < 20:
        return []
    noise = median_of(against, keep_inf=True)
    soon = float(e.levels[len(e.levels) // 10])  # from where it starts a model finds the best constant guess, and stops
    is_stuck = abs(soon - e.end) < 0.02 * abs(e.start) and e.end > 0.85 * e.start > 0
    if not (is_stuck and noise > 1 and late_median(e.curve("curvature_ratio/ratio")) < 0.2):
        return []
    text = (
        f"The loss stays at {e.end:.4g}, where it was soon, without noise or steps so large as to explain it (r about "
        f"{late_median(e.curve('curvature_ratio/ratio')):.2g}): of ‖g‖ = {late_median(e.norm, 1.0):.2g} hardly "
        "anything is signal. The gradient does not come through, or there is nothing to learn."
    )
    numbers = {"loss": e.end, "noise_to_signal": noise}
    return [finding(kind, text, numbers, (0, e.steps - 1), "medium") for kind in ("vanishing_gradients", "plateau")]


def _is_flat_throughout(e: Evidence) -> bool:
    """‖g‖ times the parameters' size is next to nothing beside the loss, from the first steps to the last."""
    if e.norm is None or e.drop > _FLAT * abs(e.start) or e.end > e.start * 1.5 + 1e-30:
        return False
    relative = np.nanmedian(e.norm) * _size(e) / max(abs(e.start), 1e-30)
    return bool(relative < _FLAT)


def _size(e: Evidence) -> float:
    """‖θ‖, at least 1: from the path, else from update ratio and rate, else 1."""
    if e.iterates is not None:
        return max(1.0, float(np.sqrt(np.mean(e.iterates[0] ** 2))))
    ratio = late_median(e.curve("update_ratio/global"))
    if e.learning_rate and e.norm is not None and ratio > 0:
        return max(1.0, e.learning_rate * float(np.nanmedian(e.norm)) / ratio)
    return 1.0


def _flat_run(e: Evidence, gradient_norm: np.ndarray) -> list[Finding]:
    """Nothing moves from the first step on: a flat start, or gradients that vanish on their way back."""
    norm, size = float(np.nanmedian(gradient_norm)), _size(e)
    change = norm * size / max(abs(e.start), 1e-30)
    text = (
        f"The loss stays at {e.end:.4g}, and the gradient norm, {norm:.2g}, is next to nothing beside it: moving the "
        f"parameters by their own size, {size:.2g}, would change the loss by {change:.1%}."
    )
    numbers = {"gradient_norm": norm, "loss": e.end, "size": size}
    kinds = ["plateau", "vanishing_gradients"] if e.has_layers else ["plateau"]
    return [finding(kind, text, numbers, (0, e.steps - 1), "medium" if len(kinds) > 1 else "high") for kind in kinds]


def _passed_shelf(e: Evidence, relative: np.ndarray, curvature: np.ndarray) -> list[Finding]:
    """A part of the run with a small gradient, high up: with lower places found later, or none found at all."""
    small = np.flatnonzero(relative < _SMALL)
    parts = np.split(small, np.flatnonzero(np.diff(small) > 1) + 1) if len(small) else []
    steepest = max(float(np.nanmax(np.abs(curvature))), 1e-30)
    edges = np.linspace(0, e.steps, len(relative) + 1).astype(int)
    for part in parts:
        first, last = int(edges[part[0]]), int(edges[part[-1] + 1]) - 1
        level = float(np.median(e.loss[first : last + 1]))
        later = float(e.levels[part[-1] :].min())
        is_last = part[-1] == len(relative) - 1
        still_to_fall = level - later > 0.2 * max(e.start - later, level - later)
        stuck = is_last and e.start > 0 and (e.loss >= 0).all() and level > 0.9 * e.start
        seen = curvature[first : last + 1]
        seen = seen[np.isfinite(seen)]
        if (last - first + 1) < 0.05 * e.steps or not len(seen) or not (still_to_fall or stuck or is_last):
            continue
        lowest = float(np.percentile(seen, 10)) / steepest
        near_zero = float(np.median(np.abs(seen))) / steepest
        where = (
            f"steps {first} to {last}: gradient norm down to {np.nanmin(relative[part]):.2%} of its largest, loss "
            f"{level:.3g}"
        )
        numbers = {"level": level, "later": later, "relative_curvature": lowest}
        if lowest < -_FLAT:
            text = (
                f"{where}, and the curvature along the gradient negative ({lowest:.0%} of the largest met): a way down."
            )
            return [finding("saddle", text, numbers, (first, last), "high")]
        if near_zero < _FLAT and (still_to_fall or stuck):
            text = f"{where}, and no curvature to speak of ({near_zero:.2%} of the largest met)."
            return [finding("plateau", text, numbers, (first, last), "high")]
    return []


def _from_temporal(e: Evidence, verdict: Verdict) -> list[Finding]:
    """Gradients through time, where the user measured them."""
    slope, norms = e.curve("temporal_gradients/slope"), e.vectors("temporal_gradients/norms")
    if slope is None and norms is None:
        if e.has_layers:
            verdict.needs("vanishing_gradients", "gradtx.temporal_gradients(value_fn, params, probes)")
        return []
    if norms is not None:
        with np.errstate(all="ignore"):
            log_ratio = float(np.nanmedian(np.log(norms[:, -1] / norms[:, 0])))
        length = norms.shape[1]
    else:
        log_ratio, length = late_median(slope, 1.0) * 50, 50
    text = f"From the last step to the first of {length}, gradients change by a factor of {np.exp(-log_ratio):.2g}."
    numbers = {"log_ratio": log_ratio}
    if log_ratio > np.log(1e3):
        return [finding("vanishing_gradients", text, numbers, (0, e.steps - 1), "high")]
    if log_ratio < -np.log(1e3):
        return [finding("exploding_gradients", text, numbers, (0, e.steps - 1), "high")]
    verdict.rules_out("vanishing and exploding gradients", text)
    return []
