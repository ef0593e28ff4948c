"""Every benchmark runs all contenders interleaved in one process and takes medians."""

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
    """Returns median seconds of each run. The order is A B C C B A ..., so that a slow phase affects all runs alike.

    A run returns the arrays to wait for, or None if it has already waited.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + repeats):
        for name, run in list(runs.items())[:: 1 if turn % 2 else -1]:
            time.sleep(0.02)  # torch's threads stay busy for a moment, which would slow the next run
            started = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken[warm_up:]) for name, taken in seconds.items()}


@dataclass
class Step:
    """Holds one donated step with given gradients and `apply_updates` inside. Each call takes the next step.

    It has copies of the parameters and the state, and exact figures of the compiler.
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
        """Returns the bytes of the compiled step beside arguments and results, in units of the gradients."""
        analysis = self.compiled.memory_analysis()
        return analysis.temp_size_in_bytes / num_bytes(self.grads) if analysis else float("nan")


class Copy:
    """Adds 1 to an array in place, which shows the speed of the memory. It takes turns with the others."""

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
    """Returns the bytes that a step must move: it reads and writes parameters and state, and reads the gradients."""
    return 2 * num_bytes(step.params) + 2 * num_bytes(step.state) + reads_gradients * num_bytes(step.grads)


def num_bytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table. Floats have three significant digits."""

    def cell(x: Any) -> str:
        return f"{x:.3g}" if isinstance(x, float) else str(x)

    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in [header, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def section(script: str, question: str, *paragraphs: str) -> str:
    """Prints and returns the section of a benchmark in the README."""
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
