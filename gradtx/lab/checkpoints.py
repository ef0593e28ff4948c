"""The state of a run on disk, from which it resumes bit for bit. Needs the extra `checkpoints` (Orbax)."""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.installing import install

from .provenance import description, first_difference, state_leaves
from .telling import tell
from .training import Carry, Subject


class Saved(NamedTuple):
    """The contents of a checkpoint."""

    carry: Carry
    best_params: Any
    arrays: dict[str, Any]
    readings: dict[str, np.ndarray]  # name -> [steps, ...]


class Checkpoint:
    """The only checkpoint of a run: a folder that Orbax writes either completely or not at all.

    Raises:
        ValueError: if `path` is not a folder, or cannot be written to. ModuleNotFoundError: if Orbax is missing.
    """

    def __init__(self, path: str | Path, subject: Subject) -> None:
        try:
            import orbax.checkpoint as ocp
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"run: checkpoint needs Orbax: {install('checkpoints')}.") from error
        self.path, self._subject = Path(path).absolute(), subject
        check_folder("run: checkpoint", self.path)
        self._manager = ocp.CheckpointManager(
            self.path, options=ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        )
        self._save, self._restore = ocp.args.StandardSave, ocp.args.StandardRestore
        self.step = self._manager.latest_step()  # step of the last successful save

    def save(self, step: int, saved: Saved) -> None:
        """Saves, then removes the older checkpoint. If the disk is full, a warning says so and the run goes on."""
        carry = saved.carry
        # Readings are stored by number: Orbax would take the slashes in their names for folders.
        names = sorted(saved.readings)
        header = description(self._subject, carry.params, carry.opt_state) | {"readings": names}
        state = state_leaves(carry.opt_state, carry.params)
        tree = {
            "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
            "parameters": _numbered(jax.tree.leaves(carry.params)),
            "transformation": _numbered([leaf.value for leaf in state if not leaf.is_instrument]),
            "instruments": _numbered([leaf.value for leaf in state if leaf.is_instrument]),
            "counts": {"step": np.asarray(carry.step), "diverged_at": np.asarray(carry.diverged_at)},
            "best": _numbered(jax.tree.leaves(saved.best_params)),
            "arrays": saved.arrays | {"readings": {str(i): saved.readings[name] for i, name in enumerate(names)}},
        }
        try:
            self._manager.save(step, args=self._save(tree))
            self._manager.wait_until_finished()
            self.step = step
        except Exception as error:  # any class, because the files are not written by Python code
            tell(f"run: the checkpoint of step {step} in {self.path} could not be written, the run goes on: {error}")

    def load(self, start: Carry) -> Saved | None:
        """The last save, in the structure of `start`, or None if nothing was saved.

        Raises:
            ValueError: if the checkpoint is of another problem, model or transformation, or cannot be read.
        """
        if self.step is None:
            return None
        try:
            tree = self._manager.restore(self.step, args=self._restore())
            header = json.loads(bytes(np.asarray(tree["header"])))
        except Exception as error:  # any class, because the files are not read by Python code
            raise ValueError(
                f"run: {self.path} holds no checkpoint that this gradtx can read: give another folder ({error})."
            ) from error
        now = description(self._subject, start.params, start.opt_state)
        difference = first_difference(header, now)
        if difference is not None:
            raise self.refused(difference)
        params = _like(tree["parameters"], start.params)
        best = _like(tree["best"], start.params)
        counts = {name: jnp.asarray(value) for name, value in tree["counts"].items()}
        carry = Carry(params, self._state(tree, header, now, start), **counts)
        arrays = dict(tree["arrays"])
        numbered = arrays.pop("readings", {})
        readings = {name: numbered[str(i)] for i, name in enumerate(header["readings"])}
        return Saved(carry, best, arrays, readings)

    def refused(self, difference: str) -> ValueError:
        """The error for a checkpoint of another run, with the difference."""
        return ValueError(
            f"run: the checkpoint in {self.path} is of another run: {difference}. Resume it with the arguments that "
            "made it, or give another folder."
        )

    def _state(self, tree: Any, header: dict[str, Any], now: dict[str, Any], start: Carry) -> Any:
        """The saved optimizer state. If the instruments have changed, all of them start anew, with a warning."""
        leaves = state_leaves(start.opt_state, start.params)
        method = [leaf.value for leaf in leaves if not leaf.is_instrument]
        watching = [leaf.value for leaf in leaves if leaf.is_instrument]
        method = _like(tree["transformation"], method)
        if header["instruments"] == now["instruments"]:
            watching = _like(tree["instruments"], watching)
        else:
            tell(
                f"run: instruments were added or removed since the checkpoint of step {self.step} in {self.path} was "
                "made. All instruments start anew there. A reading is NaN at the steps that no instrument saw."
            )
        of_method, of_instruments = iter(method), iter(watching)
        values = [next(of_instruments if leaf.is_instrument else of_method) for leaf in leaves]
        return jax.tree.unflatten(jax.tree.structure(start.opt_state), values)

    def close(self) -> None:
        """Closes Orbax's writer."""
        try:
            self._manager.close()
        except Exception as error:  # Orbax may report an earlier failed save a second time
            tell(f"run: the checkpoint in {self.path} could not be closed: {error}")


def check_folder(argument: str, path: Path) -> None:
    """Makes the folder and tests that it can be written to, before the long work starts.

    Raises:
        ValueError: if `path` is a file, or cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except FileExistsError:
        raise ValueError(f"{argument} must be a folder, {path} is a file.") from None
    except OSError as error:
        raise ValueError(f"{argument} must be a folder that can be written to, {path}: {error.strerror}.") from error


def _numbered(leaves: list[Any]) -> dict[str, np.ndarray]:
    """The leaves by their index. Random keys are replaced by their numbers, because files hold only numbers."""
    numbers = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    return {str(i): np.asarray(x) for i, x in enumerate(numbers)}


def _like(numbered: dict[str, Any] | None, tree: Any) -> Any:
    """A tree like `tree`, with the leaves that `_numbered` returned."""
    leaves, treedef = jax.tree.flatten(tree)
    values = [jnp.asarray((numbered or {})[str(i)]) for i in range(len(leaves))]
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    keys = [jax.random.wrap_key_data(x) if is_it else x for x, is_it in zip(values, is_key, strict=True)]
    return treedef.unflatten(keys)
