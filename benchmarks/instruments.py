"""What each instrument costs: the time of a jitted training step with it over that of the plain one.

The four shapes of DeepOBS (Schneider et al. 2019) with synthetic data, batches of 128, plain SGD. Every step is one
compiled program with the instrument in the chain, called from Python; the plain step and the others take turns, and the
medians are compared. No `scan`: XLA compiles convolutions inside loops badly for CPUs.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx

BATCH, RATE, EVERY = 128, 0.01, 16

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
SHAPES: dict[str, tuple[Callable[[], Params], Model, tuple[int, ...], int]] = {
    "logreg": (lambda: dense(KEY, 784, 10), mlp, (784,), 200),
    "mlp": (lambda: dense(KEY, 784, 1000, 500, 100, 10), mlp, (784,), 24),
    "2c2d": (lambda: convolutional(KEY, ((5, 1, 32), (5, 32, 64)), 7 * 7 * 64, 1024, 10), convnet, (28, 28, 1), 4),
    "3c3d": (
        lambda: convolutional(KEY, ((5, 3, 64), (3, 64, 96), (3, 96, 128)), 4 * 4 * 128, 512, 256, 10),
        convnet,
        (32, 32, 3),
        3,
    ),
}

CHAINS: dict[str, tuple[Callable[[], Any], bool]] = {  # name: (make, whether it stands behind the optimizer)
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
    "sharpness": (lambda: gradtx.sharpness(RATE, num_iterations=2), False),  # its first measurement is not timed
    "panel": (lambda: gradtx.panel(RATE), False),
}


class Run:
    """A training whose step is compiled once, or twice where the host decides what is measured."""

    def __init__(self, shape: str, instrument: Any = None, behind: bool = False, by_host: bool = False):
        make, model, size, _ = SHAPES[shape]
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(BATCH, *size)), jnp.float32)
        labels = jnp.asarray(rng.integers(10, size=BATCH))
        sgd = optax.sgd(RATE)
        chain = [] if instrument is None else [instrument]
        tx = optax.chain(*([sgd, *chain] if behind else [*chain, sgd]))

        def step(params: Params, state: Any, x: jax.Array, labels: jax.Array, measure: bool | None) -> Any:
            def losses_fn(params: Params) -> jax.Array:
                return optax.losses.softmax_cross_entropy_with_integer_labels(model(params, x), labels)

            def value_fn(params: Params) -> jax.Array:
                return jnp.mean(losses_fn(params))

            value, grads = jax.value_and_grad(value_fn)(params)
            extra = {} if instrument is None else {"value": value, "losses_fn": losses_fn, "measure": measure}
            updates, state = tx.update(grads, state, params, **extra)
            return optax.apply_updates(params, updates), state, value

        self.params = make()
        self.state, self.data, self.taken, self.by_host = tx.init(self.params), (x, labels), 0, by_host
        self.compiled = jax.jit(step, static_argnames="measure", donate_argnums=(0, 1))

    def __call__(self) -> float:
        """One step; its seconds."""
        # Two steps in a row: what compares with the step before remembers at the first.
        measure = self.taken % EVERY in (0, 1) if self.by_host else None
        started = time.perf_counter()
        self.params, self.state, value = self.compiled(self.params, self.state, *self.data, measure=measure)
        jax.block_until_ready((self.params, self.state, value))
        self.taken += 1
        return time.perf_counter() - started


def ratio(run: Run, plain: Run, repeats: int, steps: int = 1) -> float:
    """Median over interleaved pairs: `steps` steps of the one over as many of the other."""
    for _ in range(2):  # compiled, and past what only a first measurement does
        run()
        plain()
    while run.taken % steps and steps > 1:
        run()
    pairs = []
    for turn in range(repeats):
        order = (run, plain) if turn % 2 else (plain, run)
        seconds = {id(r): sum(r() for _ in range(steps)) for r in order}
        pairs.append((seconds[id(run)], seconds[id(plain)]))
    times, plain_times = zip(*pairs, strict=True)
    return statistics.median(times) / statistics.median(plain_times)


def column(shape: str) -> dict[str, str]:
    """One shape's figures, by row of the table."""
    repeats = SHAPES[shape][3]
    plain = Run(shape)
    plain()
    rows = {"plain step, ms": f"{1e3 * statistics.median(plain() for _ in range(max(3, repeats // 4))):.3g}"}
    for name, (make, behind) in CHAINS.items():
        rows[name] = f"{ratio(Run(shape, make(), behind), plain, repeats):.2f}"
        print(f"{shape:8}{name:24}{rows[name]}", flush=True)
    cycles = max(1, repeats // 8)
    for name, run in {
        f"panel, every={EVERY}": Run(shape, gradtx.panel(RATE, EVERY)),
        f"panel, two steps in {EVERY} by the host": Run(shape, gradtx.panel(RATE), by_host=True),
    }.items():
        rows[name] = f"{ratio(run, plain, cycles, 2 * EVERY if cycles > 1 else EVERY):.2f}"
        print(f"{shape:8}{name:36}{rows[name]}", flush=True)
    return rows


def main(shapes: tuple[str, ...] = tuple(SHAPES)) -> str:
    """The table, in Markdown; printed as well."""
    columns = {shape: column(shape) for shape in shapes}
    names = next(iter(columns.values()))
    lines = [f"| ratio to the plain step | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(rows[name] for rows in columns.values())} |" for name in names]
    table = "\n".join(lines)
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, batch {BATCH}\n{table}")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="logreg and mlp only")
    main(("logreg", "mlp") if parser.parse_args().quick else tuple(SHAPES))
