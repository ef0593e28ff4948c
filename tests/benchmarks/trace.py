"""How long does it take until the first step: to trace, to lower, to compile?"""

import argparse
import statistics
import time
from typing import Any

import jax
import optax

import gradtx

from .leaves import small_leaves
from .timing import section, table


def stages(tx: Any, params: Any, *, compiles: bool) -> list[float]:
    """Returns the seconds to trace, lower and compile an update that is in no cache."""
    state = tx.init(params)
    started = time.perf_counter()
    traced = jax.jit(lambda grads, state: tx.update(grads, state)).trace(params, state)
    seconds = [time.perf_counter() - started]
    started = time.perf_counter()
    lowered = traced.lower()
    seconds.append(time.perf_counter() - started)
    if compiles:
        started = time.perf_counter()
        lowered.compile()
        seconds.append(time.perf_counter() - started)
    return seconds


def main(count: int = 1000, repeats: int = 5) -> str:
    params = small_leaves(count)
    packed, _ = gradtx.pack(params)
    contenders = {
        "Optax, adam": (optax.adam(1e-3), params),
        "gradtx, adam": (gradtx.adam(1e-3), params),
        "gradtx, adam on `pack(params)`": (gradtx.adam(1e-3), packed),
        "Optax, clip + rmsprop + nesterov": (
            optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(1e-3, momentum=0.9, nesterov=True)),
            params,
        ),
        "gradtx, clip + rmsprop + nesterov": (
            gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.rmsprop(1e-3, momentum=0.9, nesterov=True)),
            params,
        ),
    }
    taken: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for turn in range(repeats):
        for name, (tx, tree) in contenders.items():
            taken[name].append(stages(tx, tree, compiles=turn == 0))
    rows = []
    for name, turns in taken.items():
        reference = taken[name.replace("gradtx", "Optax").partition(" on ")[0]]
        trace, lower = (statistics.median(turn[i] for turn in turns) for i in (0, 1))
        ratio = statistics.median(turn[0] for turn in reference) / trace
        rows.append([name, f"{trace:.3f}", f"{lower:.3f}", f"{turns[0][2]:.2f}", f"{ratio:.2f}"])
    return section(
        "trace.py",
        "how long does it take until the first step?",
        f"The program is the update without `apply_updates`, on {count:,} leaves of 64 shapes. Times to trace and to "
        f"lower are medians over {repeats} turns, and the time to compile was measured once. The last column is "
        "Optax's time to trace divided by that of the row. The clips stand in `gradtx.chain` and in `optax.chain`.",
        table(["update", "s to trace", "s to lower", "s to compile", "Optax / this"], rows),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="leaves (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: %(default)s)")
    arguments = parser.parse_args()
    main(arguments.count, arguments.repeats)
