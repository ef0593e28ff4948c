"""How long does a step take, compared with Optax, torch and the speed of the memory?"""

import argparse
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx

from .timing import HAS_TORCH, Copy, Step, bytes_to_move, interleaved, section, table

JOIN_LOOPS = "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion"
NAG = {"momentum": 0.9, "nesterov": True}
# gradtx, Optax, and how often the gradients have to be read
METHODS: dict[str, tuple[Any, Any, int]] = {
    "sgd": (gradtx.sgd(1e-3), optax.sgd(1e-3), 1),
    "sgd, momentum": (gradtx.sgd(1e-3, 0.9), optax.sgd(1e-3, 0.9), 1),
    "sgd, nesterov": (gradtx.sgd(1e-3, 0.9, True), optax.sgd(1e-3, 0.9, True), 1),
    "delta-bar-delta": (gradtx.delta_bar_delta(1e-3), None, 1),
    "adagrad": (gradtx.adagrad(1e-3), optax.adagrad(1e-3), 1),
    "rmsprop": (gradtx.rmsprop(1e-3), optax.rmsprop(1e-3), 1),
    "rmsprop, momentum": (gradtx.rmsprop(1e-3, momentum=0.9), optax.rmsprop(1e-3, momentum=0.9), 1),
    "rmsprop, nesterov": (gradtx.rmsprop(1e-3, **NAG), optax.rmsprop(1e-3, **NAG), 1),
    "adadelta": (gradtx.adadelta(), optax.adadelta(1.0), 1),
    "adam": (gradtx.adam(1e-3), optax.adam(1e-3), 1),
    "clip, adam": (
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
        2,
    ),
    "clip, adam, in Optax's chain": (
        optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
        2,
    ),
    "clip, rmsprop, nesterov": (
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.rmsprop(1e-3, **NAG)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(1e-3, **NAG)),
        2,
    ),
    "guarded rmsprop": (
        gradtx.skip_nonfinite(gradtx.rmsprop(1e-3)),
        optax.apply_if_finite(optax.rmsprop(1e-3), 3),
        1,
    ),
}


def gpt2_shapes(layers: int = 12, width: int = 768, tokens: int = 50257) -> list[tuple[int, ...]]:
    """Returns the shapes of the 148 parameter arrays of the smallest GPT-2."""
    block = [(width,)] * 4 + [(width, 3 * width), (3 * width,), (width, width), (width,)]
    block += [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(tokens, width), (1024, width), *block * layers, (width,), (width,)]


def torch_step(name: str, shapes: list[tuple[int, ...]]) -> Callable[[], Any] | None:
    """Returns torch's fastest twin: fused if there is one, and otherwise foreach. Returns None if there is no twin."""
    if not HAS_TORCH:
        return None
    import torch

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    params = [torch.ones(shape, device=device, requires_grad=True) for shape in shapes]
    for p in params:
        p.grad = torch.full_like(p, 0.1)
    optim = torch.optim
    makers = {
        "sgd": lambda: optim.SGD(params, 1e-3, fused=True),
        "sgd, momentum": lambda: optim.SGD(params, 1e-3, momentum=0.9, fused=True),
        "sgd, nesterov": lambda: optim.SGD(params, 1e-3, momentum=0.9, nesterov=True, fused=True),
        "adagrad": lambda: optim.Adagrad(params, 1e-3, **({"fused": True} if device == "cpu" else {"foreach": True})),
        "rmsprop": lambda: optim.RMSprop(params, 1e-3, foreach=True),
        "rmsprop, momentum": lambda: optim.RMSprop(params, 1e-3, momentum=0.9, foreach=True),
        "adadelta": lambda: optim.Adadelta(params, foreach=True),
        "adam": lambda: optim.Adam(params, 1e-3, fused=True),
        "clip, adam": lambda: optim.Adam(params, 1e-3, fused=True),
    }
    if name not in makers:
        return None
    optimizer = makers[name]()

    def step() -> None:
        if name.startswith("clip"):
            torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def measure(shapes: list[tuple[int, ...]], repeats: int) -> str:
    params = [jnp.ones(shape) for shape in shapes]
    grads = [jnp.full(shape, 0.1) for shape in shapes]
    rows = []
    for name, (ours, theirs, reads) in METHODS.items():
        copy = Copy(sum(x.size for x in params))
        steps = {"gradtx": Step(ours, params, grads)}
        if theirs is not None:
            steps["optax"] = Step(theirs, params, grads)
        torch = torch_step(name, shapes)
        runs: dict[str, Callable[[], Any]] = {**steps, "copy": copy, **({"torch": torch} if torch else {})}
        seconds = interleaved(runs, repeats)
        limit = bytes_to_move(steps["gradtx"], reads_gradients=reads) / copy.moved * seconds["copy"]
        ratio = {k: f"{seconds[k] / seconds['gradtx']:.2f}" if k in seconds else "-" for k in ("optax", "torch")}
        temporaries = [f"{steps[k].temporaries:.1f}" if k in steps else "-" for k in ("gradtx", "optax")]
        over = [f"{seconds[k] / limit:.2f}" if k in seconds else "-" for k in ("gradtx", "optax", "torch")]
        rows.append([name, 1e3 * seconds["gradtx"], ratio["optax"], ratio["torch"], *over, " / ".join(temporaries)])
    header = ["method", "ms", "Optax / gradtx", "torch / gradtx", "gradtx / limit", "Optax / limit", "torch / limit"]
    return table([*header, "temporaries, gradtx / Optax"], rows)


def tables(size: int, repeats: int, tree: bool) -> list[str]:
    parts = [f"One leaf of {size:,} floats:", measure([(size,)], repeats)]
    if tree:
        parts += ["The 148 arrays of GPT-2 (124 million floats):", measure(gpt2_shapes(), max(3, repeats // 2))]
    return parts


def tables_with_joined_loops(*arguments: Any) -> list[str]:
    """Measures in a new process, because XLA reads its flags once."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {JOIN_LOOPS}"
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(tables, *arguments).result()
    finally:
        os.environ["XLA_FLAGS"] = flags


def main(size: int = 50_000_000, repeats: int = 5, tree: bool = True, joined_tree: bool = False) -> str:
    parts = [
        "Each figure is a median over interleaved runs of one donated step with given gradients and `apply_updates` "
        "inside. If one of the first two ratios is above 1, gradtx is faster. The limit is the time to move the "
        "necessary bytes at the speed of an in-place copy, which is measured in the same turns. Temporaries are exact "
        "figures from the compiler, in units of the gradients. torch uses its fused version if it has one, and "
        "otherwise foreach. Clips of gradtx stand in `gradtx.chain` except in one row, and Optax's in `optax.chain`.",
        *tables(size, repeats, tree),
    ]
    if jax.default_backend() == "cpu":
        parts += [
            f"The next two tables were measured with `XLA_FLAGS={JOIN_LOOPS}`, for Optax too. Without "
            "this flag XLA on CPUs does not write several arrays in one loop.",
            *tables_with_joined_loops(size, repeats, joined_tree),
        ]
    return section("step.py", "how long does a step take?", *parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=50_000_000, help="floats in the one leaf (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: %(default)s)")
    parser.add_argument("--no-tree", action="store_true", help="leave GPT-2 out")
    parser.add_argument("--joined-tree", action="store_true", help="GPT-2 with joined loops, in two more minutes")
    arguments = parser.parse_args()
    main(arguments.size, arguments.repeats, not arguments.no_tree, arguments.joined_tree)
