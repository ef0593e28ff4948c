"""The challenges that a diagnosis can name, each with its title, chapter section, source and advice.

A remedy is code that changes only the user's own optimizer `tx`. It is pasted between the line that makes `tx` and
`tx.init`, and uses only the names `tx`, `gradtx` and `optax`. A challenge has no remedy if no change of the
optimizer cures it; the advice then says so. The code in `next_look` prints more about the run and cures nothing.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Challenge:
    """One of the chapter's challenges."""

    title: str
    section: str
    source: str
    advice: str  # one or two sentences
    remedy: str = ""  # code to paste; empty if no optimizer cures it
    next_look: str = ""  # code that prints more about the run


SHORTER = "tx = optax.chain(tx, optax.scale({factor}))  # {factor} times the learning rate"
FALLING = "optax.scale_by_schedule(gradtx.linear_decay(1.0, 0.01, steps={steps:.0f}))"
DECAY = f"tx = optax.chain(tx, {FALLING})"

CHALLENGES: dict[str, Challenge] = {
    "nonfinite": Challenge(
        "NaN or inf", "§2.4", "Goodfellow et al. 2016, §8.2.4",
        "Find the batch of the first such step. Until you know the cause, leave such steps out.",
        "tx = gradtx.skip_nonfinite(tx)",
    ),
    "learning_rate_too_high": Challenge(
        "the learning rate is too high", "§4.1", "Goodfellow et al. 2016, eq. 8.10 and §8.3.1; Cohen et al. 2021",
        "Take shorter steps.",
        SHORTER,
    ),
    "learning_rate_too_low": Challenge(
        "the learning rate is too low", "§4.1", "Goodfellow et al. 2016, §8.3.1; Smith 2017",
        "Take longer steps. The curvature along the way allows them.",
        "tx = optax.chain(tx, optax.scale({factor}))  # steps {factor} times as long",
    ),
    "oscillation": Challenge(
        "the steps jump across the valley and back", "§4.1", "Goodfellow et al. 2016, §8.3.1; Jacobs 1988",
        "Take shorter steps. Each step now goes past the minimum along the steepest direction.",
        SHORTER,
    ),
    "edge_of_stability": Challenge(
        "training at the edge of stability", "§2.1", "Cohen et al. 2021; Andreyev & Beneventano 2024 for minibatches",
        "The loss still falls, though not at every step. This is common and does no harm, so there is nothing to cure.",
        next_look="print(gradtx.spectral_density(value_fn, params, key=jax.random.key(0)))",
    ),
    "ill_conditioning": Challenge(
        "ill-conditioned curvature", "§2.1", "Goodfellow et al. 2016, §8.2.1; Polyak 1964",
        "The steepest direction limits the learning rate, and the flattest would need a far higher one. Momentum "
        "helps, and so does a separate rate for each parameter.",
        "tx = optax.chain(tx, gradtx.heavy_ball({momentum}))",
    ),
    "saddle": Challenge(
        "a saddle point", "§2.3", "Dauphin et al. 2014; Goodfellow et al. 2016, §8.2.3",
        "The run left it by itself along the direction of negative curvature, so there is nothing to cure. With longer "
        "steps, momentum or noise it would leave sooner.",
        next_look="print(gradtx.critical_point(value_fn, params, key=jax.random.key(0)))",
    ),
    "plateau": Challenge(
        "a flat region", "§2.3", "Goodfellow et al. 2016, §8.2.3",
        "The gradient is almost 0 there, so no step length helps. Start elsewhere, or replace the units that are flat.",
        next_look="print(gradtx.critical_point(value_fn, params, key=jax.random.key(0)))",
    ),
    "cliff": Challenge(
        "a cliff", "§2.4", "Pascanu, Mikolov & Bengio 2013; Goodfellow et al. 2016, §8.2.4",
        "Clip the gradient norm at its usual size. Steps keep their direction, and none is too long. At the cliff all "
        "steps then have the same length, so they come to rest only if the rate falls.",
        f"tx = optax.chain(gradtx.clip_by_global_norm({{limit}}), tx, {FALLING})",
    ),
    "exploding_gradients": Challenge(
        "exploding gradients", "§2.5", "Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013",
        "Clip the gradient norm. Orthogonal initial matrices also keep products of many matrices in bounds.",
        "tx = optax.chain(gradtx.clip_by_global_norm({limit}), tx)",
    ),
    "vanishing_gradients": Challenge(
        "vanishing gradients", "§2.5", "Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013",
        "No learning rate repairs this. Change the start, the units or the architecture.",
        next_look="print(gradtx.gradient_norm(per_leaf=True))  # which layers still get a gradient; see also "
        "temporal_gradients",
    ),
    "gradient_noise": Challenge(
        "gradient noise keeps the loss up", "§2.6",
        "Goodfellow et al. 2016, §8.2.6 and §8.1.3; McCandlish et al. 2018",
        "Let the learning rate fall to a small value, or take larger batches. At a constant rate, noise keeps the loss "
        "above its minimum.",
        DECAY,
    ),
    "stationary": Challenge(
        "the run is in equilibrium with its gradient noise", "§4.1", "Yaida 2019; Pflug 1990",
        "The loss will not fall any further at this learning rate. Lower the rate.",
        DECAY,
    ),
    "batch_too_small": Challenge(
        "the batch is too small", "§3.1", "McCandlish et al. 2018; Goodfellow et al. 2016, §8.1.3",
        "The noise is many times the signal. Take more examples per step, or average the gradients of several steps.",
        "tx = gradtx.accumulate(optax.chain(tx, optax.scale({times:.0f})), {times:.0f})  # fewer, longer steps",
    ),
    "batch_too_large": Challenge(
        "the batch is larger than it needs to be", "§3.1", "McCandlish et al. 2018; Goodfellow et al. 2016, §8.1.3",
        "Batches of {fewer:.0f} examples would give nearly the same gradient. Spend the examples on more steps. This "
        "is a change of the loop, not of the optimizer.",
    ),
    "wandering": Challenge(
        "local descent makes no progress", "§2.7", "Goodfellow et al. 2016, §8.2.7",
        "The way down from this start does not lead to a low loss. Try several starts, and continue the best run.",
    ),
}  # fmt: skip
