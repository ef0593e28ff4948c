"""The state of a run or a sweep on disk, from which it resumes bit for bit. Needs the extra `checkpoints` (Orbax).

Several processes may share a folder that all of them see. Then all call the same methods in the same order. Each writes
the parts of the arrays that its devices hold, and any number of devices can read them.
"""

import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.installing import install

from .archive import flattened, grouped
from .extra import imported
from .terminating import STATUS, Terminated, ends_program, saving_at_sigterm

SAVES = 5  # scheduled saves of a run


class CheckpointError(ValueError):
    """The folder cannot hold a checkpoint, or holds one that this run does not continue."""


class Checkpoint:
    """The only checkpoint in a folder: a header, curves and a state. Orbax writes either all of it or nothing."""

    def __init__(self, caller: str, path: str | Path) -> None:
        ocp = imported("orbax.checkpoint", f"{caller}: checkpoint needs Orbax: {install('checkpoints')}.")
        self.caller, self.path, self._args = caller, Path(path).absolute(), ocp.args
        check_folder(f"{caller}: checkpoint", self.path)
        if (self.path / "description.json").exists():  # sweeps of several processes once kept their steps elsewhere
            raise self._unreadable("an older gradtx wrote it")
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.path, options=options)
        self.step = self._manager.latest_step()  # step of the last successful save

    def write(self, step: int, header: Any, curves: dict[str, Any], state: dict[str, list[Any]]) -> None:
        """Saves, then removes the older checkpoint. If the disk is full, a warning says so and the run goes on.

        A step that is already saved is not saved again. `header` is JSON that says which run this is. `curves` holds
        NumPy arrays and a dict of "readings", all of which every process has in full. A process holds parts of the
        arrays in `state`.
        """
        if step == self.step:
            return
        # Orbax would take slashes in names for folders, so the header has the names. Orbax refuses arrays without
        # elements, so the header has the shapes.
        curves = flattened(curves)
        kinds = [[name, list(x.shape), str(x.dtype)] for name, x in curves.items()]
        items = {"curves": list(curves.values())} | state
        saves = {name: self._args.StandardSave(found) for name, x in items.items() if (found := _numbered(x))}
        saves["header"] = self._args.JsonSave({"caller": self.caller, "curves": kinds} | header)
        try:
            self._manager.save(step, args=self._args.Composite(**saves))
            self._manager.wait_until_finished()
            self.step = step
        except Exception as error:  # any class, because the files are not written by Python code
            if jax.process_count() > 1:  # the others wait for this process
                raise
            said = f"the checkpoint of step {step} in {self.path} could not be written, the run goes on"
            tell(f"{self.caller}: {said}: {error}")

    def read_header(self) -> dict[str, Any] | None:
        """The header of the last save, or None if nothing was saved. Raises if the folder holds something else."""
        if self.step is None:
            return None
        header = self._read("header", self._args.JsonRestore())
        if header["caller"] != self.caller:
            raise self.refused(f"lab.{header['caller']} made it")
        return header

    def read_curves(self, header: dict[str, Any]) -> dict[str, Any]:
        """The curves of the last save."""
        has_elements = any(np.prod(shape) for _, shape, _ in header["curves"])
        found = self._read("curves", self._args.StandardRestore()) if has_elements else {}
        curves = {
            name: np.asarray(found.get(str(i), np.zeros(shape, jnp.dtype(dtype))))
            for i, (name, shape, dtype) in enumerate(header["curves"])
        }
        return grouped(curves, "readings")

    def read_leaves(self, name: str, like: list[Any]) -> list[Any]:
        """The list of arrays with this name in the state of the last save, split over devices as those in `like`."""
        like = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in like]
        target = {i: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for i, x in _numbered(like).items()}
        found = self._read(name, self._args.StandardRestore(target)) if target else {}
        values = [found.get(str(i), leaf) for i, leaf in enumerate(like)]
        return [
            jax.random.wrap_key_data(x, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else x
            for x, leaf in zip(values, like, strict=True)
        ]

    def refused(self, difference: str) -> CheckpointError:
        """The error for a checkpoint of another run, with the difference."""
        return CheckpointError(
            f"{self.caller}: the checkpoint in {self.path} is of another run: {difference}. Resume it with the "
            "arguments that made it, or give another folder."
        )

    def close(self) -> None:
        """Closes Orbax's writer."""
        try:
            self._manager.close()
        except Exception as error:  # Orbax may report an earlier failed save a second time
            tell(f"{self.caller}: the checkpoint in {self.path} could not be closed: {error}")

    def _read(self, name: str, restore: Any) -> Any:
        try:
            found = self._manager.restore(self.step, args=self._args.Composite(**{name: restore}))[name]
            if found is None:
                raise KeyError(name)
            return found
        except Exception as error:  # any class, because the files are not read by Python code
            raise self._unreadable(error) from error

    def _unreadable(self, reason: Any) -> CheckpointError:
        return CheckpointError(
            f"{self.caller}: {self.path} holds no checkpoint that this gradtx can read: give another folder ({reason})."
        )


@contextmanager
def saved_at_end(saved: Checkpoint | None) -> Iterator[None]:
    """Closes the checkpoint at the end of the block. If SIGTERM ends the block in a user's program, the program ends.

    The block has to save when it is interrupted. Without a checkpoint SIGTERM keeps its meaning.
    """
    if saved is None:
        yield
        return
    with saving_at_sigterm(is_shared=jax.process_count() > 1):
        try:
            yield
        except Terminated as interrupt:
            if not ends_program(interrupt):
                raise
            text = f"{saved.caller}: ended by SIGTERM; the checkpoint in {saved.path} goes on from step {saved.step}."
            print(text, file=sys.stderr, flush=True)
            raise SystemExit(STATUS) from None
        finally:
            saved.close()


def is_save_due(before: int, after: int, total: int) -> bool:
    """Whether a run of `total` steps, which did those from `before` to `after`, has to save now."""
    return after * SAVES // total > before * SAVES // total


def check_folder(argument: str, path: Path) -> None:
    """Makes the folder. Raises before the long work starts if `path` is a file, or cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except FileExistsError:
        raise CheckpointError(f"{argument} must be a folder, {path} is a file.") from None
    except OSError as error:
        rule = f"{argument} must be a folder that can be written to"
        raise CheckpointError(f"{rule}, {path}: {error.strerror}.") from error


def tell(message: str) -> None:
    """Warns. If warnings are errors, it prints to standard error instead, so that a warning does not end a run."""
    try:
        warnings.warn(message, UserWarning, stacklevel=3)
    except UserWarning:
        with suppress(OSError):  # standard error may be a file on a full disk
            print(message, file=sys.stderr, flush=True)


def _numbered(leaves: list[Any]) -> dict[str, Any]:
    """The leaves that have elements, by their index. Random keys are replaced by their numbers."""
    numbers = {str(i): jax.random.key_data(x) if _is_key(x) else x for i, x in enumerate(leaves)}
    return {i: x for i, x in numbers.items() if x.size}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
