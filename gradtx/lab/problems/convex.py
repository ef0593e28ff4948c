"""Convex problems with a known minimum, so that the distance of a method from it is exact."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .problem import Batch, Problem
from .supervised import Weights, regression, split


def breast_cancer(l2: float = 0.001) -> Problem:
    """Logistic regression on 569 breast tumours, benign or malignant: strongly convex, with a known minimum.

    **Data**: 30 measurements of cell nuclei in an image of a fine-needle aspirate (radius, texture, ...: mean, standard
    error and worst), inputs [n, 30] with mean 0 and standard deviation 1 over the training set; label 1 is benign
    (63 %), 0 malignant; 455 to train, 114 to validate, stratified. Street, Wolberg & Mangasarian 1993, UCI repository
    (CC BY 4.0), as shipped with scikit-learn.

    **Model**: z = x·w + b, benign if z > 0. **Loss**: log(1 + exp(-s z)) + ½ l2 |w|² in nats, s = ±1; log 2 = 0.693
    for a model that knows nothing. The loss of every example contains the penalty. Without it there is no minimum,
    because a plane separates the two classes. **Metric**: accuracy, 0.63 if every answer is "benign".

    **Shows** chapter §4.1 and §4.2: in a convex problem the excess error over `optimum`, which is computed with
    Newton's method in float64, falls with k at a rate that depends on the method.

    Args:
        l2: weight of the penalty, in (0, inf). It bounds the curvature from below: a smaller one conditions worse.

    Raises:
        ValueError: if `l2` is out of range.

    >>> from gradtx.lab.problems import breast_cancer
    >>> problem = breast_cancer()
    >>> print(problem.train[0].shape, problem.validation[0].shape, f"{problem.optimum:.4f}")
    (455, 30) (114, 30) 0.0558
    """
    if not 0 < l2 < float("inf"):
        raise ValueError(f"breast_cancer: l2 must be in (0, inf), got {l2}.")
    from sklearn.datasets import load_breast_cancer

    inputs, labels = map(np.asarray, load_breast_cancer(return_X_y=True))
    train, validation = _standardised(*split(inputs, labels, 114, stratify=labels))

    def losses(params: Weights, batch: Batch) -> jax.Array:
        x, y = batch
        sign = 2 * y - 1
        penalty = 0.5 * l2 * jnp.sum(params["w"] ** 2)
        return jax.nn.softplus(-sign * _affine(params, x)) + penalty

    def metric(params: Weights, batch: Batch) -> jax.Array:
        x, y = batch
        return jnp.mean((_affine(params, x) > 0) == (y == 1))

    return Problem(
        name="breast_cancer",
        description="569 real tumours, 30 measurements each, logistic regression",
        init=partial(_init_affine, 30),
        losses=losses,
        metric=metric,
        train=(jnp.asarray(train[0]), jnp.asarray(train[1])),
        validation=(jnp.asarray(validation[0]), jnp.asarray(validation[1])),
        target=0.97,
        optimum=_least_logistic_loss(train[0], train[1], l2),
        section="§4.1",
    )


def diabetes() -> Problem:
    """Linear regression on 442 diabetes patients: an ill-conditioned quadratic of real data with a known minimum.

    **Data**: age, sex, body mass index, blood pressure and six blood serum values, inputs [n, 10]; the target measures
    the progression of the disease in one year. All have mean 0 and standard deviation 1 over the training set; 353
    patients to train, 89 to validate. Efron, Hastie, Johnstone & Tibshirani 2004, "Least angle regression", as shipped
    with scikit-learn.

    **Model**: x·w + b. **Loss**: ½ (prediction - target)²; 0.5 for the mean of the targets. **Metric**: root mean
    squared error in standard deviations of the target (77 units), 1 for the mean of the targets.

    **Shows** chapter §2.1: the loss is a quadratic whose Hessian, the correlations of the inputs, has condition number
    442, because the serum values are nearly copies of each other. One Newton step reaches `optimum`.

    >>> from gradtx.lab.problems import diabetes
    >>> problem = diabetes()
    >>> print(problem.train[0].shape, problem.validation[0].shape, f"{problem.optimum:.4f}")
    (353, 10) (89, 10) 0.2230
    """
    from sklearn.datasets import load_diabetes

    inputs, progression = map(np.asarray, load_diabetes(return_X_y=True))
    train, validation = _standardised(*split(inputs, progression, 89))
    mean, deviation = train[1].mean(), train[1].std()
    train, validation = [(x, ((y - mean) / deviation).astype(np.float32)) for x, y in (train, validation)]
    return regression(
        "diabetes",
        partial(_init_affine, 10),
        _affine,
        train,
        validation,
        description="442 real patients, 10 measurements each, linear regression",
        target=0.76,
        optimum=_least_squared_loss(*train),
        section="§2.1",
    )


def _init_affine(inputs: int, key: jax.Array) -> Weights:
    # Small weights, so that every seed starts near the baseline.
    return {"w": 0.01 * jax.random.normal(key, (inputs,)), "b": jnp.zeros(())}


def _affine(params: Weights, x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"]


def _standardised(train: Batch, validation: Batch) -> list[Batch]:
    """Both with float32 inputs of mean 0 and standard deviation 1 over the training set."""
    mean, deviation = train[0].mean(axis=0), train[0].std(axis=0)
    return [(((x - mean) / deviation).astype(np.float32), y) for x, y in (train, validation)]


def _least_squared_loss(x: np.ndarray, y: np.ndarray) -> float:
    design = np.column_stack([x, np.ones(len(x))]).astype(np.float64)
    solution = np.linalg.lstsq(design, y.astype(np.float64))[0]
    return float(0.5 * np.mean((design @ solution - y) ** 2))


def _least_logistic_loss(x: np.ndarray, y: np.ndarray, l2: float) -> float:
    """The minimum over (w, b) of the mean of log(1 + exp(-s z)) + ½ l2 |w|², by Newton's method in float64."""
    design = np.column_stack([x, np.ones(len(x))]).astype(np.float64)
    penalty = l2 * np.append(np.ones(x.shape[1]), 0.0)  # no penalty on b

    def loss(θ: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0, -(2 * y - 1) * (design @ θ))) + 0.5 * np.sum(penalty * θ**2))

    θ = np.zeros(design.shape[1])
    for _ in range(100):
        probability = 0.5 * (1 + np.tanh(0.5 * (design @ θ)))
        gradient = design.T @ (probability - y) / len(y) + penalty * θ
        if np.abs(gradient).max() < 1e-12:
            break
        weight = probability * (1 - probability) / len(y)
        step = np.linalg.solve((design.T * weight) @ design + np.diag(penalty), gradient)
        rate = 1.0
        while loss(θ - rate * step) > loss(θ) and rate > 1e-6:  # far from the minimum a whole step may overshoot
            rate /= 2
        θ = θ - rate * step
    return loss(θ)
