"""Problems from a model and its data: softmax cross-entropy with accuracy, or squared error with its root mean.

The end of the file holds what the ready-made problems share.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .problem import Batch, Problem, check_examples

Init = Callable[[jax.Array], Any]  # random key -> parameters
Model = Callable[[Any, Any], jax.Array]  # parameters, inputs -> outputs
Weights = dict[str, jax.Array]


def classification(
    name: str,
    init: Init,
    logits: Model,
    train: Batch,
    validation: Batch,
    *,
    description: str = "",
    target: float | None = None,
    section: str = "§1.2",
) -> Problem:
    """Makes a problem from a classifier. The loss is softmax cross-entropy in nats; the metric is accuracy.

    For one example with scores z and label y the loss is log Σ_c exp(z_c) - z_y. With a time axis, it is the mean of
    this over time.

    Args:
        name: short name of the problem.
        init: random key -> parameters, a tree of arrays.
        logits: parameters, inputs -> scores [n, classes], or [n, time, classes].
        train: (inputs, labels): a tree of arrays [n, ...] and integers [n], or [n, time]. NumPy arrays are put on the
            device here, once.
        validation: other examples in the same form.
        description: one line about the data and the model; defaults to the name.
        target: the validation accuracy that steps-to-target are counted to.
        section: section of the chapter.

    Raises:
        ValueError: if there are no examples, leading axes differ, a label is not a class, or the scores have another
            shape.
        TypeError: if labels are not integers, or `train` or `validation` is not a pair.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.lab.problems import classification
    >>> data = jnp.array([[0.0], [1.0], [2.0], [3.0]]), jnp.array([0, 0, 1, 1])
    >>> problem = classification(
    ...     "threshold", lambda key: jnp.zeros((2, 1)), lambda params, x: x @ params.T, data, data)
    >>> params = problem.init(jax.random.key(0))
    >>> print(problem.loss(params, problem.train), problem.metric(params, problem.train))  # log 2, half are right
    0.693 0.5
    """
    train, validation = _labelled("train", train), _labelled("validation", validation)
    for argument, (inputs, labels) in (("train", train), ("validation", validation)):
        shape = _output_shape(init, logits, inputs)
        if shape[:-1] != labels.shape:
            expected = f"({', '.join(map(str, labels.shape))}, classes)"
            raise ValueError(f"classification: logits must have shape {expected} for {argument}, got {shape}.")
        low, high = int(jnp.min(labels)), int(jnp.max(labels))
        if low < 0 or high >= shape[-1]:
            raise ValueError(f"classification: labels must be in [0, {shape[-1]}), {argument} has {low} to {high}.")

    def losses(params: Any, batch: Batch) -> jax.Array:
        inputs, labels = batch
        return cross_entropy(logits(params, inputs), labels)

    def metric(params: Any, batch: Batch) -> jax.Array:
        inputs, labels = batch
        return jnp.mean(jnp.argmax(logits(params, inputs), axis=-1) == labels)

    return Problem(name, description or name, init, losses, metric, train, validation, target=target, section=section)


def regression(
    name: str,
    init: Init,
    predict: Model,
    train: Batch,
    validation: Batch,
    *,
    description: str = "",
    target: float | None = None,
    optimum: float | None = None,
    section: str = "§1.1",
) -> Problem:
    """Makes a problem from a regression. The loss is ½ (prediction - target)²; the metric is the root mean squared
    error, where lower is better.

    With several outputs, the loss of an example is the sum over them, and the metric's mean includes them.

    Args:
        name, init, validation, description, section: as in `classification`.
        predict: parameters, inputs -> predictions in the shape of the targets, [n] or [n, outputs].
        train: (inputs, targets): a tree of arrays [n, ...] and real numbers [n], or [n, outputs]. NumPy arrays are put
            on the device here, once.
        target: the validation root mean squared error that steps-to-target are counted to.
        optimum: the least training loss, if it is known.

    Raises:
        ValueError: if there are no examples, leading axes differ, or predictions and targets have different shapes,
            because [n] against [n, 1] would broadcast to [n, n].
        TypeError: if targets are not real numbers, or `train` or `validation` is not a pair.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.lab.problems import regression
    >>> data = jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 4.0, 6.0])
    >>> problem = regression("slope", lambda key: jnp.array(1.0), lambda slope, x: slope * x, data, data)
    >>> slope = problem.init(jax.random.key(0))
    >>> print(problem.losses(slope, problem.train), problem.metric(slope, problem.train))
    [0.5 2. 4.5] 2.16
    """
    train, validation = _measured("train", train), _measured("validation", validation)
    for argument, (inputs, targets) in (("train", train), ("validation", validation)):
        shape = _output_shape(init, predict, inputs)
        if shape != targets.shape:
            raise ValueError(
                f"regression: predictions must have the targets' shape {targets.shape} for {argument}, got {shape}."
            )

    def losses(params: Any, batch: Batch) -> jax.Array:
        inputs, targets = batch
        errors = predict(params, inputs) - targets
        return 0.5 * jnp.sum(errors**2, axis=tuple(range(1, errors.ndim)))

    def metric(params: Any, batch: Batch) -> jax.Array:
        inputs, targets = batch
        return jnp.sqrt(jnp.mean((predict(params, inputs) - targets) ** 2))

    return Problem(
        name, description or name, init, losses, metric, train, validation,
        metric_name="root mean squared error", higher_is_better=False, target=target, optimum=optimum, section=section,
    )  # fmt: skip


def _labelled(argument: str, batch: Batch) -> tuple[Any, jax.Array]:
    inputs, labels = _pair("classification", argument, batch)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"classification: the labels of {argument} must be integers, got dtype {labels.dtype}.")
    return inputs, labels.astype(jnp.int32)


def _measured(argument: str, batch: Batch) -> tuple[Any, jax.Array]:
    inputs, targets = _pair("regression", argument, batch)
    if not (jnp.issubdtype(targets.dtype, jnp.floating) or jnp.issubdtype(targets.dtype, jnp.integer)):
        raise TypeError(f"regression: the targets of {argument} must be real numbers, got dtype {targets.dtype}.")
    return inputs, targets.astype(jnp.result_type(float))


def _pair(function: str, argument: str, batch: Batch) -> tuple[Any, jax.Array]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(f"{function}: {argument} must be a pair (inputs, targets), got {type(batch).__name__}.")
    inputs, targets = batch
    check_examples(function, argument, (inputs, np.asarray(targets)))
    dtype = np.asarray(targets).dtype
    if not jnp.issubdtype(dtype, jnp.number):
        raise TypeError(f"{function}: the targets of {argument} must be real numbers, got dtype {dtype}.")
    return jax.tree.map(jnp.asarray, inputs), jnp.asarray(targets)


def _output_shape(init: Init, model: Model, inputs: Any) -> tuple[int, ...]:
    """Shape of the model's outputs. The model is traced but not computed."""
    return jax.eval_shape(lambda key: model(init(key), inputs), jax.random.key(0)).shape


def split(inputs: Any, targets: Any, validation_examples: int, stratify: Any = None) -> tuple[Batch, Batch]:
    """(train, validation), the same in every call. With `stratify`, both have the same share of each of its values."""
    from sklearn.model_selection import train_test_split

    parts = train_test_split(inputs, targets, test_size=validation_examples, stratify=stratify, random_state=0)
    x, x_valid, y, y_valid = map(np.asarray, parts)
    return (x, y), (x_valid, y_valid)


def cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy [n] in nats of scores [n, ..., classes] and labels [n, ...], averaged over inner axes."""
    log_likelihood = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[..., None], axis=-1)[..., 0]
    return -log_likelihood if labels.ndim == 1 else -jnp.mean(log_likelihood, axis=tuple(range(1, labels.ndim)))


def weights(key: jax.Array, inputs: int, outputs: int) -> jax.Array:
    """[inputs, outputs] normal numbers of variance 1 / inputs, so that outputs are as large as inputs at any width."""
    return jax.random.normal(key, (inputs, outputs)) / jnp.sqrt(float(inputs))
