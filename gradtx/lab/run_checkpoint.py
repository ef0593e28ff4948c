"""The checkpoint of `lab.run`. Instruments may be added or removed between two parts of a run."""

from pathlib import Path
from typing import Any

import jax

from .checkpoints import Arrays, Checkpoint, tell
from .provenance import description, first_difference, state_leaves
from .training import Carry, Subject


class RunCheckpoint(Checkpoint):
    """The carry of a run, its best parameters and its curves so far."""

    def __init__(self, path: str | Path, subject: Subject) -> None:
        super().__init__("run", path)
        self._subject = subject

    def save(self, step: int, carry: Carry, best_params: Any, curves: Arrays, readings: Arrays) -> None:
        """Saves the state after `step` steps. Readings are {name: [steps, ...]}."""
        leaves = state_leaves(carry.opt_state, carry.params)
        state = {
            "parameters": jax.tree.leaves(_without_transformation(carry, best_params)),
            "transformation": [leaf.value for leaf in leaves if not leaf.is_instrument],
            "instruments": [leaf.value for leaf in leaves if leaf.is_instrument],
        }
        header = description(self._subject, carry.params, carry.opt_state)
        self.write(step, header, curves, readings, state)

    def load(self, start: Carry) -> tuple[Carry, Any, Arrays, Arrays] | None:
        """What `save` saved last, in the structure of `start`, or None if nothing was saved.

        Raises:
            CheckpointError: the checkpoint is of another problem, model or transformation, or cannot be read.
        """
        header = self.read_header()
        if header is None:
            return None
        now = description(self._subject, start.params, start.opt_state)
        difference = first_difference(header, now)
        if difference is not None:
            raise self.refused(difference)
        like, structure = jax.tree.flatten(_without_transformation(start, start.params))
        params, best, *counts = structure.unflatten(self.read_leaves("parameters", like))
        has_same_instruments = header["instruments"] == now["instruments"]
        carry = Carry(params, self._state(start, has_same_instruments), *counts)
        return carry, best, *self.read_curves(header)

    def _state(self, start: Carry, has_same_instruments: bool) -> Any:
        """The saved optimizer state. If the instruments have changed, all of them start anew, with a warning."""
        leaves = state_leaves(start.opt_state, start.params)
        method = self.read_leaves("transformation", [leaf.value for leaf in leaves if not leaf.is_instrument])
        watching = [leaf.value for leaf in leaves if leaf.is_instrument]
        if has_same_instruments:
            watching = self.read_leaves("instruments", watching)
        else:
            tell(
                f"run: instruments were added or removed since the checkpoint of step {self.step} in {self.path} was "
                "made. All instruments start anew there. A reading is NaN at the steps that no instrument saw."
            )
        of_method, of_instruments = iter(method), iter(watching)
        values = [next(of_instruments if leaf.is_instrument else of_method) for leaf in leaves]
        return jax.tree.unflatten(jax.tree.structure(start.opt_state), values)


def _without_transformation(carry: Carry, best_params: Any) -> tuple[Any, ...]:
    return carry.params, best_params, carry.step, carry.diverged_at
