"""A language model of characters: a transformer on English text that comes with Python."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.arguments import checked_count

from ..extra import imported
from .problem import Batch, Problem
from .supervised import cross_entropy, weights

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # 96 characters; any other becomes a question mark
_CHARACTERS = 150_000  # length of the text; nine tenths of it train


def characters(context: int = 32, width: int = 32, heads: int = 2, layers: int = 2) -> Problem:
    """A small transformer that predicts the next character of English text, the Python language reference.

    **Data**: the help texts of `pydoc_data.topics`, which come with CPython (PSF License 2), joined in sorted order and
    cut at 150,000 characters. The first nine tenths train, the rest validate, so no character is in both. The text is
    cut into windows of `context` + 1 characters, and each window starts at the last character of the one before. Inputs
    and targets are [n, context] int32, indices into an alphabet of 96; the targets are one character ahead. The text,
    and therefore every number, differs a little between versions of Python.

    **Model**: x = E[characters] + P; in each layer x ← x + attention(norm(x)), causal, x ← x + W_2 gelu(W_1 norm(x));
    scores norm(x) W_out. Norm is layer normalisation, before each part (Vaswani et al. 2017; Xiong et al. 2020).
    **Loss**: cross-entropy in nats per character, mean over the context; log 96 = 4.56 for a model that knows nothing.
    **Metric**: bits per character, loss / log 2, lower is better: 6.58 for a model that knows nothing, about 4.6 for
    one that knows the frequency of each character (tests compute it).

    **Shows** chapter §5: rare and common characters, norms and matrices have gradients of very different sizes, so a
    separate learning rate for each parameter helps.

    Args:
        context: characters in a window, >= 1.
        width: width of the residual stream, a multiple of `heads`.
        heads: number of attention heads, >= 1.
        layers: number of layers, >= 1.

    Raises:
        ValueError: if a number is too small, `heads` does not divide `width`, or `context` is longer than the text.
        ModuleNotFoundError: if this Python has no `pydoc_data`.

    >>> from gradtx.lab.problems import characters
    >>> problem = characters()
    >>> inputs, targets = problem.train
    >>> print(inputs.shape, problem.validation[0].shape, bool((inputs[:, 1:] == targets[:, :-1]).all()))
    (4218, 32) (468, 32) True
    """
    for argument, value in {"context": context, "width": width, "heads": heads, "layers": layers}.items():
        checked_count("characters", argument, value)
    if width % heads:
        raise ValueError(f"characters: width must be a multiple of heads = {heads}, got {width}.")
    text = encode(_reference_text()[:_CHARACTERS])
    boundary = len(text) * 9 // 10
    if context >= len(text) - boundary:
        raise ValueError(f"characters: context must be less than {len(text) - boundary}, got {context}.")
    logits = partial(_transformer, heads=heads)

    def losses(params: Any, batch: Batch) -> jax.Array:
        inputs, targets = batch
        return cross_entropy(logits(params, inputs), targets)

    def metric(params: Any, batch: Batch) -> jax.Array:
        return jnp.mean(losses(params, batch)) / math.log(2)

    return Problem(
        name="characters",
        description=f"the Python reference by characters, transformer of {layers} layers, width {width}",
        init=partial(_init, context=context, width=width, layers=layers),
        losses=losses,
        metric=metric,
        train=_windows(text[:boundary], context),
        validation=_windows(text[boundary:], context),
        metric_name="bits per character",
        higher_is_better=False,
        target=3.5,
        section="§5",
    )


def encode(text: str) -> np.ndarray:
    """The index [characters] int32 of each character in `ALPHABET`.

    >>> from gradtx.lab.problems.text import ALPHABET, encode
    >>> print(encode("é, Bé"), len(ALPHABET))
    [32 13  1 35 32] 96
    """
    place = {character: i for i, character in enumerate(ALPHABET)}
    return np.array([place.get(character, place["?"]) for character in text], np.int32)


def _reference_text() -> str:
    message = "characters: the text is pydoc_data.topics of CPython's standard library, which this Python lacks."
    topics = imported("pydoc_data.topics", message).topics
    return "\n".join(topics[name] for name in sorted(topics))


def _windows(text: np.ndarray, context: int) -> Batch:
    """(inputs, targets), both [n, context]. Every character except the first is a target once."""
    windows = np.lib.stride_tricks.sliding_window_view(text, context + 1)[::context]
    return jnp.asarray(windows[:, :-1]), jnp.asarray(windows[:, 1:])


def _init(key: jax.Array, *, context: int, width: int, layers: int) -> Any:
    key_characters, key_places, key_out, *layer_keys = jax.random.split(key, 3 + layers)

    def norm() -> Any:
        return {"gain": jnp.ones(width), "bias": jnp.zeros(width)}

    def layer(layer_key: jax.Array) -> Any:
        keys = jax.random.split(layer_key, 4)
        return {
            "norm_attention": norm(),
            "w_qkv": weights(keys[0], width, 3 * width),
            # The contribution of a layer starts small, so that the stream keeps its size through all layers.
            "w_mixed": weights(keys[1], width, width) / math.sqrt(2 * layers),
            "norm_mlp": norm(),
            "w_up": weights(keys[2], width, 4 * width),
            "b_up": jnp.zeros(4 * width),
            "w_down": weights(keys[3], 4 * width, width) / math.sqrt(2 * layers),
        }

    return {
        "characters": 0.1 * jax.random.normal(key_characters, (len(ALPHABET), width)),
        "places": 0.1 * jax.random.normal(key_places, (context, width)),
        "layers": [layer(k) for k in layer_keys],
        "norm_out": norm(),
        "w_out": 0.1 * weights(key_out, width, len(ALPHABET)),  # small: the first guess is nearly uniform
    }


def _transformer(params: Any, inputs: jax.Array, *, heads: int) -> jax.Array:
    """Maps characters [n, time] to the scores [n, time, 96] of the next character."""
    x = params["characters"][inputs] + params["places"][: inputs.shape[1]]
    for layer in params["layers"]:
        x = x + _attention(layer, _normalise(layer["norm_attention"], x), heads)
        hidden = jax.nn.gelu(_normalise(layer["norm_mlp"], x) @ layer["w_up"] + layer["b_up"])
        x = x + hidden @ layer["w_down"]
    return _normalise(params["norm_out"], x) @ params["w_out"]


def _attention(layer: Any, x: jax.Array, heads: int) -> jax.Array:
    n, time, width = x.shape
    q, k, v = jnp.moveaxis((x @ layer["w_qkv"]).reshape(n, time, 3, heads, width // heads), 2, 0)
    scores = jnp.einsum("nthc,nshc->nhts", q, k) / math.sqrt(width // heads)
    is_past = jnp.tril(jnp.ones((time, time), bool))  # past or present
    attention = jax.nn.softmax(scores, where=is_past)
    return jnp.einsum("nhts,nshc->nthc", attention, v).reshape(n, time, width) @ layer["w_mixed"]


def _normalise(norm: Any, x: jax.Array) -> jax.Array:
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    return x * norm["gain"] + norm["bias"]
