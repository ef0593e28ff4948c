"""How much does packing save for a tree with many small leaves?"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx

from .timing import HAS_TORCH, Step, interleaved, section, table


def small_leaves(count: int) -> dict[str, jax.Array]:
    """Returns leaves of 64 to 4,096 entries each, with 64 different shapes."""
    random = np.random.default_rng(0)
    shapes = [tuple(int(n) for n in random.integers(8, 65, 2)) for _ in range(64)]
    return {f"layer{i}": jnp.asarray(random.normal(size=shapes[i % 64]), jnp.float32) for i in range(count)}


def torch_step(params: dict[str, jax.Array], **how: bool) -> Callable[[], Any]:
    import torch

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    tensors = [torch.ones(x.shape, device=device, requires_grad=True) for x in params.values()]
    for tensor in tensors:
        tensor.grad = torch.full_like(tensor, 0.1)
    optimizer = torch.optim.Adam(tensors, 1e-3, **how)

    def step() -> None:
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def measure(count: int, repeats: int, *, with_cut_updates: bool) -> str:
    params = small_leaves(count)
    packed, _ = gradtx.pack(params)
    adam = gradtx.adam(1e-3)
    steps = {
        "Optax, tree": Step(optax.adam(1e-3), params, params),
        "gradtx, tree": Step(adam, params, params),
        "gradtx, `pack(params)`": Step(gradtx.packed(adam), packed, packed),
    }
    if with_cut_updates:
        steps["gradtx, `packed(tx)` on the tree"] = Step(gradtx.packed(adam), params, params)
    runs: dict[str, Callable[[], Any]] = dict(steps)
    if HAS_TORCH:
        runs |= {"torch, fused": torch_step(params, fused=True), "torch, foreach": torch_step(params, foreach=True)}
    seconds = interleaved(runs, repeats)
    to_compile = {k: s.trace_seconds + s.lower_seconds + s.compile_seconds for k, s in steps.items()}
    rows = []
    for name, taken in seconds.items():
        built = ["-", "-"]
        if name in steps:
            built = [f"{to_compile[name]:.2f}", f"{to_compile['Optax, tree'] / to_compile[name]:.2f}"]
        rows.append([name, 1e3 * taken, f"{seconds['Optax, tree'] / taken:.2f}", *built])
    return table(["adam", "ms per step", "Optax / this", "s to trace and compile", "Optax / this"], rows)


def main(counts: tuple[int, ...] = (1000, 5000), repeats: int = 15) -> str:
    parts = [
        "Each step is donated and has `apply_updates` inside. With `pack(params)` the parameters, gradients and state "
        "are a few vectors. On a tree `packed(tx)` packs the gradients and splits the updates at every step. A ratio "
        "above 1 means faster than Optax. The vectors have an even number of entries, because XLA on the CPU does not "
        "vectorise a loop over an odd number. With 1,356,571 entries a step of Adam took 8.9 ms instead of 1.8, in "
        "Optax and in gradtx.",
    ]
    for count in counts:
        parts += [f"{count:,} leaves:", measure(count, repeats, with_cut_updates=count <= 1000)]
    return section("leaves.py", "how much does packing save for a tree with many small leaves?", *parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 5000], help="leaves (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="turns (default: %(default)s)")
    arguments = parser.parse_args()
    main(tuple(arguments.counts), arguments.repeats)
