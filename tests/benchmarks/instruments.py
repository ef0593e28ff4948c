"""What does an instrument cost?

The time of a jitted training step with the instrument is divided by that of the plain step, on the four shapes of
DeepOBS (Schneider et al. 2019) with synthetic data and plain SGD. Every step is one compiled program with the
instrument in the chain. It is called from Python, because XLA for CPUs compiles convolutions inside a `scan` badly. The
plain step and the others take turns.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx

from .timing import section, table

RATE, EVERY = 0.01, 16

Params = Any
Model = Callable[[Params, jax.Array], jax.Array]


def dense(key: jax.Array, *sizes: int) -> list[tuple[jax.Array, jax.Array]]:
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = itertools.pairwise(sizes)
    return [(jax.random.normal(k, (m, n)) / m**0.5, jnp.zeros(n)) for k, (m, n) in zip(keys, shapes, strict=True)]


def convolutions(key: jax.Array, *layers: tuple[int, int, int]) -> list[tuple[jax.Array, jax.Array]]:
    keys = jax.random.split(key, len(layers))
    return [(jax.random.normal(k, (size, size, m, n)) / (size * m**0.5), jnp.zeros(n))
            for k, (size, m, n) in zip(keys, layers, strict=True)]  # fmt: skip


def mlp(layers: Any, x: jax.Array) -> jax.Array:
    *hidden, (w, b) = layers
    for v, c in hidden:
        x = jax.nn.relu(x @ v + c)
    return x @ w + b


def convnet(params: Params, x: jax.Array) -> jax.Array:
    for w, b in params["convolutions"]:
        x = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.lax.reduce_window(jax.nn.relu(x + b), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    return mlp(params["dense"], x.reshape(len(x), -1))


def convolutional(key: jax.Array, layers: Any, *sizes: int) -> Params:
    return {"convolutions": convolutions(key, *layers), "dense": dense(key, *sizes)}


KEY = jax.random.key(0)


class Shape(NamedTuple):
    """Holds a model and how it is trained. Convolutions have smaller batches, so that the table takes minutes."""

    init: Callable[[], Params]
    model: Model
    input_shape: tuple[int, ...]
    batch: int
    repeats: int


SHAPES = {
    "logreg": Shape(lambda: dense(KEY, 784, 10), mlp, (784,), 128, 400),
    "mlp": Shape(lambda: dense(KEY, 784, 1000, 500, 100, 10), mlp, (784,), 128, 32),
    "2c2d": Shape(
        lambda: convolutional(KEY, ((5, 1, 32), (5, 32, 64)), 7 * 7 * 64, 1024, 10), convnet, (28, 28, 1), 32, 6
    ),
    "3c3d": Shape(
        lambda: convolutional(KEY, ((5, 3, 64), (3, 64, 96), (3, 96, 128)), 4 * 4 * 128, 512, 256, 10),
        convnet,
        (32, 32, 3),
        32,
        6,
    ),
}

CHAINS: dict[str, tuple[Callable[[], Any], bool]] = {  # name: (make, whether it comes after the optimizer)
    "gradient_norm": (gradtx.gradient_norm, False),
    "update_ratio": (gradtx.update_ratio, True),
    "clipping_events": (lambda: gradtx.clipping_events(1.0), False),
    "gradient_alignment": (gradtx.gradient_alignment, False),
    "stationarity": (lambda: gradtx.stationarity(RATE), False),
    "trajectory": (gradtx.trajectory, True),
    "plateau": (gradtx.plateau, False),
    "curvature_ratio": (lambda: gradtx.curvature_ratio(RATE), False),
    "gain_ratio": (gradtx.gain_ratio, True),
    "gradient_tests": (gradtx.gradient_tests, False),
    "gradient_noise_scale": (gradtx.gradient_noise_scale, False),
    # The first measurement of sharpness is not timed.
    "sharpness": (lambda: gradtx.sharpness(RATE, num_iterations=2), False),
    "panel": (lambda: gradtx.panel(RATE), False),
    # The direction of this update is not that of the gradient.
    "observed": (lambda: gradtx.observed(optax.scale(-1.0)), False),
}


class Run:
    """Holds a training whose step is compiled once, or three times if the host decides what is measured."""

    def __init__(self, shape: Shape, instrument: Any = None, behind: bool = False, by_host: bool = False):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(shape.batch, *shape.input_shape)), jnp.float32)
        labels = jnp.asarray(rng.integers(10, size=shape.batch))
        sgd = optax.sgd(RATE)
        chain = [] if instrument is None else [instrument]
        tx = optax.chain(*([sgd, *chain] if behind else [*chain, sgd]))

        def step(params: Params, state: Any, x: jax.Array, labels: jax.Array, measure: Any) -> Any:
            def losses_fn(params: Params) -> jax.Array:
                return optax.losses.softmax_cross_entropy_with_integer_labels(shape.model(params, x), labels)

            value, grads = jax.value_and_grad(lambda params: jnp.mean(losses_fn(params)))(params)
            extra = {} if instrument is None else {"value": value, "losses_fn": losses_fn, "measure": measure}
            updates, state = tx.update(grads, state, params, **extra)
            return optax.apply_updates(params, updates), state, value

        self.params = shape.init()
        self.state, self.data, self.taken, self.by_host = tx.init(self.params), (x, labels), 0, by_host
        self.compiled = jax.jit(step, static_argnames="measure", donate_argnums=(0, 1))

    def __call__(self) -> float:
        """Takes one step and returns its seconds."""
        measure = {EVERY - 1: "remember", 0: True}.get(self.taken % EVERY, False) if self.by_host else None
        started = time.perf_counter()
        self.params, self.state, value = self.compiled(self.params, self.state, *self.data, measure=measure)
        jax.block_until_ready((self.params, self.state, value))
        self.taken += 1
        return time.perf_counter() - started


def ratio(run: Run, plain: Run, repeats: int, period: int = 1) -> float:
    """Returns the time of a step of `run` divided by that of `plain`. The two take turns.

    Each step of a period counts with its lower quartile, because other programs on the machine only add to a time. The
    result is the mean over the period.
    """
    for _ in range(max(period, 3)):  # compiles, and takes the first measurement
        run()
        plain()
    times: list[list[float]] = [[] for _ in range(period)]
    plain_times = []
    for _ in range(repeats * period):
        times[run.taken % period].append(run())
        plain_times.append(plain())
    return statistics.mean(map(quartile, times)) / quartile(plain_times)


def quartile(seconds: list[float]) -> float:
    return float(np.quantile(seconds, 0.25))


def column(name: str) -> dict[str, str]:
    """Measures one shape, and returns its figures by row of the table."""
    shape = SHAPES[name]
    plain = Run(shape)
    plain()
    rows = {"batch": str(shape.batch), "plain step, ms": f"{1e3 * quartile([plain() for _ in range(8)]):.3g}"}
    periodic = {
        f"panel, every={EVERY}": Run(shape, gradtx.panel(RATE, EVERY)),
        f"observed, every={EVERY}": Run(shape, gradtx.observed(optax.scale(-1.0), every=EVERY)),
        f"panel, one step in {EVERY} by the host": Run(shape, gradtx.panel(RATE), by_host=True),
    }
    for row, (make, behind) in CHAINS.items():
        rows[row] = f"{ratio(Run(shape, make(), behind), plain, shape.repeats):.2f}"
        print(f"{name:8}{row:40}{rows[row]}", flush=True)
    for row, run in periodic.items():
        rows[row] = f"{ratio(run, plain, max(2, shape.repeats // 4), EVERY):.2f}"
        print(f"{name:8}{row:40}{rows[row]}", flush=True)
    return rows


def main(shapes: tuple[str, ...] = tuple(SHAPES)) -> str:
    columns = {name: column(name) for name in shapes}
    rows = [[row, *(found[row] for found in columns.values())] for row in next(iter(columns.values()))]
    return section(
        "instruments.py",
        "what does an instrument cost?",
        "Each figure is the time of a jitted training step with the instrument divided by that of the plain step. Both "
        "are lower quartiles over interleaved runs. The panel shares its passes among norms, alignment, curvature "
        f"ratio, gradient tests and noise scale. With `every={EVERY}` the figure is the mean over {EVERY} steps.",
        table(["ratio to the plain step", *columns], rows),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", help=f"of {', '.join(SHAPES)}; default all")
    chosen = tuple(parser.parse_args().shapes) or tuple(SHAPES)
    if unknown := sorted(set(chosen) - set(SHAPES)):
        parser.error(f"no such shape: {', '.join(unknown)}")
    main(chosen)
