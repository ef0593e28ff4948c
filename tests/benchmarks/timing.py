"""How every benchmark measures: all contenders interleaved in one process, medians, next to the memory's own speed."""

import importlib.util
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

HAS_TORCH = importlib.util.find_spec("torch") is not None


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int, warm_up: int = 2) -> dict[str, float]:
    """Median seconds of each run, taken in turn: A B C C B A ..., so that what slows the machine slows all of them.

    A run returns what to wait for; None if it has waited itself.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + repeats):
        for name, run in list(runs.items())[:: 1 if turn % 2 else -1]:
            time.sleep(0.02)  # torch's threads wait for more work a while, and whoever comes next would pay for that
            started = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken[warm_up:]) for name, taken in seconds.items()}


@dataclass
class Step:
    """One donated training step, `apply_updates` inside, gradients given: call it to do the next one.

    Holds its own copies of the parameters and the state; the compiler's exact figures are beside it.
    """

    tx: optax.GradientTransformation
    params: Any
    grads: Any

    def __post_init__(self) -> None:
        self.params = jax.tree.map(jnp.copy, self.params)
        self.state = self.tx.init(self.params)
        jitted = jax.jit(self._step, donate_argnums=(0, 1))
        started = time.perf_counter()
        traced = jitted.trace(self.params, self.state, self.grads)
        self.trace_seconds, started = time.perf_counter() - started, time.perf_counter()
        lowered = traced.lower()
        self.lower_seconds, started = time.perf_counter() - started, time.perf_counter()
        self.compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - started

    def _step(self, params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = self.tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def __call__(self) -> Any:
        self.params, self.state = self.compiled(self.params, self.state, self.grads)
        return self.params, self.state

    @property
    def temporaries(self) -> float:
        """Bytes the compiled step holds beside arguments and results, in units of the gradients."""
        analysis = self.compiled.memory_analysis()
        return analysis.temp_size_in_bytes / num_bytes(self.grads) if analysis else float("nan")


class Copy:
    """Adds 1 to an array in its place: the fastest that memory goes. Run it among the others."""

    def __init__(self, size: int) -> None:
        self.array = jnp.zeros(size)
        self.add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def __call__(self) -> Any:
        self.array = self.add(self.array)
        return self.array

    @property
    def moved(self) -> int:
        return 2 * self.array.nbytes


def bytes_to_move(step: Step, *, reads_gradients: int = 1) -> int:
    """What a step cannot avoid: parameters and state read and written once, the gradients read once (or more)."""
    return 2 * num_bytes(step.params) + 2 * num_bytes(step.state) + reads_gradients * num_bytes(step.grads)


def num_bytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats with three figures."""

    def cell(x: Any) -> str:
        return f"{x:.3g}" if isinstance(x, float) else str(x)

    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in [header, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def section(script: str, question: str, *paragraphs: str) -> str:
    """A benchmark's part of the README; prints it."""
    text = "\n\n".join([f"## `{script}`: {question}", environment(), *paragraphs]) + "\n"
    print(text, flush=True)
    return text


def environment() -> str:
    versions = {"JAX": jax.__version__, "Optax": optax.__version__, "Python": platform.python_version()}
    if HAS_TORCH:
        import torch

        versions["torch"] = torch.__version__
    device = jax.devices()[0]
    named = f"{jax.device_count()} x {device.device_kind}" if device.platform != "cpu" else _cpu()
    return f"{time.strftime('%Y-%m-%d')}, {named}; " + ", ".join(f"{k} {v}" for k, v in versions.items()) + "."


def _cpu() -> str:
    import os

    return f"CPU with {os.cpu_count()} cores ({platform.machine()})"
