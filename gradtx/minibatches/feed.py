"""Feeds minibatches from the host, in one process or many. Each process reads its own part and may start at any step.

The examples of each step are fixed in advance by indices, which every process computes from the same key
(`shuffled_epochs`). There is no sampler state to save, and the processes do not communicate. Step k of process i is a
pure function of (indices, k, i). So a run that resumes at step k, even with another number of processes, sees the same
minibatches.

**Source**: chapter §3.2 (minibatches can be computed in parallel).

**Differs from** torch's `DataLoader` with a `DistributedSampler`, which must be told the epoch, and which repeats or
drops examples to make the parts even. Here an uneven minibatch has uneven parts. Nothing is read ahead.

**Costs**: per step, each process reads its own examples on the host.

**When**: for data that does not fit on a device, or that many processes share. If the data fits, put it on the device,
and use `jax.tree.map(lambda x: x[batch], data)` inside the compiled loop.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from gradtx._core.arguments import checked_count


def minibatch_feed(
    data: Any,
    batches: Any,
    *,
    start: int = 0,
    process: int | None = None,
    processes: int | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> Iterator[Any]:
    """The minibatches from step `start` on, each a tree like `data` that is read when it is requested.

    Without `sharding`, each minibatch is split into n parts, and process i of n gets the i-th as NumPy arrays. If it
    does not divide evenly, the first processes get one more example. With `sharding`, each minibatch is one global
    `jax.Array`, and a process reads only the examples that its devices hold.

    Args:
        data: tree of arrays [num_examples, ...]: NumPy, memory-mapped, or anything that an index array can index.
        batches: [steps, batch_size] indices, or a sequence of index arrays whose sizes may grow.
        start: the first step to feed.
        process: the index of this process, from 0; default `jax.process_index()`.
        processes: the number of processes; default `jax.process_count()`.
        sharding: the sharding of the minibatches, with the examples as their first axis.

    Raises:
        ValueError: `start` or `process` is out of range, or `sharding` is given with `process` or `processes`.
        TypeError: `start`, `process` or `processes` is not an integer.

    >>> import gradtx, numpy as np
    >>> data, batches = np.arange(6) * 10, [[3, 1, 2], [0, 5, 4]]
    >>> for process in (0, 1):
    ...     print([x.tolist() for x in gradtx.minibatch_feed(data, batches, process=process, processes=2)])
    [[30, 10], [0, 50]]
    [[20], [40]]
    """
    if sharding is not None and (process is not None or processes is not None):
        raise ValueError("minibatch_feed: sharding already assigns examples to processes: omit process and processes.")
    n = checked_count("minibatch_feed", "processes", jax.process_count() if processes is None else processes)
    i = checked_count("minibatch_feed", "process", jax.process_index() if process is None else process, 0)
    if i >= n:
        raise ValueError(f"minibatch_feed: process must be from 0 to {n - 1}, got {i}.")
    if checked_count("minibatch_feed", "start", start, 0) > len(batches):
        raise ValueError(f"minibatch_feed: start must be from 0 to {len(batches)}, the number of steps, got {start}.")
    return _feed(data, batches, start, i, n, sharding)


def _feed(data: Any, batches: Sequence[Any], start: int, process: int, processes: int, sharding: Any) -> Iterator[Any]:
    for step in range(start, len(batches)):
        indices = np.asarray(batches[step])
        if sharding is None:
            own = np.array_split(indices, processes)[process]
            yield jax.tree.map(lambda x, own=own: x[own], data)
        else:
            yield jax.tree.map(lambda x, indices=indices: _global(x, indices, sharding), data)


def _global(examples: Any, indices: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    shape = (len(indices), *examples.shape[1:])

    def read(part: Any) -> Any:
        return examples[indices[part[0]]][(slice(None), *part[1:])]

    return jax.make_array_from_callback(shape, sharding, read)
