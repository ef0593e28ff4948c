"""Compares a sweep of 64 learning rates of a small network with the same trainings one after the other.

The network is 64-32-10 on the digits, trained with momentum SGD and batches of 64. Four ways take turns in one
process: `lab.sweep`, compiled before; jitted scans, which call one compiled program 64 times; a Python loop of jitted
steps; and a loop in torch, if it is installed. Of the two loops only some trainings are timed, and the others are
assumed to take as long (`--part`). The script prints medians, their ratios to the sweep, and the number of
compilations. It also prints CPU seconds, because other programs disturb them less. There is one host device per core,
as in the command line.
"""

import argparse
import importlib.util
import os
import statistics
import time

os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={os.cpu_count()}")

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx
from gradtx import lab

from .timing import section, table

KEY = jax.random.key(0)
BATCH = 64


def make_tx(learning_rate):
    return gradtx.sgd(learning_rate, momentum=0.9)


class Compilations:
    """Counts what XLA compiles."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event, duration, **_):
        self.count += event == "/jax/core/compile/backend_compile_duration"


def sequential_scans(problem, rates, steps):
    """Trains with one compiled program whose argument is the rate. Unlike the sweep, it does not evaluate."""
    key_init, key_batches = jax.random.split(KEY)
    params, batches = problem.init(key_init), minibatches(problem, key_batches, steps)

    @jax.jit
    def train(rate):
        tx = make_tx(rate)

        def step(carry, indices):
            params, state = carry
            loss, grads = jax.value_and_grad(problem.loss)(params, batch(problem, indices))
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, tx.init(params)), batches)[1]

    return lambda: np.stack([np.asarray(train(rate)) for rate in rates])


def python_loop(problem, rates, steps):
    """Trains with a jitted step whose argument is the rate, called from Python."""
    key_init, key_batches = jax.random.split(KEY)
    batches = list(minibatches(problem, key_batches, steps))

    @jax.jit
    def step(params, state, indices, rate):
        loss, grads = jax.value_and_grad(problem.loss)(params, batch(problem, indices))
        updates, state = make_tx(rate).update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    def train(rate):
        params = problem.init(key_init)
        state, losses = make_tx(rate).init(params), []
        for indices in batches:
            params, state, loss = step(params, state, indices, rate)
            losses.append(loss)
        return np.stack(losses)

    return lambda: np.stack([train(rate) for rate in rates])


def torch_loop(problem, rates, steps):
    """Trains the same network on the same minibatches in torch, with its fused SGD."""
    import torch

    torch.set_num_threads(1)  # more threads are not faster for so small a network
    key_init, key_batches = jax.random.split(KEY)
    images, labels = (torch.from_numpy(np.array(part)) for part in problem.train)
    labels, params = labels.long(), problem.init(key_init)
    batches = torch.from_numpy(np.array(minibatches(problem, key_batches, steps))).long()

    def train(rate):
        model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
        with torch.no_grad():
            for layer, name in ((model[0], "in"), (model[2], "out")):
                layer.weight.copy_(torch.from_numpy(np.array(params[f"w_{name}"].T)))
                layer.bias.copy_(torch.from_numpy(np.array(params[f"b_{name}"])))
        optimizer = torch.optim.SGD(model.parameters(), lr=float(rate), momentum=0.9, fused=True)
        losses = []
        for indices in batches:
            loss = torch.nn.functional.cross_entropy(model(images[indices]), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return np.array(losses)

    return lambda: np.stack([train(rate) for rate in rates])


def minibatches(problem, key, steps):
    epochs = -(-steps // (problem.num_examples // BATCH))
    return gradtx.shuffled_epochs(key, problem.num_examples, BATCH, epochs)[:steps]


def batch(problem, indices):
    return jax.tree.map(lambda x: x[indices], problem.train)


def main(members: int = 64, steps: int = 500, part: int = 2, repeats: int = 5) -> str:
    """Returns the section of the README. `part` is the number of trainings of the slow loops that are timed."""
    problem = lab.digits()
    rates = jnp.geomspace(1e-3, 0.3, members)
    every = max(1, members // part)
    some = rates[::every]
    keys, grid = KEY[None], {"learning_rate": np.asarray(rates)}

    def swept():
        return lab.sweep(problem, make_tx, grid, steps=steps, keys=keys, batch_size=BATCH, eval_every=steps).loss[:, 0]

    ways = {
        "lab.sweep": (swept, len(rates)),
        "jitted scans in turn": (sequential_scans(problem, rates, steps), len(rates)),
        "Python loop of jitted steps": (python_loop(problem, some, steps), len(some)),
    }
    if importlib.util.find_spec("torch"):
        ways["torch loop, fused"] = (torch_loop(problem, some, steps), len(some))
    compilations = Compilations()
    losses, compiled = {}, {}
    # This compiles the programs that every sweep uses, such as the one for shuffling.
    lab.sweep(problem, gradtx.sgd, grid, steps=steps, keys=keys, batch_size=BATCH, eval_every=steps)
    for name, (way, _) in ways.items():
        before = compilations.count
        losses[name] = way()
        compiled[name] = compilations.count - before
    times, cpu_times = {name: [] for name in ways}, {name: [] for name in ways}
    for _ in range(repeats):
        for name, (way, timed) in ways.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            way()
            times[name].append((time.perf_counter() - started) * len(rates) / timed)
            cpu_times[name].append((time.process_time() - cpu_started) * len(rates) / timed)
    base = losses["lab.sweep"]
    ours, our_cpu = (statistics.median(measured["lab.sweep"]) for measured in (times, cpu_times))
    header = ["way", "compilations", "seconds", "ratio to the sweep", "ratio of CPU seconds", "greatest difference"]
    rows = []
    for name, (_, timed) in ways.items():
        seconds, cpu = statistics.median(times[name]), statistics.median(cpu_times[name])
        difference = float(np.abs(losses[name] - (base if timed == len(rates) else base[::every])).max())
        label = name if timed == len(rates) else f"{name} ({timed} of {members} timed)"
        rows.append([label, compiled[name], seconds, seconds / ours, cpu / our_cpu, f"{difference:.0e}"])
    return section(
        "sweep.py",
        f"what do {members} learning rates of one small network cost?",
        f"A 64-32-10 net is trained on the digits with momentum SGD, batches of {BATCH} and {steps} steps, on "
        f"{jax.local_device_count()} host devices. The times are for all {members} trainings, without compilation. "
        "For the loops only some trainings are timed, and the others are assumed to take as long.",
        table(header, rows),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=64, help="learning rates (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="of each training (default: %(default)s)")
    parser.add_argument("--part", type=int, default=2, help="trainings timed of the loops (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved runs (default: %(default)s)")
    main(**vars(parser.parse_args()))
