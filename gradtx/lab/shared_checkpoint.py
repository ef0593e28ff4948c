"""The checkpoint of a run of several processes, in a folder that all of them see. Needs Orbax.

Each process writes the parts of the arrays that its devices hold. Any number of devices can read what any other number
has written: the reader chooses how the arrays are split.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from gradtx._core.installing import install

from .archive import read_archive, whole_file, write_archive
from .checkpoints import check_folder
from .provenance import arrays_of, first_other_array
from .sweep_result import Sweep


class AnotherRunError(ValueError):
    """The folder holds the checkpoint of a run that is not this one."""


class SharedCheckpoint:
    """The progress of one sweep: the carry of its members and the curves so far, or the result."""

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        try:
            import orbax.checkpoint as ocp
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"distributed runs need Orbax: {install('checkpoints')}.") from error
        self.path = path.absolute()
        self._is_first = jax.process_index() == 0
        described = self.path / "description.json"
        text = json.dumps(description, sort_keys=True)
        check_folder("distributed run: checkpoint", self.path)
        if self._is_first and not described.exists():
            with whole_file(described) as partial:
                partial.write_text(text, encoding="utf-8")
        multihost_utils.sync_global_devices("checkpoint folder")
        before = json.loads(described.read_text(encoding="utf-8"))
        now = json.loads(text)
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise AnotherRunError(
                    f"distributed run: {self.path} holds another run: its {name.replace('_', ' ')} is "
                    f"{before.get(name)!r}, here {now.get(name)!r}. Give another --out, or remove the folder."
                )
        self._manager = ocp.CheckpointManager(self.path / "steps", options=ocp.CheckpointManagerOptions(max_to_keep=1))
        self._save, self._restore = ocp.args.StandardSave, ocp.args.StandardRestore

    def finished(self) -> Sweep | None:
        """The result, if the run was finished."""
        there = (self.path / "sweep.npz").exists()
        if not multihost_utils.broadcast_one_to_all(np.array(there)):  # the first process decides for all
            return None
        self._manager.close()
        return Sweep.load(self.path / "sweep.npz")

    def save(self, done: int, carry: Any, log: dict[str, Any]) -> None:
        """Saves the state after `done` chunks. The curves are written first, so no checkpoint can lack them."""
        if self._is_first:
            write_archive(self._log(done), "log", {"arrays": arrays_of(carry)}, log)
        leaves = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(carry))}
        self._manager.save(done, args=self._save(leaves))
        self._manager.wait_until_finished()
        if self._is_first:
            for old in self.path.glob("log-*.npz"):
                if old != self._log(done):
                    old.unlink()

    def load(self, carry: Any, log: dict[str, np.ndarray]) -> tuple[int, Any, dict[str, np.ndarray]]:
        """The chunks done, and the saved carry and curves, split like `carry`. Without a save, 0 and the arguments.

        Raises:
            AnotherRunError: the saved optimizer state belongs to another transformation.
        """
        done = self._manager.latest_step()
        if done is None:
            return 0, carry, log
        plain, log = read_archive(self._log(done), "log")
        difference = first_other_array(plain["arrays"], arrays_of(carry))
        if difference is not None:
            raise AnotherRunError(
                f"distributed run: {self.path} holds a run of another transformation: {difference}. "
                "Resume it with that transformation, or give another folder."
            )
        leaves, treedef = jax.tree.flatten(carry)
        like = {str(i): jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for i, x in enumerate(leaves)}
        found = self._manager.restore(done, args=self._restore(like))
        return done, treedef.unflatten([found[str(i)] for i in range(len(leaves))]), log

    def finish(self, result: Sweep) -> None:
        """Saves the result."""
        self._manager.close()
        if self._is_first:
            result.save(self.path / "sweep.npz")
        multihost_utils.sync_global_devices("result kept")

    def _log(self, done: int) -> Path:
        return self.path / f"log-{done}.npz"
