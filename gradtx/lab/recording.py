"""The run so far, on the host: grows stretch by stretch, becomes a `History`, goes to a checkpoint and comes back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.landscapes import Landscape

from .checkpoints import Checkpoint
from .history import History
from .training import Carry, Evaluation, Objective, Record


class Stretch(NamedTuple):
    """Steps between two evaluations; before the first step there is one without a record."""

    carry: Carry
    record: Record | None  # leaves [n]
    step: int  # steps done at its end
    evaluation: Evaluation  # at its end


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

    def add(self, carry: Carry, record: Record | None, done: int, evaluation: Evaluation) -> None:
        """`done` more steps."""
        record = jax.tree.map(lambda x: np.asarray(x[:done]), record)
        step = done + (self.last.step if self.stretches else 0)
        self.stretches.append(Stretch(carry, record, step, jax.tree.map(np.asarray, evaluation)))

    def _records(self) -> dict[str, Any]:
        """Every step of every stretch in one piece: loss, readings, iterates, empty where no step was done."""
        records = [stretch.record for stretch in self.stretches if stretch.record is not None]
        if not records:
            return {"loss": np.zeros(0, np.float32), "readings": {}, "iterate": None}
        return jax.tree.map(lambda *parts: np.concatenate(parts), *records)._asdict()

    def _evaluations(self) -> dict[str, np.ndarray]:
        columns = jax.tree.map(lambda *values: np.stack(values), *[s.evaluation for s in self.stretches])
        return {"eval_steps": np.array([s.step for s in self.stretches]), **columns._asdict()}

    def save(self, checkpoint: Checkpoint) -> None:
        """To disk, where there is anything new."""
        step = self.last.step
        if step != checkpoint.step:
            records = {name: value for name, value in self._records().items() if value is not None}
            # Names of readings hold slashes, which Orbax would take for folders; compiled code hands them back sorted.
            names = sorted(records["readings"])
            records["readings"] = {str(i): records["readings"][name] for i, name in enumerate(names)}
            arrays = {"key": self.key_data, "batch_sizes": self.batch_sizes[:step], **records, **self._evaluations()}
            checkpoint.save(step, self.last.carry, arrays)

    def restore(self, checkpoint: Checkpoint, start: Carry, reading_names: list[str]) -> None:
        """From disk, where there is anything.

        Raises:
            ValueError: another run was saved there.
        """
        found = checkpoint.load(start)
        if found is None:
            return
        carry, arrays = found
        step = int(arrays["eval_steps"][-1])
        same_key = np.array_equal(arrays["key"], self.key_data)
        if not same_key or not np.array_equal(arrays["batch_sizes"], self.batch_sizes[:step]):
            what = "other batch sizes" if same_key else "another key"
            raise ValueError(f"run: the checkpoint in {checkpoint.path} is of a run with {what}, or a longer one.")
        readings = {name: arrays["readings"][str(i)] for i, name in enumerate(sorted(reading_names))}
        whole = Record(arrays["loss"], readings, arrays.get("iterate"))
        before = 0
        for i, end in enumerate(arrays["eval_steps"].tolist()):
            part = None if end == 0 else jax.tree.map(lambda x, a=before, b=end: np.asarray(x[a:b]), whole)
            evaluation = Evaluation(*(arrays[name][i] for name in Evaluation._fields))
            self.stretches.append(Stretch(carry, part, end, evaluation))
            before = end

    def history(self, ended: str) -> History:
        """The run so far as its user sees it."""
        records, evaluations, carry = self._records(), self._evaluations(), self.last.carry
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
            metric_name="value" if isinstance(subject, Landscape) else subject.metric_name,
            higher_is_better=self.objective.higher_is_better,
        )
