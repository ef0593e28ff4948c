"""What does a small state cost in bytes, time and final loss?"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

import gradtx
from gradtx import lab
from gradtx.lab.problems.sequences import adding
from gradtx.lab.problems.text import characters

from .timing import Step, interleaved, num_bytes, section, table

FIGURE = Path(__file__).parent / "state.png"
STORED: dict[str, Any] = {"float32": None, "bfloat16": jnp.bfloat16, "8 bits": "8bit"}
PROBLEMS = {
    "digits": (lab.digits, 0.003, 400),
    "adding": (lambda: adding(length=20), 0.003, 600),
    "characters": (lambda: characters(context=16, width=32, layers=1), 0.003, 400),
}


def stored(tx: Any, dtype: Any, **how: Any) -> Any:
    return tx if dtype is None else gradtx.stored_as(tx, dtype, **how)


def costs(size: int, repeats: int) -> str:
    params, grads = jnp.ones(size), jnp.full(size, 0.1)
    steps = {
        f"{method}, {name}": Step(stored(tx, dtype), params, grads)
        for method, tx in (("adam", gradtx.adam(1e-3)), ("momentum", gradtx.sgd(1e-3, 0.9)))
        for name, dtype in STORED.items()
    }
    steps["Optax adam, `mu_dtype` bfloat16"] = Step(optax.adam(1e-3, mu_dtype=jnp.bfloat16), params, grads)
    seconds = interleaved(dict(steps), repeats)
    rows = []
    for name, step in steps.items():
        whole = seconds["momentum, float32" if name.startswith("momentum") else "adam, float32"]
        taken = seconds[name]
        rows.append(
            [name, f"{num_bytes(step.state) / size:.2f}", 1e3 * taken, taken / whole, f"{step.temporaries:.1f}"]
        )
    return table(["method", "bytes per parameter", "ms per step", "ratio to float32", "temporaries, leaves"], rows)


def losses(keys: int) -> str:
    """Trains three problems, draws the curves and returns the table of the final losses."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PROBLEMS), figsize=(12, 3.6), layout="constrained")
    rows = []
    for axis, (problem_name, (make, rate, steps)) in zip(axes, PROBLEMS.items(), strict=True):
        problem, row = make(), [problem_name]
        for name, dtype in STORED.items():
            tx = stored(gradtx.adam(rate), dtype, min_leaf_size=1)
            histories = [
                lab.run(problem, tx, steps=steps, key=jax.random.key(k), eval_every=steps // 20, progress=False)
                for k in range(keys)
            ]
            curves = np.stack([history.train_loss for history in histories])
            axis.plot(histories[0].eval_steps, curves.mean(axis=0), label=name)
            row.append(f"{curves[:, -1].mean():.4g} ± {curves[:, -1].std():.2g}")
        axis.set(title=problem_name, xlabel="step", ylabel="training loss", yscale="log")
        rows.append(row)
    axes[0].legend(frameon=False)
    figure.savefig(FIGURE, dpi=120)
    plt.close(figure)
    return table(["problem", *STORED], rows)


def main(size: int = 8_000_000, repeats: int = 11, keys: int = 3) -> str:
    return section(
        "state.py",
        "what does a small state cost?",
        f"One donated step on a leaf of {size:,} floats with `apply_updates` inside, medians over interleaved runs:",
        costs(size, repeats),
        f"Final training loss of Adam with all of its state in each form (`min_leaf_size=1`), mean and standard "
        f"deviation over {keys} keys:",
        losses(keys),
        "![Training loss with a state in float32, bfloat16 and 8 bits](state.png)",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8_000_000, help="floats in the one leaf (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=11, help="turns (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=3, help="trainings of each problem (default: %(default)s)")
    arguments = parser.parse_args()
    main(arguments.size, arguments.repeats, arguments.keys)
