"""The challenges a diagnosis can name: what each is, where the chapter treats it, and what to do about it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Challenge:
    """One of the chapter's challenges."""

    title: str
    section: str
    source: str
    advice: str  # one sentence
    remedy: str  # gradtx code to paste


CHALLENGES: dict[str, Challenge] = {
    "nonfinite": Challenge(
        "NaN or inf",
        "§2.4",
        "Goodfellow et al. 2016, §8.2.4",
        "Find the step's batch; until then leave such steps out.",
        "tx = gradtx.skip_nonfinite(tx, give_up_after=10)",
    ),
    "learning_rate_too_high": Challenge(
        "the learning rate is too high",
        "§4.1",
        "Goodfellow et al. 2016, eq. 8.10 and §8.3.1",
        "Lower the rate to where the range test falls most steeply.",
        "print(gradtx.lr_range_test(value_fn, params))\ntx = gradtx.sgd(0.1 * learning_rate)",
    ),
    "learning_rate_too_low": Challenge(
        "the learning rate is too low",
        "§4.1",
        "Goodfellow et al. 2016, §8.3.1; Smith 2017",
        "Raise the rate: the curvature met would stand far more.",
        "print(gradtx.lr_range_test(value_fn, params))\ntx = gradtx.sgd(10 * learning_rate)",
    ),
    "oscillation": Challenge(
        "the run jumps from wall to wall",
        "§4.1",
        "Goodfellow et al. 2016, §8.3.1; Jacobs 1988",
        "Let the rate fall over the run, or lower it: along the steepest direction the step overshoots.",
        "tx = gradtx.sgd(gradtx.linear_decay(learning_rate, 0.01 * learning_rate, steps))",
    ),
    "edge_of_stability": Challenge(
        "training at the edge of stability",
        "§2.1",
        "Cohen et al. 2021; Andreyev & Beneventano 2024 for minibatches",
        "The loss still falls, though not at every step: common, and no harm; a smaller rate would only sharpen "
        "further.",
        "tx = optax.chain(gradtx.sharpness(learning_rate), gradtx.sgd(learning_rate))  # keep watching",
    ),
    "ill_conditioning": Challenge(
        "ill-conditioned curvature",
        "§2.1",
        "Goodfellow et al. 2016, §8.2.1",
        "The steepest direction bounds the rate, the flattest would need it far higher: use momentum or adaptive "
        "rates.",
        "tx = gradtx.sgd(learning_rate, momentum=0.9)  # or gradtx.rmsprop(0.001)",
    ),
    "saddle": Challenge(
        "a saddle point",
        "§2.3",
        "Dauphin et al. 2014; Goodfellow et al. 2016, §8.2.3",
        "Momentum or noise leaves it; see the curvature for yourself.",
        "print(gradtx.critical_point(value_fn, params, key=jax.random.key(0)))\n"
        "tx = gradtx.sgd(learning_rate, momentum=0.9)",
    ),
    "plateau": Challenge(
        "a flat region",
        "§2.3",
        "Goodfellow et al. 2016, §8.2.3",
        "Rates that divide the gradient's size out cross it; or start elsewhere.",
        "tx = gradtx.rmsprop(0.001)",
    ),
    "cliff": Challenge(
        "a cliff",
        "§2.4",
        "Pascanu, Mikolov & Bengio 2013; Goodfellow et al. 2016, §8.2.4",
        "Clip the norm near its usual size: the direction stays, the throw does not.",
        "tx = optax.chain(gradtx.clip_by_global_norm({usual_norm:.3g}), gradtx.sgd(learning_rate))",
    ),
    "exploding_gradients": Challenge(
        "exploding gradients",
        "§2.5",
        "Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013",
        "Clip the norm; an orthogonal start keeps products of matrices in bounds.",
        "tx = optax.chain(gradtx.clip_by_global_norm({usual_norm:.3g}), gradtx.sgd(learning_rate))",
    ),
    "vanishing_gradients": Challenge(
        "vanishing gradients",
        "§2.5",
        "Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013",
        "No rate repairs it (scaling up cannot tell it from a minimum): change the start, the units or the "
        "architecture.",
        "print(gradtx.temporal_gradients(value_fn, params, probes))  # which step still hears the loss",
    ),
    "gradient_noise": Challenge(
        "gradient noise decides",
        "§2.6",
        "Goodfellow et al. 2016, §8.2.6 and §8.1.3; McCandlish et al. 2018",
        "Let the rate fall to a floor, or take larger batches: the loss hovers where noise holds it.",
        "tx = gradtx.sgd(gradtx.linear_decay(learning_rate, 0.01 * learning_rate, steps))",
    ),
    "stationary": Challenge(
        "the run has reached equilibrium with its noise",
        "§4.1",
        "Yaida 2019; Pflug 1990",
        "Nothing more will come at this rate: lower it now.",
        "tx = gradtx.sgd(0.1 * learning_rate)",
    ),
    "batch_too_small": Challenge(
        "the batch is too small",
        "§3.1",
        "McCandlish et al. 2018; Goodfellow et al. 2016, §8.1.3",
        "Take more examples a step, or average steps: noise is many times the signal.",
        "tx = optax.MultiSteps(tx, every_k_schedule={times:.0f})  # or a batch {times:.0f} times as large",
    ),
    "batch_too_large": Challenge(
        "the batch is larger than it pays",
        "§3.1",
        "McCandlish et al. 2018; Goodfellow et al. 2016, §8.1.3",
        "Fewer examples would give all but the same gradient: spend them on more steps.",
        "history = lab.run(problem, tx, steps={times:.0f} * steps, key=key, batch_size=batch_size // {times:.0f})",
    ),
    "wandering": Challenge(
        "local descent gets nowhere",
        "§2.7",
        "Goodfellow et al. 2016, §8.2.7",
        "The way down from here does not lead to a low place: start elsewhere, several times.",
        "starts = jax.random.split(key, 10)  # problem.init(start) for each; go on with the best",
    ),
}
