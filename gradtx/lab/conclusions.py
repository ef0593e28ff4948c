"""Conclusions of comparisons and sweeps in words, and how certain they are."""

import numpy as np

from .compare import Comparison, MethodResult, check_comparison
from .profiles import PerformanceProfile, performance_profile
from .sweep_result import Measure, Sweep


def comparison_in_words(comparison: Comparison) -> str:
    """Tells which method is best, and how sure that is. Several problems are judged by their performance profile."""
    check_comparison("comparison_in_words", comparison)
    if len(comparison.problems) > 1:
        return profile_in_words(performance_profile(comparison))
    problem = comparison.results[0].problem
    results = [result for result in comparison.results if not result.has_diverged]
    if not results:
        return f"{problem}: every method diverged at every learning rate, so none is best."
    higher, name = results[0].sweep.higher_is_better, results[0].sweep.metric_name
    sign = 1 if higher else -1
    best = max(results, key=lambda result: sign * result.metric[:, -1].mean())
    finals = best.metric[:, -1]
    form = "{:.1%}" if name == "accuracy" else "{:.3g}"
    shown = f"{form.format(finals.mean())} ± {form.format(finals.std())}"
    text = f"{problem}: {best.method} ends {'highest' if higher else 'lowest'}, validation {name} {shown}. "
    text += _how_sure(best, [result for result in results if result is not best], sign)
    target = comparison.target(problem)
    quickest = min(results, key=lambda r: np.median(r.steps_to(target)))
    steps, goal = np.median(quickest.steps_to(target)), form.format(target)
    text += f"Quickest to {goal}: {quickest.method}, {steps:.0f} steps." if steps < np.inf else f"None reached {goal}."
    gone = [result.method for result in comparison.results if result.has_diverged]
    return text + (f" Diverged at every learning rate: {', '.join(gone)}." if gone else "")


def sweep_in_words(sweep: Sweep, by: Measure = "loss") -> str:
    """Tells the best point of a sweep with its problem and method, and whether it lies at the edge of the grid."""
    who = f"{sweep.problem}, {sweep.method}" if sweep.method else sweep.problem
    if not np.isfinite(sweep.final(by)).any():
        return f"{who}: every member diverged or was not finished."
    best = sweep.best(by)
    where = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in best.items())
    values = sweep.by_point(sweep.final(by))[sweep.order(by)[0]]
    values = values[np.isfinite(values)]
    edges = [
        n.replace("_", " ") for n, axis in sweep.axes.items() if len(axis) > 2 and best[n] in (axis.min(), axis.max())
    ]
    measure = sweep.metric_name if by == "metric" else by.replace("_", " ")
    text = f"{who}: best at {where} (final {measure} {values.mean():.3g} ± {values.std():.2g})."
    return text + (f" This is at the edge of the grid in {', '.join(edges)}. Extend the grid." if edges else "")


def profile_in_words(profile: PerformanceProfile) -> str:
    """Tells which method scores highest over several problems, and whether one problem alone decides it."""
    order = sorted(profile.scores, key=lambda method: -profile.scores[method])
    best, count = order[0], len(profile.problems)
    if profile.scores[best] == 0:
        return f"No method reached the target of any of {count} problems."
    text = f"Over {count} problems {best} scores highest ({profile.scores[best]:.2f} of 1)"
    if len(order) > 1:
        text += f", next {order[1]} ({profile.scores[order[1]]:.2f})"
    quickest = {m: int((r == 1).sum()) for m, r in profile.ratios.items()}
    most = max(quickest.values())
    names = ", ".join(method for method, times in quickest.items() if times == most)
    text += f". Most often the quickest: {names} ({most} of {count})." if most > 1 else ". None is often the quickest."
    unreached = [n for i, n in enumerate(profile.problems) if min(r[i] for r in profile.ratios.values()) == np.inf]
    text += f" No method reached the target of {', '.join(unreached)}." if unreached else ""
    return text + (_how_sure_of_profile(profile, best) if len(order) > 1 else "")


def _how_sure_of_profile(profile: PerformanceProfile, best: str) -> str:
    """Leaves out each problem once and tells whether the same method stays first."""
    for i, problem in enumerate(profile.problems):
        rest = {method: np.delete(ratios, i) for method, ratios in profile.ratios.items()}
        scores = PerformanceProfile(profile.problems, profile.targets, rest, profile.max_ratio).scores
        first = max(scores, key=lambda method: scores[method])
        if scores[first] > scores[best]:
            return f" How sure: not very. Without {problem}, {first} would score higher."
    return f" How sure: {best} stays first whichever problem is left out."


def _how_sure(best: MethodResult, others: list[MethodResult], sign: int) -> str:
    """Tells whether the mean lead per seed exceeds two of its standard errors. All methods have the same seeds."""
    if not others:
        return ""
    seeds = len(best.metric)
    if seeds < 2:
        return "How sure: one seed cannot tell. Use more seeds. "
    close = []
    for other in others:
        lead = sign * (best.metric[:, -1] - other.metric[:, -1])
        if not lead.mean() > 2 * lead.std(ddof=1) / seeds**0.5:
            close.append(other.method)
    if not close:
        return f"How sure: over {seeds} seeds it leads every other method by more than two standard errors. "
    text = f"How sure: over {seeds} seeds it leads {', '.join(close)} by less than two standard errors"
    return f"{text}, and the others by more. " if len(close) < len(others) else f"{text}. "
