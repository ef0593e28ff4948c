"""The origin of a checkpoint: the problem, and the structure of the optimizer state by the names of its fields.

Two methods may have states of the same shapes, so the names of the state classes and their fields are compared too.
Instruments do not change a run: they are listed separately, and a run may resume with other instruments.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import jax
import numpy as np

from gradtx.landscapes import Landscape

from .training import Subject


class StateLeaf(NamedTuple):
    """One array of an optimizer state."""

    name: str  # such as "ScaleByRmsState.mean_square['w']"
    is_instrument: bool
    value: Any


def state_leaves(opt_state: Any, params: Any) -> list[StateLeaf]:
    """The arrays of an optimizer state, in the order of `jax.tree.leaves`.

    The names leave out positions in a chain, so that a stage without state may be added or removed.
    """
    structure = jax.tree.structure(params)

    def walk(node: Any, name: str, instrument: str | None) -> Iterator[StateLeaf]:
        children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
        if len(children) == 1 and not children[0][0]:
            yield StateLeaf(name, instrument is not None, node)
            return
        if name and jax.tree.structure(node) == structure:  # a copy of the parameters' tree, of any classes
            for path, leaf in jax.tree_util.tree_leaves_with_path(node):
                yield StateLeaf(name + jax.tree_util.keystr(path), instrument is not None, leaf)
            return
        module = type(node).__module__
        is_packed = module == "gradtx._core.packing"  # a named tuple that is a tree, not a state
        is_state = isinstance(node, tuple) and hasattr(node, "_fields") and not is_packed
        is_ours = module.startswith("gradtx.")
        belongs = module == instrument or module.startswith("gradtx.instruments.")
        if is_state and hasattr(node, "readings") and (belongs or not is_ours):
            instrument = module
        elif is_state and not belongs:
            instrument = None  # a transformation inside an instrument
        own = type(node).__name__ if is_state and (instrument or not belongs) else ""
        for (key,), child in children:
            if child is None:
                continue
            is_place = isinstance(key, jax.tree_util.SequenceKey) and not is_state
            step = "" if is_place or (is_state and not own) else jax.tree_util.keystr((key,))
            yield from walk(child, f"{name}{'/' if name and own else ''}{own}{step}", instrument)

    return list(walk(opt_state, "", None))


def description(subject: Subject, params: Any, opt_state: Any) -> dict[str, Any]:
    """The properties, as JSON, that a checkpoint shares with a run that resumes it. Only instruments may differ."""
    if isinstance(subject, Landscape):
        kind, more = "landscape", {"sigma": subject.sigma, "start": subject.start.tolist()}
    else:
        kind, more = "problem", {"examples": subject.num_examples, "metric": subject.metric_name}
    leaves = state_leaves(opt_state, params)
    return {
        "problem": {"kind": kind, "name": subject.name, **more},
        "parameters": [
            _line(f"parameters{jax.tree_util.keystr(path)}", leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        ],
        "transformation": [_line(leaf.name, leaf.value) for leaf in leaves if not leaf.is_instrument],
        "instruments": [_line(leaf.name, leaf.value) for leaf in leaves if leaf.is_instrument],
    }


def first_difference(
    saved: dict[str, Any], now: dict[str, Any], parts: Sequence[str] = ("parameters", "transformation")
) -> str | None:
    """A clause on the first difference, or None if there is none. By default instruments are not compared."""
    for name, value in now["problem"].items():
        if saved["problem"].get(name) != value:
            return f"it is of a problem whose {name} is {saved['problem'].get(name)!r}, this run's is {value!r}"
    settings = saved.get("settings", {})
    for name, value in now.get("settings", {}).items():
        if settings.get(name) != value:
            return f"its {name.replace('_', ' ')} is {settings.get(name)!r}, here {value!r}"
    for part in parts:
        for one, other in zip_longest(saved[part], now[part]):
            if one != other:
                return f"its {part} differ: it has {_words(one)} where this run has {_words(other)}"
    return None


def same_evaluation(saved: Sequence[Any], now: Sequence[Any]) -> bool:
    """Whether two evaluations of the same parameters agree up to the differences between kinds of devices."""
    return np.allclose(saved, now, rtol=0.01, atol=1e-6, equal_nan=True)


def _line(name: str, leaf: Any) -> list[Any]:
    return [name, list(np.shape(leaf)), str(leaf.dtype)]


def _words(line: list[Any] | None) -> str:
    return "nothing more" if line is None else f"{line[0]} ({line[2]}{line[1]})"
