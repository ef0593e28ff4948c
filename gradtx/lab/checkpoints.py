"""Where a run stands, on disk, so that it goes on bit for bit. Needs `pip install 'gradtx[checkpoints]'` (Orbax)."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Checkpoint:
    """The one checkpoint of one run: a folder that Orbax writes whole or not at all."""

    def __init__(self, path: str | Path) -> None:
        try:
            import orbax.checkpoint as ocp
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("run: checkpoint needs Orbax: pip install 'gradtx[checkpoints]'.") from error
        self.path = Path(path).absolute()
        self._manager = ocp.CheckpointManager(self.path, options=ocp.CheckpointManagerOptions(max_to_keep=1))
        self._save, self._restore = ocp.args.StandardSave, ocp.args.StandardRestore

    def save(self, step: int, carry: Any, arrays: dict[str, Any]) -> None:
        """Writes the carry of the training loop, and named arrays beside it; replaces the older one when done."""
        leaves = {str(i): _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(carry))}
        self._manager.save(step, args=self._save({"carry": leaves, "arrays": arrays}))

    @property
    def step(self) -> int | None:
        """Of what was saved last."""
        return self._manager.latest_step()

    def load(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The carry, in the structure of `like`, and the arrays; None where nothing was saved yet.

        Raises:
            ValueError: the checkpoint is of another model or transformation.
        """
        if self.step is None:
            return None
        saved = self._manager.restore(self.step, args=self._restore())
        leaves, treedef = jax.tree.flatten(like)
        found = [saved["carry"][str(i)] for i in range(len(saved["carry"]))]
        if [(x.shape, x.dtype) for x in found] != [(_plain(x).shape, _plain(x).dtype) for x in leaves]:
            raise ValueError(f"run: the checkpoint in {self.path} is of another problem or transformation.")
        carry = [_like(value, leaf) for value, leaf in zip(found, leaves, strict=True)]
        return jax.tree.unflatten(treedef, carry), saved["arrays"]

    def close(self) -> None:
        """Waits until all is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _plain(leaf: Any) -> np.ndarray:
    """Random keys as their numbers: files hold numbers."""
    leaf = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return np.asarray(leaf)


def _like(value: Any, leaf: Any) -> jax.Array:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    array = jnp.asarray(value)
    return jax.random.wrap_key_data(array) if is_key else array
