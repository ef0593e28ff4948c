"""The checkpoint of `lab.sweep`: the curves so far, and the state of the members that are under way."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from .checkpoints import Checkpoint, CheckpointError
from .distributed import of_all_processes
from .members import Outcome
from .provenance import first_difference, same_evaluation
from .training import Carry, Evaluation


class Progress(NamedTuple):
    """The part of a sweep that is done: the steps so far of all members, or all steps of the members so far."""

    done: int  # chunks of steps, or members
    outcome: Outcome  # leaves [members, ...], NumPy
    carry: Carry | None  # leaves [members, ...]; None if members are trained one after another


class SweepCheckpoint(Checkpoint):
    """The progress of a sweep, which `described` (JSON) identifies. Raises if the folder holds another sweep."""

    def __init__(self, path: str | Path, described: dict[str, Any]) -> None:
        super().__init__("sweep", path)
        self._described = described
        for process, other in enumerate(of_all_processes(described)):
            if (difference := _difference(other, described)) is not None:
                raise CheckpointError(
                    f"sweep: process {process} of the run has other arguments: {difference}. Give all the same."
                )
        self._header = self.read_header()
        if self._header is not None and (difference := _difference(self._header, described)) is not None:
            raise self.refused(difference)

    def save(self, progress: Progress) -> None:
        """Saves the progress."""
        outcome = progress.outcome
        curves = {"loss": outcome.loss, "readings": outcome.readings, "diverged_at": outcome.diverged_at}
        state = {"carry": jax.tree.leaves(progress.carry)}
        self.write(progress.done, self._described, curves | outcome.evaluation._asdict(), state)

    def load(self, carry: Carry | None) -> Progress | None:
        """The progress that was found at the start, or None. The carry is split over devices like `carry`."""
        if self._header is None or self.step is None:
            return None
        curves = self.read_curves(self._header)
        evaluation = Evaluation(*(curves.pop(name) for name in Evaluation._fields))
        leaves, structure = jax.tree.flatten(carry)
        carry = structure.unflatten(self.read_leaves("carry", leaves))
        return Progress(self.step, Outcome(**curves, evaluation=evaluation), carry)


def _difference(saved: dict[str, Any], now: dict[str, Any]) -> str | None:
    """A clause on the first difference of two descriptions, or None."""
    difference = first_difference(saved, now, ("parameters", "transformation", "instruments"))
    if difference is None and not same_evaluation(saved["evaluations"], now["evaluations"]):
        return "its problem has this name, but another loss at the same first parameters"
    return difference
