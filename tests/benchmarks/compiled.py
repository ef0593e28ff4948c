"""What do the compilers for an H100 and a TPU v5e make of a step? Only the compilers are needed, not the devices."""

import argparse
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx

from .timing import section, table

NAG = {"momentum": 0.9, "nesterov": True}
# gradtx, Optax's twin, and the number of trees that a step of gradtx has to move: the parameters twice, the state
# twice, and the gradients once, or twice if a decision about all of them comes first
STEPS: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None, float]] = {
    "sgd": (lambda: gradtx.sgd(1e-3), lambda: optax.sgd(1e-3), 3),
    "sgd, momentum": (lambda: gradtx.sgd(1e-3, 0.9), lambda: optax.sgd(1e-3, 0.9), 5),
    "sgd, nesterov": (lambda: gradtx.sgd(1e-3, 0.9, True), lambda: optax.sgd(1e-3, 0.9, True), 5),
    "delta-bar-delta": (lambda: gradtx.delta_bar_delta(1e-3), None, 7),
    "adagrad": (lambda: gradtx.adagrad(1e-3), lambda: optax.adagrad(1e-3), 5),
    "rmsprop": (lambda: gradtx.rmsprop(1e-3), lambda: optax.rmsprop(1e-3), 5),
    "rmsprop, momentum": (lambda: gradtx.rmsprop(1e-3, momentum=0.9), lambda: optax.rmsprop(1e-3, momentum=0.9), 7),
    "rmsprop, nesterov": (lambda: gradtx.rmsprop(1e-3, **NAG), lambda: optax.rmsprop(1e-3, **NAG), 7),
    "adadelta": (lambda: gradtx.adadelta(), lambda: optax.adadelta(1.0), 7),
    "adam": (lambda: gradtx.adam(1e-3), lambda: optax.adam(1e-3), 7),
    "clip by value, sgd": (
        lambda: optax.chain(gradtx.clip_by_value(1.0), gradtx.sgd(1e-3)),
        lambda: optax.chain(optax.clip(1.0), optax.sgd(1e-3)),
        4,
    ),
    "clip by leaf norm, sgd": (
        lambda: optax.chain(gradtx.clip_by_norm(1.0), gradtx.sgd(1e-3)),
        lambda: optax.chain(optax.clip_by_block_rms(1.0), optax.sgd(1e-3)),
        4,
    ),
    "clip, sgd": (
        lambda: optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(1e-3)),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1e-3)),
        4,
    ),
    "clip, adam": (
        lambda: optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3)),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
        8,
    ),
    "clip, rmsprop, nesterov": (
        lambda: optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.rmsprop(1e-3, **NAG)),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(1e-3, **NAG)),
        8,
    ),
    "blocks: clip, rms, rate, nesterov": (
        lambda: gradtx.chain(
            gradtx.clip_by_global_norm(1.0),
            gradtx.scale_by_rms(),
            gradtx.scale_by_learning_rate(1e-3),
            gradtx.nesterov(0.9),
        ),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(1e-3, **NAG)),
        8,
    ),
    "guarded rmsprop": (
        lambda: gradtx.skip_nonfinite(gradtx.rmsprop(1e-3)),
        lambda: optax.apply_if_finite(optax.rmsprop(1e-3), 3),
        7,
    ),
    "guarded clip, adam": (
        lambda: gradtx.skip_nonfinite(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3))),
        lambda: optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)), 3),
        11,
    ),
    "accumulate sgd": (
        lambda: gradtx.accumulate(gradtx.sgd(1e-3), 4),
        lambda: optax.MultiSteps(optax.sgd(1e-3), 4).gradient_transformation(),
        5,
    ),
    "accumulate adam": (
        lambda: gradtx.accumulate(gradtx.adam(1e-3), 4),
        lambda: optax.MultiSteps(optax.adam(1e-3), 4).gradient_transformation(),
        9,
    ),
    "adam in bfloat16": (lambda: gradtx.stored_as(gradtx.adam(1e-3), jnp.bfloat16), None, 5),
    "adam in 8 bits": (lambda: gradtx.stored_as(gradtx.adam(1e-3), "8bit"), None, 4.1),
}
TREES: dict[str, list[tuple[int, ...]]] = {
    "12 leaves": [(768, 3072)] * 12,
    "one leaf": [(4096, 4096)],
    "a small leaf": [(128, 256)],
}

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
"""
WHEELS = {"H100": ["jax_cuda12_plugin", "nvidia.cuda_nvcc"], "TPU v5e": ["libtpu"]}  # the packages of each compiler


def is_installed(device: str) -> bool:
    """Tells whether the compiler for this device is on this machine."""
    try:
        return all(importlib.util.find_spec(module) for module in WHEELS[device])
    except ModuleNotFoundError:  # the parent package is missing
        return False


def measured(device: str, names: Sequence[str], tree: str) -> dict[str, dict[str, dict[str, float]]]:
    """Measures these steps of gradtx and Optax in a new process, because a compiler reads its settings once."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    if device == "H100":
        (nvcc,) = importlib.util.find_spec("nvidia.cuda_nvcc").submodule_search_locations  # type: ignore[union-attr]
        environment["PATH"] = f"{nvcc}/bin{os.pathsep}{os.environ['PATH']}"
        environment["XLA_FLAGS"] = f"--xla_gpu_cuda_data_dir={nvcc} --xla_gpu_autotune_level=0"
    arguments = [sys.executable, "-m", "tests.benchmarks.compiled", "--device", device, "--tree", tree, *names]
    root = Path(__file__).parents[2]
    done = subprocess.run(arguments, env=environment, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the compiler for {device} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compile_step(tx: Any, shapes: list[tuple[int, ...]], device: str) -> Any:
    """Traces one donated step with `apply_updates` inside on this machine, and compiles it for that device."""
    from jax.experimental import topologies

    if device == "H100":
        platform, how = "cuda", {"topology_name": "", "topology": "1x1x1", "target_config": H100}
    else:
        platform, how = "tpu", {"topology_name": "v5e:2x2", "chips_per_host_bounds": (2, 2, 1)}
    chip = topologies.get_topology_desc(platform=platform, **how).devices[0]
    sharding = jax.sharding.SingleDeviceSharding(chip)

    def on_chip(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = {f"w{i}": jax.ShapeDtypeStruct(shape, jnp.float32) for i, shape in enumerate(shapes)}
    arguments = on_chip(params), on_chip(jax.eval_shape(tx.init, params)), on_chip(params)
    traced = jax.jit(step, donate_argnums=(0, 1)).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).compile()


BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
FREE = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant"}


def figures(compiled: Any, shapes: list[tuple[int, ...]]) -> dict[str, float]:
    """Counts kernels, bytes moved and temporaries in units of the tree, and conditionals."""
    tree = 4 * sum(map(math.prod, shapes))
    entry = compiled.as_text().partition("\nENTRY")[2].partition("\n}")[0].splitlines()[1:]
    lines = [found for line in entry if (found := re.match(r"\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)", line))]
    sizes = {name: _size(shape) for name, shape, _, _ in (line.groups() for line in lines)}
    kernels, moved = 0, 0
    for line in lines:
        name, _, kind, rest = line.groups()
        if kind in FREE or kind.endswith("-done"):
            continue
        kernels += 1
        operands = re.findall(r"%([\w.-]+)", rest.partition(")")[0])
        moved += sizes[name] + sum(sizes.get(x, 0) for x in set(operands))
    analysis = compiled.cost_analysis() or {}
    return {
        "kernels": kernels,
        "bytes": analysis.get("bytes accessed", moved) / tree,
        "temporaries": compiled.memory_analysis().temp_size_in_bytes / tree,
        "conditionals": compiled.as_text().count(" conditional("),
    }


def _size(shape: str) -> int:
    """Returns the bytes of an HLO shape or of a tuple of shapes."""
    total = 0
    for dtype, axes in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape):
        total += BYTES[dtype] * math.prod(int(n) for n in axes.split(",") if n)
    return total


def main(tree: str = "12 leaves") -> str:
    parts = [
        "The programs are compiled and not run. Each is one donated step with `apply_updates` inside, traced on a CPU. "
        "Bytes and temporaries are in units of the gradient tree. The floor is the number of bytes that must move. On "
        "a device the time depends on the kernels if leaves are small, and on the bytes if they are large."
    ]
    for device in WHEELS:
        if not is_installed(device):
            parts.append(f"{device}: not measured, because its compiler is not installed.")
            continue
        rows = []
        found = measured(device, list(STEPS), tree)
        for name, (_, _, floor) in STEPS.items():
            cells = [f"{k:.0f}, {b:.2f}, {t:.2f}" for k, b, t in map(_cells, found[name].values())]
            rows.append([name, f"{floor:g}", *cells, *["-"] * (2 - len(cells))])
        parts += [f"{device}, {tree}:", table(["step", "floor", "gradtx: kernels, bytes, temporaries", "Optax"], rows)]
    return section("compiled.py", "what do the compilers for GPUs and TPUs make of a step?", *parts)


def _cells(found: dict[str, float]) -> tuple[float, float, float]:
    return found["kernels"], found["bytes"], found["temporaries"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", choices=TREES, default="12 leaves", help="what to train (default: %(default)s)")
    parser.add_argument("--device", choices=WHEELS, help="only this one, as JSON, in this process")
    parser.add_argument("steps", nargs="*", help="with --device: which steps")
    options = parser.parse_args()
    if options.device is None:
        main(options.tree)
    else:
        answer: dict[str, dict[str, dict[str, float]]] = {}
        for chosen in options.steps or STEPS:
            ours, theirs, _ = STEPS[chosen]
            made = {"gradtx": ours} | ({"Optax": theirs} if theirs else {})
            shapes = TREES[options.tree]
            answer[chosen] = {
                who: figures(compile_step(make(), shapes, options.device), shapes) for who, make in made.items()
            }
        print(json.dumps(answer))
