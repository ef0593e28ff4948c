"""Records a training loop of your own without waiting for the device."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx._core.arguments import checked_count

from .archive import read_archive, write_archive
from .extra import imported
from .history import scalar_columns
from .live import LiveView

FETCH_EVERY = 256  # calls; the values of older calls come from the device to the host together


class Entry(NamedTuple):
    """The record of one call, for n steps."""

    steps: np.ndarray  # [n] int
    shapes: dict[str, tuple[int, ...]]  # name -> shape of the value, [n, ...]
    values: Any  # all values of the call in one vector, on the device or on the host

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Splits the last axis, which is that of `self.values`, into the parts of the names."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        return np.split(values, np.cumsum(sizes)[:-1], axis=-1)


class Recorder(Mapping[str, Any]):
    """Records a training loop of your own, step by step or as stacked output of a scan.

    It is a dict of arrays with one value for each recorded step: `loss`, readings, other given names, and `step`. A
    missing value is NaN. So you can call `gradtx.diagnose(log)`, `lab.plot_diagnosis(log)` and
    `lab.plot_readings(log)`.

    A call does not wait for the device. It dispatches one small copy, so it is safe to donate the optimizer state that
    holds the readings. Values are fetched when they are read, or after many steps.

    Args:
        every: steps from one call to the next, for loops that record every N-th step.
        live: show some curves and the current diagnosis while the loop runs, in a notebook or a terminal. A separate
            thread draws them at most once per second.
        name: name of the trained problem or model, for headlines.

    Raises:
        ValueError, TypeError: if an argument is out of range or of another kind.

    >>> import gradtx, jax, jax.numpy as jnp, optax
    >>> from gradtx import lab
    >>> tx = optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.1))
    >>> w = jnp.array([1.0, 2.0])
    >>> state, log = tx.init(w), lab.Recorder()
    >>> for _ in range(50):
    ...     value, g = jax.value_and_grad(lambda w: w @ w)(w)
    ...     updates, state = tx.update(g, state, w)
    ...     w = optax.apply_updates(w, updates)
    ...     log(loss=value, **gradtx.readings(state), learning_rate=0.1)
    >>> print(log, log["loss"][:3], gradtx.diagnose(log).challenges)
    Recorder(50 steps: loss, gradient_norm/global, gradient_norm/slope, gradient_norm/nonfinite, learning_rate)
    [5. 3.2 2.05] set()
    """

    def __init__(self, *, every: int = 1, live: bool = False, name: str = "") -> None:
        self.every = checked_count("Recorder", "every", every)
        if not isinstance(live, bool):
            raise TypeError(f"Recorder: live must be True or False, got {live!r}.")
        self.name = str(name)
        self._entries: list[Entry] = []
        self._fetched = 0  # entries whose values are on the host
        self._trailing: dict[str, tuple[int, ...]] = {}
        self._now: set[str] = set()  # names with a value at the last step
        self.calls = 0  # that recorded something
        self._table: tuple[int, dict[str, np.ndarray]] = (0, {})  # calls that it includes, columns
        self._view = LiveView(self) if live else None

    def __call__(self, values: Mapping[str, Any] | None = None, /, *, step: Any = None, **more: Any) -> None:
        """Records one step, or n steps if the loss is an array [n].

        A call with a loss is a new step. A call without one, such as a validation loss after an epoch, belongs to the
        last step if that step has no value of these names yet. Otherwise it is a new step.

        Args:
            values: a dict, such as the output of a scan. It has the same meaning as keyword arguments.
            step: the number of the step, or [n] numbers, if they do not follow from `every`.
            **more: `loss`, readings, `learning_rate`, `batch_size`, `epoch`, ...; numbers or arrays. In a call for n
                steps each is [n, ...], or a number for all of them. None is left out.

        Raises:
            TypeError: if a value is not a number, or the call is inside `jit`.
            ValueError: if shapes do not fit, or a step is before the last one.
        """
        given = {name: value for name, value in {**(values or {}), **more}.items() if value is not None}
        if not given:
            return
        for name, value in given.items():
            _check_number(name, value)
        count = _count(given)
        steps = self._steps(given, count, step)
        shapes = {name: _shape(name, value, count) for name, value in given.items()}
        for name, shape in shapes.items():
            if self._trailing.setdefault(name, shape[1:]) != shape[1:]:
                raise ValueError(
                    f"Recorder: {name} must have shape {self._trailing[name]} at each step, as before, got {shape[1:]}."
                )
        is_same = bool(self._entries) and self._entries[-1].steps[-1] == steps[0]
        self._now = (self._now if is_same else set()) | given.keys()
        on_device = {name: value for name, value in given.items() if isinstance(value, jax.Array)}
        here = {name: value for name, value in given.items() if name not in on_device}
        for part in (on_device, here):
            if part:
                part_shapes = {name: shapes[name] for name in part}
                self._entries.append(Entry(steps, part_shapes, _in_one_vector(part, part_shapes)))
        self.calls += 1
        if len(self._entries) - self._fetched >= 4 * FETCH_EVERY:
            self._fetch(len(self._entries) - 2 * FETCH_EVERY)
        if self._view is not None:
            self._view.start()

    def _steps(self, given: Mapping[str, Any], count: int, step: Any) -> np.ndarray:
        last = int(self._entries[-1].steps[-1]) if self._entries else None
        if step is not None:
            steps = np.atleast_1d(np.asarray(step))
            if steps.dtype.kind not in "iu" or steps.shape != (count,) or (np.diff(steps) < 0).any():
                raise ValueError(f"Recorder: step must be {count} integer(s) in ascending order, got {step!r}.")
            if last is not None and steps[0] < last:
                raise ValueError(f"Recorder: step must not be before the last one, {last}, got {step!r}.")
            return steps.astype(int)
        if last is None:
            return self.every * np.arange(count)
        if count == 1 and "loss" not in given and not (given.keys() & self._now):
            return np.array([last])
        return last + self.every * np.arange(1, count + 1)

    def _fetch(self, until: int) -> None:
        """Brings the values of the entries before `until` to the host and joins them. They are already computed."""
        entries = self._entries
        old = entries[self._fetched : until]
        values = jax.device_get([entry.values for entry in old])
        kinds: dict[tuple[Any, ...], list[Entry]] = {}
        for entry, fetched in zip(old, values, strict=True):
            kinds.setdefault(tuple(entry.shapes.items()), []).append(entry._replace(values=fetched))
        joined = [_joined(alike) for alike in kinds.values()]
        self._entries = entries[: self._fetched] + joined + entries[until:]
        self._fetched += len(joined)

    def table(self) -> dict[str, np.ndarray]:
        """An array with one value per step for each name, in the order of first record. Waits for the device."""
        calls, entries = self.calls, self._entries[:]
        if self._table[0] == calls:
            return self._table[1]
        trailing = dict(self._trailing)
        steps = np.unique(np.concatenate([entry.steps for entry in entries]))
        columns = {name: np.full((len(steps), *shape), np.nan) for name, shape in trailing.items()}
        for entry in entries:
            rows, parts = np.searchsorted(steps, entry.steps), entry.split(np.asarray(entry.values))
            for (name, shape), part in zip(entry.shapes.items(), parts, strict=True):
                columns[name][rows] = part.reshape(shape)
        self._table = calls, columns | {"step": steps}
        return self._table[1]

    def __getitem__(self, name: str) -> Any:
        if name == "problem" and self.name:
            return self.name
        return self.table()[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.table()
        if self.name:
            yield "problem"

    def __len__(self) -> int:
        return len(self.table()) + bool(self.name)

    @property
    def steps(self) -> int:
        """Number of recorded steps."""
        return len(self.table().get("step", ()))

    def to_dict(self) -> dict[str, np.ndarray]:
        """The arrays by name, [steps] or [steps, ...]."""
        return dict(self.table())

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with one row per recorded step. A reading of several numbers has one column per number.

        Raises:
            ModuleNotFoundError: if pandas is not installed.
        """
        pd = imported("pandas", "Recorder.to_dataframe needs pandas: pip install pandas.")
        columns = self.to_dict()
        index = pd.Index(columns.pop("step", np.zeros(0, int)), name="step")
        return pd.DataFrame(scalar_columns(columns), index=index)

    def save(self, path: str | Path) -> None:
        """Writes an .npz file. A failed save leaves an older file of this name unchanged."""
        write_archive(path, "Recorder", {"every": self.every, "name": self.name}, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "Recorder":
        """Reads a file that `save` wrote. Recording can continue.

        Raises:
            ValueError: if the file is of another kind or format, or damaged.
        """
        plain, columns = read_archive(path, "Recorder")
        log = cls(**plain)
        steps = columns.pop("step", np.zeros(0, int))
        if len(steps):
            log(columns, step=steps)
            log._now = {name for name, column in columns.items() if not np.isnan(column[-1]).all()}
        return log

    def close(self) -> None:
        """Draws the last state of the run and ends the live view. The end of a `with` block calls this."""
        if self._view is not None:
            self._view.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(self._trailing) or "nothing recorded"
        return f"Recorder({self.steps} steps: {names})"


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, Tracer):
        raise TypeError(
            f"Recorder: {name} is traced. Call the recorder outside jit and scan, with what the step returns, "
            "or with the stacked output of the scan."
        )
    dtype = value.dtype if isinstance(value, jax.Array) else np.asarray(value).dtype
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"Recorder: {name} must be a real number or an array of them, got {value!r}.")


def _count(given: Mapping[str, Any]) -> int:
    """Number of steps of a call: the length of the loss. Without a loss, arrays of equal length are stacked steps."""
    if "loss" in given:
        shape = np.shape(given["loss"])
        if len(shape) > 1:
            raise ValueError(f"Recorder: loss must be a number, or [steps] of a scan, got shape {shape}.")
        return shape[0] if shape else 1
    shapes = [np.shape(value) for value in given.values()]
    lengths = {shape[0] if shape else None for shape in shapes}
    return lengths.pop() or 0 if len(lengths) == 1 and None not in lengths else 1


def _shape(name: str, value: Any, count: int) -> tuple[int, ...]:
    """The shape of a value over the steps of its call, [n, ...]."""
    shape = np.shape(value)
    if count == 1:
        return shape if len(shape) > 1 and shape[0] == 1 else (1, *shape)
    if not shape:
        return (count,)
    if shape[0] != count:
        raise ValueError(f"Recorder: {name} must be a number or have {count} values, as the loss has, got {shape}.")
    return shape


@partial(jax.jit, static_argnums=1)
def _copied(arrays: list[jax.Array], shapes: tuple[tuple[int, ...], ...]) -> jax.Array:
    wide = [jnp.broadcast_to(x, shape) for x, shape in zip(arrays, shapes, strict=True)]
    return jnp.concatenate([jnp.ravel(x).astype(jnp.result_type(float)) for x in wide])


def _in_one_vector(values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """All values in one vector. A number that holds for all steps of a call is repeated.

    On the device the vector is a copy, so that the arrays that the values came from may be donated.
    """
    if all(isinstance(value, jax.Array) for value in values.values()):
        with suppress(ValueError):  # arrays on different devices
            return _copied(list(values.values()), tuple(shapes.values()))
    wide = [np.broadcast_to(np.asarray(value, float), shapes[name]) for name, value in values.items()]
    return np.concatenate([np.ravel(value) for value in wide])


def _joined(entries: list[Entry]) -> Entry:
    parts = entries[0].split(np.stack([entry.values for entry in entries]))
    shapes = {name: (len(entries) * n, *rest) for name, (n, *rest) in entries[0].shapes.items()}
    steps = np.concatenate([entry.steps for entry in entries])
    return Entry(steps, shapes, np.concatenate([part.ravel() for part in parts]))
