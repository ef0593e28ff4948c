"""The definition of a training problem: parameters, per-example losses, metric and data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Batch = Any  # a tree of arrays with one leading axis of examples; usually (inputs [n, ...], targets [n, ...])


@dataclass(frozen=True, eq=False)  # compared by identity: arrays have no truth value, and jit needs a hash
class Problem:
    """A training problem, as a run, a sweep or a comparison needs it.

    `classification` and `regression` make one from a model and its data. If you build one by hand, `losses` must treat
    each example separately, so that the mean over a minibatch is an unbiased estimate of the mean over the training
    set.

    Raises:
        ValueError: if `train` or `validation` holds no array or no example, or arrays with different numbers of
            examples.

    >>> import jax.numpy as jnp
    >>> from gradtx.lab.problems import Problem
    >>> def losses(params, batch):  # the mean of a sample is where the squared distances are least
    ...     return 0.5 * (batch - params) ** 2
    >>> problem = Problem(
    ...     name="mean", description="the mean of three numbers", init=lambda key: jnp.zeros(()), losses=losses,
    ...     metric=lambda params, batch: abs(params - batch.mean()), train=jnp.array([1.0, 2.0, 6.0]),
    ...     validation=jnp.array([3.0]), metric_name="distance", higher_is_better=False)
    >>> print(problem.num_examples, problem.loss(jnp.array(3.0), problem.train))
    3 2.333
    """

    name: str
    description: str  # one line: the data and the model
    init: Callable[[jax.Array], Any]  # random key -> parameters
    losses: Callable[[Any, Batch], jax.Array]  # parameters, batch -> [n], the loss of each example
    metric: Callable[[Any, Batch], jax.Array]  # parameters, batch -> [], the quantity to judge by
    train: Batch
    validation: Batch
    metric_name: str = "accuracy"
    higher_is_better: bool = True  # whether a higher metric is better
    target: float | None = None  # a validation metric that a good run reaches: steps-to-target are counted to it
    optimum: float | None = None  # the least loss over the training set, if it is known
    section: str = "§1.1"  # the section of the chapter that the problem illustrates

    def __post_init__(self) -> None:
        check_examples("Problem", "train", self.train)
        check_examples("Problem", "validation", self.validation)

    def loss(self, params: Any, batch: Batch) -> jax.Array:
        """Mean loss over a batch: the empirical risk of chapter §1.1."""
        return jnp.mean(self.losses(params, batch))

    @property
    def num_examples(self) -> int:
        """Number of training examples."""
        return len(jax.tree.leaves(self.train)[0])


def check_examples(function: str, argument: str, batch: Batch) -> None:
    """Raises if `batch` is not a tree of arrays with one leading axis of at least one example."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
    if not shapes:
        raise ValueError(f"{function}: {argument} must hold arrays, got {batch!r}.")
    listed = ", ".join(map(str, shapes[:4])) + (", ..." if len(shapes) > 4 else "")
    if () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"{function}: all arrays of {argument} must have one leading axis of examples, got {listed}.")
    if shapes[0][0] == 0:
        raise ValueError(f"{function}: {argument} must hold at least one example, got shapes {listed}.")
