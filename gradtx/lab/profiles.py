"""Performance profiles: on how many problems a method is within a factor of the best.

**Source**: Dolan & Moré 2002, "Benchmarking optimization software with performance profiles"; scored as in Dahl et al.
2023, "Benchmarking neural network training algorithms" (AlgoPerf), §4.5: the area under the profile up to factor 4.
"""

from dataclasses import dataclass

import numpy as np

from .compare import Comparison


@dataclass(frozen=True)
class PerformanceProfile:
    """For each method, the fraction of problems on which it needs at most tau times the steps of the quickest one."""

    problems: tuple[str, ...]
    targets: dict[str, float]  # problem -> the metric to reach
    ratios: dict[str, np.ndarray]  # method -> [problems] steps over those of the quickest method; inf: never reached
    max_ratio: float

    def fraction(self, method: str, tau: np.ndarray | float) -> np.ndarray:
        """The profile of a method at each tau."""
        return np.mean(self.ratios[method] <= np.asarray(tau)[..., None], axis=-1)

    @property
    def scores(self) -> dict[str, float]:
        """Mean height of each profile from 1 to `max_ratio`: 1 if always quickest, 0 if never within `max_ratio`."""
        width = self.max_ratio - 1
        return {
            method: float(np.mean(np.clip(self.max_ratio - ratios, 0, width) / width))
            for method, ratios in self.ratios.items()
        }


def performance_profile(comparison: Comparison, max_ratio: float = 4.0) -> PerformanceProfile:
    """The profile of a comparison: steps to each problem's target, median over the seeds, at each method's best rate.

    A problem whose target no method reached counts against all of them.

    Args:
        comparison: a comparison on one or more problems. A method without a result on a problem counts as not
            reaching its target.
        max_ratio: end of the profile, > 1.

    Raises:
        ValueError: if `max_ratio` is out of range.
    """
    if not 1 < max_ratio < np.inf:
        raise ValueError(f"performance_profile: max_ratio must be in (1, inf), got {max_ratio}.")
    results = comparison.results
    names = tuple(dict.fromkeys(result.problem for result in results))
    targets = {name: comparison.target(name) for name in names}
    steps = {(r.problem, r.method): max(1.0, float(np.median(r.steps_to(targets[r.problem])))) for r in results}
    quickest = {name: min(s for (problem, _), s in steps.items() if problem == name) for name in names}

    def ratio(problem: str, method: str) -> float:
        taken = steps.get((problem, method), np.inf)
        return taken / quickest[problem] if np.isfinite(taken) else np.inf

    ratios = {method: np.array([ratio(name, method) for name in names]) for method in comparison.methods}
    return PerformanceProfile(names, targets, ratios, max_ratio)
