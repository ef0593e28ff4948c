"""The record of a run on the host. It grows chunk by chunk, is saved in a checkpoint, and becomes a `History`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.landscapes import Landscape

from .checkpoints import Checkpoint, tell
from .history import History, best_evaluation
from .provenance import description, first_difference, same_evaluation, state_leaves
from .training import Carry, Evaluation, Objective, Record, judged_params


class Chunk(NamedTuple):
    """The steps up to an evaluation. The first chunk of a run has no steps, or all steps that a checkpoint held."""

    carry: Carry | None  # at its end; kept only for the last chunk
    best: tuple[float, Any]  # the best metric so far, and the parameters it was measured on
    record: Record | None  # leaves [n]
    eval_steps: np.ndarray  # [E] steps done at each evaluation; E is 1 unless the chunk comes from a checkpoint
    evaluations: Evaluation  # leaves [E]


class Recording:
    """All chunks so far. `add` appends a chunk at once, so an interrupt cannot leave part of a chunk.

    Without a `checkpoint`, `save` does nothing. The checkpoint holds the carry, the best parameters and the curves.
    """

    def __init__(
        self, objective: Objective, key: jax.Array, batch_sizes: np.ndarray, checkpoint: Checkpoint | None
    ) -> None:
        self.objective, self.batch_sizes, self.checkpoint = objective, batch_sizes, checkpoint
        self.key_data = np.asarray(jax.random.key_data(key))
        self.chunks: list[Chunk] = []

    @property
    def carry(self) -> Carry:
        """The current parameters and optimizer state."""
        carry = self.chunks[-1].carry
        assert carry is not None
        return carry

    @property
    def step(self) -> int:
        """The number of steps done."""
        return int(self.chunks[-1].eval_steps[-1])

    def begin(self, start: Carry, evaluation: Evaluation) -> None:
        """Adds the chunk that the checkpoint holds, or `start` if it holds none. `evaluation` belongs to `start`."""
        header = None if self.checkpoint is None else self.checkpoint.read_header()
        if self.checkpoint is None or header is None:
            self.add(start, None, 0, evaluation)
        else:
            self.chunks.append(self._restored(self.checkpoint, header, start, evaluation))

    def add(self, carry: Carry, record: Record | None, done: int, evaluation: Evaluation) -> None:
        """Appends a chunk of `done` steps."""
        record = jax.tree.map(lambda x: np.asarray(x[:done]), record)
        step = done + (self.step if self.chunks else 0)
        best = self.chunks[-1].best if self.chunks else (np.nan, None)
        metric = float(evaluation.metric)
        if best[1] is None or best_evaluation([best[0], metric], self.objective.higher_is_better) == 1:
            best = metric, judged_params(carry)
        evaluations = jax.tree.map(lambda x: np.asarray(x)[None], evaluation)
        self.chunks.append(Chunk(carry, best, record, np.array([step]), evaluations))
        if len(self.chunks) > 1:  # older parameters would fill the memory
            self.chunks[-2] = self.chunks[-2]._replace(carry=None)

    def _records(self) -> dict[str, Any]:
        """Loss, readings and iterates of all steps, joined over the chunks; empty if no step was done.

        A reading is NaN at steps without its instrument, which may have been added or removed on resuming.
        """
        records = [chunk.record for chunk in self.chunks if chunk.record is not None]
        if not records:
            return {"loss": np.zeros(0, np.float32), "readings": {}, "iterate": None}
        readings: dict[str, Any] = {name: x for record in reversed(records) for name, x in record.readings.items()}
        for name, like in readings.items():
            gaps = [np.full((len(record.loss), *like.shape[1:]), np.nan, like.dtype) for record in records]
            parts = [record.readings.get(name, gap) for record, gap in zip(records, gaps, strict=True)]
            readings[name] = np.concatenate(parts)
        rest = [record._replace(readings={}) for record in records]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *rest)._replace(readings=readings)._asdict()

    def evaluations(self) -> dict[str, np.ndarray]:
        """The curves of all evaluations so far, and the steps done before each."""
        parts = [{"eval_steps": chunk.eval_steps, **chunk.evaluations._asdict()} for chunk in self.chunks]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def save(self) -> None:
        """Saves the record to disk if it has new steps."""
        if self.checkpoint is None:
            return
        step, carry, best_params = self.step, self.carry, self.chunks[-1].best[1]
        records = {name: value for name, value in self._records().items() if value is not None}
        curves = {"key": self.key_data, "batch_sizes": self.batch_sizes[:step], **records, **self.evaluations()}
        leaves = state_leaves(carry.opt_state, carry.params)
        state = {
            "parameters": jax.tree.leaves(_without_transformation(carry, best_params)),
            "transformation": [leaf.value for leaf in leaves if not leaf.is_instrument],
            "instruments": [leaf.value for leaf in leaves if leaf.is_instrument],
        }
        header = description(self.objective.subject, carry.params, carry.opt_state)
        self.checkpoint.write(step, header, curves, state)

    def _restored(self, saved: Checkpoint, header: dict[str, Any], start: Carry, evaluation: Evaluation) -> Chunk:
        """All steps that `save` saved last, with the carry in the structure of `start`. Raises if it is another run."""
        now = description(self.objective.subject, start.params, start.opt_state)
        difference = first_difference(header, now)
        if difference is not None:
            raise saved.refused(difference)
        like, structure = jax.tree.flatten(_without_transformation(start, start.params))
        params, best_params, *counts = structure.unflatten(saved.read_leaves("parameters", like))
        opt_state = _saved_state(saved, start, has_same_instruments=header["instruments"] == now["instruments"])
        curves = saved.read_curves(header)
        eval_steps = curves["eval_steps"].astype(int)
        step = eval_steps[-1]
        if not np.array_equal(curves["key"], self.key_data):
            raise saved.refused("it was made with another key")
        if not np.array_equal(curves["batch_sizes"], self.batch_sizes[:step]):
            raise saved.refused(f"it has other batch sizes, or more steps ({step}) than this run")
        evaluations = Evaluation(*(curves[name] for name in Evaluation._fields))
        if not same_evaluation([values[0] for values in evaluations], list(evaluation)):
            raise saved.refused("its problem has this name, but another loss at the same first parameters")
        best = best_evaluation(evaluations.metric, self.objective.higher_is_better)
        best_metric = float(evaluations.metric[best]) if best >= 0 else np.nan
        record = Record(curves["loss"], curves["readings"], curves.get("iterate")) if step else None
        return Chunk(Carry(params, opt_state, *counts), (best_metric, best_params), record, eval_steps, evaluations)

    def history(self, ended: str) -> History:
        """The `History` of the run so far."""
        records, carry, subject = self._records(), self.carry, self.objective.subject
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
            batch_sizes=self.batch_sizes[: self.step],
            **self.evaluations(),
            diverged_at=int(carry.diverged_at),
            ended=ended,
            problem=subject.name,
            metric_name=self.objective.metric_name,
            higher_is_better=self.objective.higher_is_better,
            best_params=self.chunks[-1].best[1],
        )


def _without_transformation(carry: Carry, best_params: Any) -> tuple[Any, ...]:
    return carry.params, best_params, carry.step, carry.diverged_at


def _saved_state(saved: Checkpoint, start: Carry, has_same_instruments: bool) -> Any:
    """The saved optimizer state. If the instruments have changed, all of them start anew, with a warning."""
    leaves = state_leaves(start.opt_state, start.params)
    method = saved.read_leaves("transformation", [leaf.value for leaf in leaves if not leaf.is_instrument])
    watching = [leaf.value for leaf in leaves if leaf.is_instrument]
    if has_same_instruments:
        watching = saved.read_leaves("instruments", watching)
    else:
        tell(
            f"run: instruments were added or removed since the checkpoint of step {saved.step} in {saved.path} was "
            "made. All instruments start anew there. A reading is NaN at the steps that no instrument saw."
        )
    of_method, of_instruments = iter(method), iter(watching)
    values = [next(of_instruments if leaf.is_instrument else of_method) for leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(start.opt_state), values)
