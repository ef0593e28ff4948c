"""Memory problems for recurrent networks: gradients pass through many products with one matrix (chapter §2.5)."""

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.arguments import checked_count

from .problem import Batch, Problem
from .supervised import Weights, classification, regression, weights


def adding(length: int = 30, hidden: int = 32, examples: int = 2000) -> Problem:
    """The adding problem: a recurrent network reads pairs (value, mark) and returns the sum of the two marked values.

    **Data**: generated from a fixed seed: inputs [n, length, 2], values uniform in [0, 1], marks 1 at one step of the
    first half and one of the second, 0 elsewhere; targets [n], the sum. A quarter as many examples validate.
    Hochreiter & Schmidhuber 1997, "Long short-term memory", experiment 4, in its common form.

    **Model**: h_t = tanh(W_in x_t + W h_{t-1} + b), prediction w_out·h_T + b_out; W starts orthogonal. **Loss**:
    ½ (prediction - sum)². **Metric**: root mean squared error. The constant prediction 1 has loss 1/12, mean squared
    error 1/6 and root 0.408. To do better, the network must remember over `length` / 2 steps.

    **Shows** chapter §2.5: the gradient that reaches the first mark passes through up to `length` products with W.

    Args:
        length: steps of a sequence, >= 2.
        hidden: units of the network, >= 1.
        examples: training sequences, >= 1.

    Raises:
        ValueError: if a number is too small.

    >>> from gradtx.lab.problems import adding
    >>> problem = adding(length=8, examples=100)
    >>> inputs, sums = problem.train
    >>> print(inputs.shape, sums.shape, inputs[0, :, 1], f"{1 / 6**0.5:.3f}")
    (100, 8, 2) (100,) [0. 0. 1. 0. 0. 0. 1. 0.] 0.408
    """
    for argument, value, least in (("length", length, 2), ("hidden", hidden, 1), ("examples", examples, 1)):
        checked_count("adding", argument, value, least)
    generator = np.random.default_rng(0)

    def sample(count: int) -> Batch:
        values = generator.uniform(size=(count, length))
        marks = np.zeros((count, length))
        first = generator.integers(0, length // 2, count)
        second = generator.integers(length // 2, length, count)
        marks[np.arange(count), first] = marks[np.arange(count), second] = 1
        inputs = np.stack([values, marks], axis=-1).astype(np.float32)
        return inputs, np.sum(values * marks, axis=1).astype(np.float32)

    def predict(params: Weights, inputs: jax.Array) -> jax.Array:
        last = _states(params, inputs)[-1]
        return (last @ params["w_out"] + params["b_out"])[:, 0]

    return regression(
        "adding",
        lambda key: _init(key, 2, hidden, 1),
        predict,
        sample(examples),
        sample(-(-examples // 4)),
        description=f"sum of the two marked among {length} numbers, RNN of {hidden} tanh units",
        target=0.2,
        section="§2.5",
    )


def copying(delay: int = 10, remember: int = 3, symbols: int = 8, hidden: int = 32, examples: int = 2000) -> Problem:
    """The copying problem: a recurrent network reads symbols, waits, and must then repeat them in order.

    **Data**: generated from a fixed seed: inputs [n, remember + delay + remember] int32: random symbols 0, 1, ..., then
    `delay` blanks, then a recall sign for each symbol that the network must return; targets [n, remember], the symbols.
    A quarter as many examples validate. After Hochreiter & Schmidhuber 1997 and Arjovsky, Shah & Bengio 2016, with the
    loss on the recalled symbols alone.

    **Model**: h_t = tanh(W_in e(x_t) + W h_{t-1} + b) with e one-hot, scores W_out h_t + b_out at the steps of recall;
    W starts orthogonal. **Loss**: softmax cross-entropy in nats, the mean over the recalled symbols; log(symbols),
    2.079 for 8, for a network that forgot. **Metric**: accuracy, 1 / symbols for random guesses.

    **Shows** chapter §2.5: the network must return each symbol `remember + delay` steps after it read it.

    Args:
        delay: blanks between the symbols and their recall, >= 0.
        remember: symbols of a sequence, >= 1.
        symbols: number of different symbols, >= 2.
        hidden: units of the network, >= 1.
        examples: training sequences, >= 1.

    Raises:
        ValueError: if a number is too small.

    >>> from gradtx.lab.problems import copying
    >>> problem = copying(delay=4, examples=100)
    >>> inputs, symbols = problem.train
    >>> print(inputs[0], symbols[0])  # 8 is a blank, 9 asks for a symbol
    [6 5 4 8 8 8 8 9 9 9] [6 5 4]
    """
    least = {"delay": 0, "symbols": 2}
    sizes = {"delay": delay, "remember": remember, "symbols": symbols, "hidden": hidden, "examples": examples}
    for argument, value in sizes.items():
        checked_count("copying", argument, value, least.get(argument, 1))
    generator = np.random.default_rng(0)
    blank, recall = symbols, symbols + 1

    def sample(count: int) -> Batch:
        said = generator.integers(0, symbols, (count, remember), dtype=np.int32)
        wait = np.full((count, delay), blank, np.int32)
        return np.concatenate([said, wait, np.full_like(said, recall)], axis=1), said

    def logits(params: Weights, inputs: jax.Array) -> jax.Array:
        states = _states(params, jax.nn.one_hot(inputs, symbols + 2))[-remember:]
        return jnp.swapaxes(states @ params["w_out"] + params["b_out"], 0, 1)

    return classification(
        "copying",
        lambda key: _init(key, symbols + 2, hidden, symbols),
        logits,
        sample(examples),
        sample(-(-examples // 4)),
        description=f"{remember} of {symbols} symbols, recalled after {delay} steps, RNN of {hidden} tanh units",
        target=0.9,
        section="§2.5",
    )


def _init(key: jax.Array, inputs: int, hidden: int, outputs: int) -> Weights:
    key_in, key_recurrent, key_out = jax.random.split(key, 3)
    return {
        "w_in": weights(key_in, inputs, hidden),
        # All |λ| = 1: apart from the slope of tanh, the gradient neither explodes nor vanishes at the start.
        "w": jax.nn.initializers.orthogonal()(key_recurrent, (hidden, hidden)),
        "b": jnp.zeros(hidden),
        "w_out": 0.1 * weights(key_out, hidden, outputs),  # small, so that the first scores are near 0
        "b_out": jnp.zeros(outputs),
    }


def _states(params: Weights, inputs: jax.Array) -> jax.Array:
    """Maps inputs [n, time, inputs] to the states after each step [time, n, hidden]."""
    driven = jnp.swapaxes(inputs @ params["w_in"] + params["b"], 0, 1)  # one product for all steps

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.tanh(x + h @ params["w"])
        return h, h

    return jax.lax.scan(step, jnp.zeros_like(driven[0]), driven)[1]
