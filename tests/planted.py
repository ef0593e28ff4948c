"""Runs with exactly one planted challenge, and healthy ones: what the diagnosis is measured by.

Each set is one compilation: a subject and a method, at several learning rates and seeds. A landscape's runs hold its
iterates, as `lab.run` gives them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes
from gradtx.lab.problems import PROBLEMS, classification, regression

HEALTHY = "healthy"


@dataclass(frozen=True)
class Planted:
    """Runs of one subject: the label of each learning rate."""

    name: str
    subject: Callable[[], Any]
    labels: dict[float, str]  # learning rate -> challenge, or HEALTHY
    steps: int
    batch_size: int | str | None = None
    seeds: int = 1
    method: Callable[..., Any] = gradtx.sgd
    sharpness: bool = False

    def __str__(self) -> str:
        return self.name

    def runs(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Label, name and curves of each."""
        subject = self.subject()
        trained = _walked if isinstance(subject, landscapes.Landscape) else _trained
        for rate, k, curves in trained(self, subject):
            known = {"learning_rate": rate, "batch_size": _examples(self, subject)}
            yield self.labels[rate], f"{self.name}, rate {rate:g}, seed {k}", {**curves, **known}

    def keys(self) -> jax.Array:
        return jax.random.split(jax.random.key(0), self.seeds)

    def chain(self, learning_rate: Any) -> Any:
        looking = [gradtx.panel(learning_rate), gradtx.stationarity(learning_rate), gradtx.plateau()]
        looking += [gradtx.sharpness(learning_rate)] if self.sharpness else []
        return optax.chain(*looking, self.method(learning_rate), gradtx.trajectory())


Curves = Iterator[tuple[float, int, dict[str, Any]]]


def _trained(planted: Planted, problem: Any) -> Curves:
    """A problem, by `lab.sweep`."""
    settings: dict[str, Any] = {"steps": planted.steps, "batch_size": planted.batch_size, "progress": False}
    rates = list(planted.labels)
    found = lab.sweep(problem, planted.chain, {"learning_rate": rates}, keys=planted.keys(), **settings)
    for i, rate in enumerate(rates):
        for k in range(planted.seeds):
            yield rate, k, {"loss": found.loss[i, k], **{n: curve[i, k] for n, curve in found.readings.items()}}


def _walked(planted: Planted, landscape: landscapes.Landscape) -> Curves:
    """A landscape: a sweep keeps no iterates, and by its iterates a diagnosis knows a landscape."""
    samples = planted.batch_size or 1

    @jax.jit
    def walk(rate: jax.Array, key: jax.Array) -> Any:
        tx = planted.chain(rate)

        def step(carry: Any, keys: jax.Array) -> Any:
            x, state = carry

            def losses(x: jax.Array) -> jax.Array:
                return jax.vmap(landscape.sample, (None, 0))(x, keys)

            value, g = jax.value_and_grad(lambda x: jnp.mean(losses(x)))(x)
            updates, state = tx.update(g, state, x, value=value, losses_fn=losses)
            x = optax.apply_updates(x, updates)
            return (x, state), (value, gradtx.readings(state), x)

        start = jnp.asarray(landscape.start, jnp.float32)
        return jax.lax.scan(step, (start, tx.init(start)), jax.random.split(key, (planted.steps, samples)))[1]

    for rate in planted.labels:
        for k, key in enumerate(planted.keys()):
            loss, readings, path = jax.tree.map(np.asarray, walk(jnp.float32(rate), key))
            yield rate, k, {"loss": loss, **readings, "iterates": np.concatenate([landscape.start[None], path])}


def _examples(planted: Planted, subject: Any) -> int:
    if planted.batch_size == "all":
        return subject.num_examples
    return int(planted.batch_size or 1)


# Models of the tests' own.


def scaled_diabetes() -> Any:
    """Linear regression whose columns differ by a factor of 100 in size."""
    (x, y), (x_valid, y_valid) = PROBLEMS["diabetes"]().train, PROBLEMS["diabetes"]().validation
    sizes = np.geomspace(1, 0.01, x.shape[1]).astype(np.float32)
    return _linear("scaled diabetes", (x * sizes, y), (x_valid * sizes, y_valid), lambda key, n: jnp.zeros(n))


def _linear(name: str, train: Any, validation: Any, init: Callable[[jax.Array, int], jax.Array]) -> Any:
    columns = train[0].shape[1]
    return regression(name, lambda key: init(key, columns), lambda w, x: x @ w, train, validation)


def linear_net(depth_scale: float = 1e-3) -> Any:
    """Two layers without a unit between them, from near the saddle at 0."""
    problem = PROBLEMS["diabetes"]()
    columns = problem.train[0].shape[1]

    def init(key: jax.Array) -> Any:
        first, second = jax.random.split(key)
        return depth_scale * jax.random.normal(first, (columns, 8)), depth_scale * jax.random.normal(second, (8,))

    return regression("linear net", init, lambda p, x: x @ p[0] @ p[1], problem.train, problem.validation)


def perceptron(size: float, depth: int, unit: Callable[[jax.Array], jax.Array]) -> Any:
    """Digits by `depth` hidden layers of 32 units, from weights of `size` times 1/√n."""
    digits = PROBLEMS["digits"]()
    widths = [64, *[32] * depth, 10]

    def init(key: jax.Array) -> Any:
        pairs = zip(jax.random.split(key, depth + 1), widths[:-1], widths[1:], strict=True)
        return [(size * jax.random.normal(k, (n, m)) / n**0.5, jnp.zeros(m)) for k, n, m in pairs]

    def logits(layers: Any, x: jax.Array) -> jax.Array:
        for w, b in layers[:-1]:
            x = unit(x @ w + b)
        w, b = layers[-1]
        return x @ w + b

    return classification(f"{depth} layers from {size:g}", init, logits, digits.train, digits.validation)


def sharpening() -> Any:
    """½ (a b - 6)²: the sharpness grows from 4 to 12.6 along the flow, beyond what the rates can stand (2/ε = 12.3)."""
    one = np.ones((4, 1), np.float32), np.full(4, 6.0, np.float32)
    start = jnp.array([2.05, 0.45])
    return regression("product of two", lambda key: start, lambda p, x: x[:, 0] * p[0] * p[1], one, one)


def steepest(problem: Any) -> float:
    """λ_max of a linear regression's Hessian."""
    x = np.asarray(problem.train[0])
    with_one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    return float(np.linalg.eigvalsh(with_one.T @ with_one / len(x))[-1])


def _diabetes_rates() -> dict[float, str]:
    largest = steepest(PROBLEMS["diabetes"]())
    return {1.0 / largest: HEALTHY, 1.95 / largest: "oscillation", 2.2 / largest: "learning_rate_too_high"}


HIGH, LOW, ILL = "learning_rate_too_high", "learning_rate_too_low", "ill_conditioning"


def planted_sets() -> list[Planted]:
    q, noisy = landscapes.quadratic, landscapes.noisy
    digits, diabetes = PROBLEMS["digits"], PROBLEMS["diabetes"]
    return [
        Planted("bowl of 10", lambda: q(10.0), {0.1: HEALTHY, 0.197: "oscillation", 0.23: HIGH, 1e-4: LOW}, 100),
        Planted("turned bowl of 100", lambda: q(100.0, 2, 0.5), {0.0195: "oscillation", 0.05: HIGH, 1e-5: LOW}, 100),
        Planted("bowl of 1,000", lambda: q(1e3), {1.5e-3: ILL, 0.9e-3: ILL}, 300),
        Planted("bowl of 10,000 in 10-D", lambda: q(1e4, 10, 0.5), {1.5e-4: ILL}, 500),
        Planted("Rosenbrock", lambda: landscapes.rosenbrock, {0.0015: ILL}, 1000),
        Planted("Beale", lambda: landscapes.beale, {0.01: ILL, 1e-5: LOW}, 300),
        Planted("Himmelblau", lambda: landscapes.himmelblau, {0.01: HEALTHY, 0.06: HIGH, 1e-6: LOW}, 100),
        Planted("double well", lambda: landscapes.double_well, {0.05: HEALTHY, 0.2: HEALTHY}, 150),
        Planted("saddle", lambda: landscapes.saddle, {0.05: "saddle", 0.1: "saddle"}, 60),
        Planted("monkey saddle", lambda: landscapes.monkey_saddle, {0.01: "saddle"}, 300),
        Planted("plateau", lambda: landscapes.plateau, {0.5: "plateau", 0.7: "plateau", 1.0: "plateau"}, 400),
        Planted("cliff", lambda: landscapes.cliff, {1.0: "cliff", 2.0: "cliff", 5.0: "cliff"}, 200),
        Planted("asymptote", lambda: landscapes.asymptote_hill, dict.fromkeys((0.1, 0.2, 0.3), "wandering"), 500),
        Planted("noisy bowl", lambda: noisy(q(1.0), 1.0), {0.2: "gradient_noise"}, 400, seeds=3),
        Planted("noisy bowl of 10", lambda: noisy(q(10.0), 3.0), {0.05: "gradient_noise"}, 400, 4, seeds=3),
        Planted("noisy bowl, long", lambda: noisy(q(4.0, 5), 1.0), {0.05: "stationary"}, 1500, 4, seeds=3),
        Planted("little noise", lambda: noisy(q(10.0), 0.05), {0.05: HEALTHY}, 100, 8, seeds=3),
        Planted("momentum on a bowl", lambda: q(10.0), {0.05: HEALTHY}, 150, method=partial(gradtx.sgd, momentum=0.8)),
        Planted("Adam on Rosenbrock", lambda: landscapes.rosenbrock, {0.05: HEALTHY}, 1000, method=gradtx.adam),
        Planted("digits", digits, {0.1: HEALTHY, 0.5: HEALTHY, 30.0: HIGH, 1e-5: LOW}, 300, 64, seeds=2),
        Planted("digits, momentum", digits, {0.02: HEALTHY, 0.1: HEALTHY, 5.0: HIGH}, 300, 64, seeds=2,
                method=partial(gradtx.sgd, momentum=0.9)),
        Planted("digits, Adam", digits, {1e-3: HEALTHY, 1e-2: HEALTHY}, 300, 64, seeds=2, method=gradtx.adam),
        Planted("digits by ones", digits, {0.05: "batch_too_small"}, 400, 1, seeds=2),
        Planted("digits by twos", digits, {0.05: "batch_too_small"}, 400, 2, seeds=2),
        Planted("digits by 1,024", digits, {0.1: "batch_too_large"}, 120, 1024, seeds=3),
        Planted("diabetes, full batch", diabetes, _diabetes_rates(), 150, "all"),
        Planted("diabetes", diabetes, {0.05: HEALTHY, 1e-5: LOW}, 300, 32, seeds=2),
        Planted("diabetes by twos", diabetes, {0.2: "gradient_noise"}, 600, 2, seeds=2),
        Planted("diabetes by eights", diabetes, {0.1: "stationary"}, 1500, 8, seeds=2),
        Planted("breast cancer", PROBLEMS["breast_cancer"], {0.05: HEALTHY, 0.3: HEALTHY}, 300, 32, seeds=2),
        Planted("diabetes, columns of unlike size", scaled_diabetes, {0.24: ILL}, 300, "all"),
        Planted("linear net", linear_net, {0.05: "saddle"}, 400, "all", seeds=2),
        Planted("net from near 0", lambda: perceptron(0.02, 1, jnp.tanh), {0.2: "saddle"}, 500, 256, seeds=2),
        Planted("eight sigmoid layers", lambda: perceptron(1.0, 8, jax.nn.sigmoid), {0.1: "vanishing_gradients"},
                200, 64, seeds=2),
        Planted("eight small tanh layers", lambda: perceptron(0.2, 8, jnp.tanh), {0.1: "vanishing_gradients"},
                200, 64, seeds=2),
        Planted("eight large relu layers", lambda: perceptron(5.0, 8, jax.nn.relu), {0.01: "exploding_gradients"},
                50, 64, seeds=3),
        Planted("product of two", sharpening, dict.fromkeys((0.1626, 0.161, 0.16), "edge_of_stability"), 150, "all",
                sharpness=True),
    ]  # fmt: skip
