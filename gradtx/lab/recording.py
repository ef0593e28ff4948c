"""The run so far, on the host: grows stretch by stretch, becomes a `History`, goes to a checkpoint and comes back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.landscapes import Landscape

from .checkpoints import Checkpoint, Saved
from .history import History
from .provenance import same_evaluation
from .training import Carry, Evaluation, Objective, Record, behind_lookahead


class Stretch(NamedTuple):
    """Steps between two evaluations; before the first step there is one without a record."""

    carry: Carry | None  # at its end; kept of the last stretch only
    record: Record | None  # leaves [n]
    step: int  # steps done at its end
    evaluation: Evaluation  # at its end
    best: tuple[float, Any]  # the best metric so far, and the parameters it was measured on


class Recording:
    """All stretches so far. `add` is one append: an interrupt finds all of a stretch or nothing of it."""

    def __init__(self, objective: Objective, key: jax.Array, batch_sizes: np.ndarray) -> None:
        self.objective, self.batch_sizes = objective, batch_sizes
        self.key_data = np.asarray(jax.random.key_data(key))
        self.stretches: list[Stretch] = []

    @property
    def last(self) -> Stretch:
        """The newest stretch."""
        return self.stretches[-1]

    @property
    def carry(self) -> Carry:
        """Where the run stands."""
        assert self.last.carry is not None
        return self.last.carry

    def add(self, carry: Carry, record: Record | None, done: int, evaluation: Evaluation) -> None:
        """`done` more steps."""
        record = jax.tree.map(lambda x: np.asarray(x[:done]), record)
        step = done + (self.last.step if self.stretches else 0)
        evaluation = jax.tree.map(np.asarray, evaluation)
        best = self.last.best if self.stretches else (np.nan, None)
        if self._is_better(float(evaluation.metric), best[0]) or best[1] is None:
            best = float(evaluation.metric), behind_lookahead(carry.params, carry.opt_state)
        self._append(Stretch(carry, record, step, evaluation, best))

    def _is_better(self, metric: float, best: float) -> bool:
        return not np.isnan(metric) and (
            np.isnan(best) or (metric > best if self.objective.higher_is_better else metric < best)
        )

    def _append(self, stretch: Stretch) -> None:
        self.stretches.append(stretch)
        if len(self.stretches) > 1:  # older parameters would fill the memory
            self.stretches[-2] = self.stretches[-2]._replace(carry=None)

    def _records(self) -> dict[str, Any]:
        """Every step of every stretch in one piece: loss, readings, iterates, empty where no step was done.

        A reading is NaN where its instrument was not in the chain, before or after a run was resumed.
        """
        records = [stretch.record for stretch in self.stretches if stretch.record is not None]
        if not records:
            return {"loss": np.zeros(0, np.float32), "readings": {}, "iterate": None}
        shapes = {name: x for record in reversed(records) for name, x in record.readings.items()}
        readings = {
            name: np.concatenate([r.readings[name] if name in r.readings else _unread(x, len(r.loss)) for r in records])
            for name, x in shapes.items()
        }
        rest = [record._replace(readings={}) for record in records]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *rest)._replace(readings=readings)._asdict()

    def _evaluations(self) -> dict[str, np.ndarray]:
        columns = jax.tree.map(lambda *values: np.stack(values), *[s.evaluation for s in self.stretches])
        return {"eval_steps": np.array([s.step for s in self.stretches]), **columns._asdict()}

    def save(self, checkpoint: Checkpoint) -> None:
        """To disk, where there is anything new."""
        step = self.last.step
        if step != checkpoint.step:
            records = {name: value for name, value in self._records().items() if value is not None}
            readings = records.pop("readings")
            arrays = {"key": self.key_data, "batch_sizes": self.batch_sizes[:step], **records, **self._evaluations()}
            checkpoint.save(step, Saved(self.carry, self.last.best[1], arrays, readings))

    def restore(self, checkpoint: Checkpoint, start: Carry, evaluation: Evaluation) -> None:
        """From disk, where there is anything; `evaluation` is that of `start`.

        Raises:
            ValueError: another run was saved there.
        """
        found = checkpoint.load(start)
        if found is None:
            return
        arrays = found.arrays
        step = int(arrays["eval_steps"][-1])
        if not np.array_equal(arrays["key"], self.key_data):
            raise checkpoint.refused("it was made with another key")
        if not np.array_equal(arrays["batch_sizes"], self.batch_sizes[:step]):
            raise checkpoint.refused(f"it has other batch sizes, or more steps ({step}) than this run")
        if not same_evaluation([arrays[name][0] for name in Evaluation._fields], list(evaluation)):
            raise checkpoint.refused("its problem has this name, but another loss at the same first parameters")
        readings: dict[str, Any] = found.readings
        whole = Record(arrays["loss"], readings, arrays.get("iterate"))
        before = 0
        best = np.nan, found.best_params
        for i, end in enumerate(arrays["eval_steps"].tolist()):
            part = None if end == 0 else jax.tree.map(lambda x, a=before, b=end: np.asarray(x[a:b]), whole)
            values = Evaluation(*(arrays[name][i] for name in Evaluation._fields))
            if self._is_better(float(values.metric), best[0]):
                best = float(values.metric), found.best_params
            self._append(Stretch(found.carry, part, end, values, best))
            before = end

    def history(self, ended: str) -> History:
        """The run so far as its user sees it."""
        records, evaluations, carry = self._records(), self._evaluations(), self.carry
        subject, diverged_at = self.objective.subject, int(carry.diverged_at)
        iterates = None
        if isinstance(subject, Landscape):
            first = np.asarray(jnp.asarray(subject.start, jnp.result_type(float)))[None]
            iterates = first if records["iterate"] is None else np.concatenate([first, records["iterate"]])
        return History(
            loss=records["loss"],
            readings=records["readings"],
            params=carry.params,
            opt_state=carry.opt_state,
            iterates=iterates,
            batch_sizes=self.batch_sizes[: self.last.step],
            **evaluations,
            diverged_at=diverged_at,
            ended=ended,
            problem=subject.name,
            metric_name=self.objective.metric_name,
            higher_is_better=self.objective.higher_is_better,
            best_params=self.last.best[1],
        )


def _unread(like: Any, steps: int) -> np.ndarray:
    return np.full((steps, *like.shape[1:]), np.nan, like.dtype)
