"""Joins sweeps that differ in a hyper-parameter that cannot be traced, such as `nesterov`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from .sweep_result import Measure, Sweep, check_has_best, check_sweeps, ranking, sweep_table


@dataclass(frozen=True, eq=False)
class JoinedSweeps:
    """The result of `join`: sweeps by name, with one ranking of all their points."""

    sweeps: dict[str, Sweep]

    def order(self, by: Measure = "loss") -> list[tuple[str, int]]:
        """Every point as (name of its sweep, flat index in it), best first."""
        sweeps = list(self.sweeps.values())
        points = [(name, index) for name, sweep in self.sweeps.items() for index in range(sweep.num_points)]
        higher = by == "metric" and sweeps[0].higher_is_better
        return [points[i] for i in ranking([sweep.final(by) for sweep in sweeps], higher)]

    def best(self, by: Measure = "loss") -> dict[str, Any]:
        """The name of the sweep that holds the best point, as "sweep", and the hyper-parameters of the point.

        Raises:
            ValueError: if every member of every sweep diverged or was not finished.
        """
        check_has_best("JoinedSweeps.best", list(self.sweeps.values()), by)
        name, index = self.order(by)[0]
        return {"sweep": name, **self.sweeps[name].point(index)}

    def table(self, rows: int = 10, by: Measure = "loss") -> Table:
        """The best points of all sweeps, with the spread over the keys."""
        order = self.order(by)
        chosen = [(name, self.sweeps[name], index) for name, index in order[:rows]]
        return sweep_table(chosen, len(order), by, named=True)


def join(sweeps: Mapping[str, Sweep] | Iterable[Sweep]) -> JoinedSweeps:
    """Gives one table and one `best()` over several sweeps of one problem.

    A hyper-parameter that decides a branch or a shape cannot be traced, so each of its values needs its own sweep.

    Args:
        sweeps: {name: sweep}, or several sweeps, which are then called "0", "1", ... Their grids may differ.

    Raises:
        ValueError: if there is no sweep, or the sweeps differ in problem, metric or number of steps.
        TypeError: if `sweeps` holds anything but sweeps.

    >>> import gradtx, jax
    >>> from functools import partial
    >>> from gradtx import lab, landscapes
    >>> keys, valley = jax.random.split(jax.random.key(0), 1), landscapes.quadratic(100.0)
    >>> grid = {"learning_rate": [0.003, 0.01], "momentum": [0.5, 0.9]}
    >>> branches = {"heavy ball": gradtx.sgd, "nesterov": partial(gradtx.sgd, nesterov=True)}
    >>> joined = lab.join({name: lab.sweep(valley, tx, grid, steps=50, keys=keys) for name, tx in branches.items()})
    >>> print(joined.best("train_loss"))
    {'sweep': 'nesterov', 'learning_rate': 0.01, 'momentum': 0.9}
    """
    is_one = isinstance(sweeps, Sweep) or not isinstance(sweeps, Iterable)
    named: Any = sweeps.items() if isinstance(sweeps, Mapping) else enumerate([sweeps] if is_one else sweeps)
    given: dict[str, Any] = {str(name): sweep for name, sweep in named}
    check_sweeps("join", given.values())
    for what, of in (
        ("problem", lambda s: s.problem),
        ("metric", lambda s: s.metric_name),
        ("number of steps", lambda s: s.loss.shape[-1]),
    ):
        values = {name: of(sweep) for name, sweep in given.items()}
        if len(set(values.values())) > 1:
            found = ", ".join(f"{name}: {value}" for name, value in values.items())
            raise ValueError(
                f"join: sweeps must have the same {what}, got {found}. Only equal trainings can be ranked."
            )
    return JoinedSweeps(given)
