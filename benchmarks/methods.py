"""Step time and temporaries of each method beside Optax's twin: one leaf, donated, `apply_updates` inside.

Prints, for each method, the gradient-sized temporaries of both (exact, from the compiler) and the ratio of the median
times of interleaved runs (above 1: gradtx is faster). Run on a quiet machine, twice.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import optax

import gradtx

NAG = {"momentum": 0.9, "nesterov": True}
PAIRS = {
    "sgd": (gradtx.sgd(1e-3), optax.sgd(1e-3)),
    "sgd, momentum": (gradtx.sgd(1e-3, 0.9), optax.sgd(1e-3, 0.9)),
    "sgd, nesterov": (gradtx.sgd(1e-3, 0.9, True), optax.sgd(1e-3, 0.9, True)),
    "adagrad": (gradtx.adagrad(1e-3), optax.adagrad(1e-3)),
    "rmsprop": (gradtx.rmsprop(1e-3), optax.rmsprop(1e-3)),
    "rmsprop, momentum": (gradtx.rmsprop(1e-3, momentum=0.9), optax.rmsprop(1e-3, momentum=0.9)),
    "rmsprop, nesterov": (gradtx.rmsprop(1e-3, **NAG), optax.rmsprop(1e-3, **NAG)),
    "adadelta": (gradtx.adadelta(), optax.adadelta(1.0)),
    "adam": (gradtx.adam(1e-3), optax.adam(1e-3)),
    "clip, adam": (
        optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
    ),
    "clip, rmsprop, nesterov": (
        optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.rmsprop(1e-3, **NAG)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(1e-3, **NAG)),
    ),
    "guarded rmsprop": (
        gradtx.skip_nonfinite(gradtx.rmsprop(1e-3)),
        optax.apply_if_finite(optax.rmsprop(1e-3), 3),
    ),
}


def compiled_step(tx, size):
    params, grads = jnp.ones(size), jnp.full(size, 0.1)
    state = tx.init(params)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, grads).compile(), params, state, grads


def measure(pair, size, repeats):
    runs = [list(compiled_step(tx, size)) for tx in pair]
    temporaries = [run[0].memory_analysis().temp_size_in_bytes / (4 * size) for run in runs]
    times = [[], []]
    for _ in range(repeats):
        for run, seconds in zip(runs, times, strict=True):
            started = time.perf_counter()
            run[1], run[2] = run[0](*run[1:])
            jax.block_until_ready(run[1:3])
            seconds.append(time.perf_counter() - started)
    return temporaries, [1e3 * statistics.median(seconds[2:]) for seconds in times]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=10_000_000, help="floats in the one leaf (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=21, help="interleaved runs (default: %(default)s)")
    arguments = parser.parse_args()
    print(
        f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].device_kind}, {arguments.size:,} floats"
    )
    print(f"{'':26}{'temporaries (leaves)':>22}{'ms a step':>18}{'Optax / gradtx':>18}")
    for name, pair in PAIRS.items():
        (ours, theirs), (ms, their_ms) = measure(pair, arguments.size, arguments.repeats)
        print(f"{name:26}{ours:11.2f}{theirs:11.2f}{ms:9.1f}{their_ms:9.1f}{their_ms / ms:18.2f}", flush=True)


if __name__ == "__main__":
    main()
