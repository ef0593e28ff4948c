"""The record of a run on the host. It grows chunk by chunk, can be saved and restored, and becomes a `History`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.landscapes import Landscape

from .history import History, best_evaluation
from .provenance import same_evaluation
from .run_checkpoint import RunCheckpoint
from .training import Carry, Evaluation, Objective, Record, judged_params


class Chunk(NamedTuple):
    """The steps between two evaluations. The first chunk has no steps: it holds the evaluation before step 0."""

    carry: Carry | None  # at its end; kept only for the last chunk
    record: Record | None  # leaves [n]
    step: int  # steps done at its end
    evaluation: Evaluation  # at its end
    best: tuple[float, Any]  # the best metric so far, and the parameters it was measured on


class Recording:
    """All chunks so far. `add` appends a chunk at once, so an interrupt cannot leave part of a chunk."""

    def __init__(self, objective: Objective, key: jax.Array, batch_sizes: np.ndarray) -> None:
        self.objective, self.batch_sizes = objective, batch_sizes
        self.key_data = np.asarray(jax.random.key_data(key))
        self.chunks: list[Chunk] = []

    @property
    def last(self) -> Chunk:
        """The newest chunk."""
        return self.chunks[-1]

    @property
    def carry(self) -> Carry:
        """The current parameters and optimizer state."""
        assert self.last.carry is not None
        return self.last.carry

    def add(self, carry: Carry, record: Record | None, done: int, evaluation: Evaluation) -> None:
        """Appends a chunk of `done` steps."""
        record = jax.tree.map(lambda x: np.asarray(x[:done]), record)
        step = done + (self.last.step if self.chunks else 0)
        evaluation = jax.tree.map(np.asarray, evaluation)
        best = self.last.best if self.chunks else (np.nan, None)
        metric = float(evaluation.metric)
        if best[1] is None or best_evaluation([best[0], metric], self.objective.higher_is_better) == 1:
            best = metric, judged_params(carry)
        self._append(Chunk(carry, record, step, evaluation, best))

    def _append(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        if len(self.chunks) > 1:  # older parameters would fill the memory
            self.chunks[-2] = self.chunks[-2]._replace(carry=None)

    def _records(self) -> dict[str, Any]:
        """Loss, readings and iterates of all steps, joined over the chunks; empty if no step was done.

        A reading is NaN at steps without its instrument, which may have been added or removed on resuming.
        """
        records = [chunk.record for chunk in self.chunks if chunk.record is not None]
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
        columns = jax.tree.map(lambda *values: np.stack(values), *[s.evaluation for s in self.chunks])
        return {"eval_steps": np.array([s.step for s in self.chunks]), **columns._asdict()}

    def save(self, checkpoint: RunCheckpoint) -> None:
        """Saves the record to disk if it has new steps."""
        step = self.last.step
        records = {name: value for name, value in self._records().items() if value is not None}
        readings = records.pop("readings")
        curves = {"key": self.key_data, "batch_sizes": self.batch_sizes[:step], **records, **self._evaluations()}
        checkpoint.save(step, self.carry, self.last.best[1], curves, readings)

    def restore(self, checkpoint: RunCheckpoint, start: Carry, evaluation: Evaluation) -> None:
        """Restores the record from disk if one was saved. `evaluation` belongs to `start`.

        Raises:
            ValueError: if another run was saved there.
        """
        found = checkpoint.load(start)
        if found is None:
            return
        carry, best_params, curves, readings = found
        step = int(curves["eval_steps"][-1])
        if not np.array_equal(curves["key"], self.key_data):
            raise checkpoint.refused("it was made with another key")
        if not np.array_equal(curves["batch_sizes"], self.batch_sizes[:step]):
            raise checkpoint.refused(f"it has other batch sizes, or more steps ({step}) than this run")
        if not same_evaluation([curves[name][0] for name in Evaluation._fields], list(evaluation)):
            raise checkpoint.refused("its problem has this name, but another loss at the same first parameters")
        whole = Record(curves["loss"], readings, curves.get("iterate"))
        best = best_evaluation(curves["metric"], self.objective.higher_is_better)
        best_metric = float(curves["metric"][best]) if best >= 0 else np.nan
        before = 0
        for i, end in enumerate(curves["eval_steps"].tolist()):
            part = None if end == 0 else jax.tree.map(lambda x, a=before, b=end: np.asarray(x[a:b]), whole)
            values = Evaluation(*(curves[name][i] for name in Evaluation._fields))
            self._append(Chunk(carry, part, end, values, (best_metric, best_params)))
            before = end

    def history(self, ended: str) -> History:
        """The `History` of the run so far."""
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
