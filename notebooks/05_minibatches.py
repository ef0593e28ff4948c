# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5 · Minibatches: how many examples should a step look at?
#
# The cost is a mean over all training examples, and so is its gradient. A minibatch takes the mean over a few of them:
# cheaper, but noisy (chapter §3). What do you get for twice the examples?
#
# You will see
# 1. the error of a minibatch gradient fall as **σ/√n**, so that returns are less than linear;
# 2. what happens if you **do not shuffle**;
# 3. how many **steps to a target** each batch size needs, and whether large batches generalise worse here;
# 4. the **noise scale**, a number that says while you train whether your batch is too small or too large;
# 5. a **growing** batch, which takes the best of both.
#
# *New in gradtx here*: instruments that know the loss of each example (`gradient_tests`, `gradient_noise_scale`) read
# the noise from the minibatches that you have anyway, without the gradient of any single example.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab

digits = lab.problems.digits(hidden=16)  # 1,437 images of handwritten digits to train on, 360 to validate
examples, labels = digits.train
key = jax.random.key(0)
params = digits.init(key)

# %% [markdown]
# ## 1 · Four times the examples for half the error (§3)
#
# The mean of n independent examples has the standard error σ/√n. The gradient is such a mean. With Σ the covariance of
# the gradients of single examples, its distance from the gradient G of the whole training set should be
#
# $$\sqrt{\mathrm{E}\,\lVert g_n - G\rVert^2} = \frac{\sigma}{\sqrt n}, \qquad \sigma^2 = \operatorname{tr} \Sigma .$$
#
# We draw 200 minibatches of each size and measure the distance. For once we take the gradient of every single example
# (`jax.vmap` does one function for many inputs), so that a minibatch is a draw among the rows of a table.

# %%
gradient_of_one = jax.grad(lambda params, x, y: digits.loss(params, (x[None], y[None])))
trees = jax.jit(jax.vmap(gradient_of_one, in_axes=(None, 0, 0)))(params, examples, labels)
table = np.concatenate([leaf.reshape(len(labels), -1) for leaf in jax.tree.leaves(trees)], axis=1)  # [1437, 1210]
whole, random = table.mean(axis=0), np.random.default_rng(0)
sizes = [1, 4, 16, 64, 256]


def measured_error(size):
    draws = random.multinomial(size, np.full(len(table), 1 / len(table)), 200)  # how often each example is drawn
    return np.sqrt(np.mean(np.sum((draws / size @ table - whole) ** 2, axis=1)))


errors = np.array([measured_error(size) for size in sizes])
sigma = np.sqrt(table.var(axis=0).sum())

# %% [markdown]
# Nobody has such a table in a real training. The instrument `gradient_tests` makes do with the minibatches that pass,
# here of 64: like any instrument it passes the gradient on and leaves what it read in the state. One reading is a rough
# estimate, from one random direction; we take the mean of 110. (`jax.lax.scan` is a compiled for-loop that keeps what
# each round returns.)


# %%
@jax.jit
def standard_errors(batches):
    tx = gradtx.gradient_tests()

    def read(state, indices):
        batch = examples[indices], labels[indices]
        grads = jax.grad(digits.loss)(params, batch)
        _, state = tx.update(grads, state, params, losses_fn=lambda p: digits.losses(p, batch))
        return state, gradtx.readings(state)["gradient_tests/standard_error"]

    return jax.lax.scan(read, tx.init(params), batches)[1]


read = jnp.sqrt(jnp.mean(standard_errors(gradtx.shuffled_epochs(key, digits.num_examples, 64, epochs=5)) ** 2))

# %%
figure, axes = plt.subplots()
axes.plot(sizes, errors, "o", ms=9, label="measured, 200 minibatches")
axes.plot(64, read, "X", ms=11, label="gradient_tests, from what passes")
axes.plot(sizes, sigma / np.sqrt(sizes), "k", lw=1, label="σ/√n")
axes.axhline(np.linalg.norm(whole), ls="--", color="k", lw=1, label="length of the gradient itself")
axes.set(xscale="log", yscale="log", xlabel="examples n in the minibatch", ylabel="error of the gradient")
axes.set_xticks(sizes, sizes, minor=False)
axes.set_title("The error of a minibatch gradient falls as σ/√n: four times the examples for half of it")
axes.legend()
plt.show()

# %% [markdown]
# The points lie on the line, and where it crosses the dashed one, noise is as long as the signal. From 16 to 256
# examples you pay 16 times as much for a quarter of the error.
#
# ## 2 · Not shuffling is what hurts (§3.2)
#
# A minibatch must be a *random* sample. Data on disk often are in some order; here we sort the images by their label,
# so that a minibatch holds a single digit. Compare: read in that order; shuffled **once** and then read in that fixed
# order; shuffled again for each epoch (one pass over the data).

# %%
size, epochs = 32, 8
steps_an_epoch = digits.num_examples // size
sorted_order = jnp.argsort(labels)[: steps_an_epoch * size].reshape(-1, size)
orders = {
    "sorted by label": jnp.tile(sorted_order, (epochs, 1)),
    "shuffled once": gradtx.shuffled_epochs(key, digits.num_examples, size, epochs, reshuffle=False),
    "shuffled each epoch": gradtx.shuffled_epochs(key, digits.num_examples, size, epochs),
}


@jax.jit
def accuracies(batches):
    tx = gradtx.sgd(0.5)

    def step(carry, indices):
        params, state = carry
        grads = jax.grad(digits.loss)(params, (examples[indices], labels[indices]))
        updates, state = tx.update(grads, state)
        params = optax.apply_updates(params, updates)
        return (params, state), digits.metric(params, digits.validation)

    return jax.lax.scan(step, (params, tx.init(params)), batches)[1]


curves = {name: accuracies(batches) for name, batches in orders.items()}

# %%
figure, axes = plt.subplots()
for name, curve in curves.items():
    axes.plot(np.arange(1, len(curve) + 1) / steps_an_epoch, curve, label=name)
axes.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1.02))
axes.set_title("One shuffle is enough; none is a disaster")
axes.legend(loc="center right")
plt.show()

# %% [markdown]
# Sorted, the network learns the digit it is being shown and forgets the others: the accuracy swings with each digit.
# Shuffled once and shuffled each time can hardly be told apart: one shuffle before storing is enough.
#
# ## 3 · Batch size and steps to a target (§3.1)
#
# For each batch size we train with four learning rates and two seeds, and count the steps until the training loss is
# down to 0.1, at the best learning rate of each size.

# %%
rates, keys, target = [0.25, 0.5, 1.0, 2.0], jax.random.split(key, 2), 0.1
sweeps = {
    size: lab.sweep(digits, gradtx.sgd, {"learning_rate": rates}, steps=n, keys=keys, batch_size=size, eval_every=5)
    for size, n in {4: 1000, 32: 300, 256: 200}.items()
}
lab.plot_batch_sizes(sweeps, target)

# %% [markdown]
# Left: the dashed line is what you would hope for, twice the batch for half of the steps, which is free if examples are
# computed in parallel. The first eightfold batch comes some way along, the second saves little. Right: the same in
# examples, that is in work: small batches are the thriftiest.
#
# Do large batches generalise worse? The validation accuracy at the step at which the training loss gets to the target,
# at the best learning rate of each size; and with one learning rate for all, after 3,840 examples:


# %%
def evaluation_at_target(sweep):
    reached = sweep.train_loss <= target  # [learning rate, seed, evaluation]
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1), -1 + reached.shape[-1])


best_rate, steps, at_target, at_same_rate = {}, {}, {}, {}
for size, sweep in sweeps.items():
    reached = evaluation_at_target(sweep)
    best = reached.mean(axis=1).argmin()
    best_rate[size], steps[size] = rates[best], sweep.eval_steps[reached[best]]
    at_target[size] = np.mean([sweep.metric[best, seed, reached[best, seed]] for seed in (0, 1)])
    at_same_rate[size] = sweep.metric[1, :, 3840 // size // 5].mean()
    print(
        f"batch {size:3}: best learning rate {rates[best]}, accuracy at the target {at_target[size]:.1%}, "
        f"at learning rate {rates[1]} after 3,840 examples {at_same_rate[size]:.1%}"
    )

# %% [markdown]
# At the target all sizes are equally good on new images: on this small problem larger batches do *not* generalise
# worse, once each has the learning rate that suits it. The best learning rate grows with the batch, as the chapter says
# it must: with one rate for all, the largest batch is far behind after the same number of examples.
#
# ## 4 · The noise scale: how large is large enough? (§3.1)
#
# Section 1 suggests a measure. Where noise is longer than the signal, more examples pay; where it is shorter, they are
# wasted. The two are of one length at a batch of
#
# $$B_\text{noise} = \frac{\operatorname{tr} \Sigma}{\lVert G \rVert^2} ,$$
#
# the *gradient noise scale*. The instrument reads it while you train, from the minibatches that pass.

# %%
tx = optax.chain(gradtx.gradient_noise_scale(), gradtx.sgd(0.5))
history = lab.run(digits, tx, steps=400, key=key, batch_size=32)
lab.plot_curves(history, "gradient_noise_scale/noise_scale")

# %%
scale = history.readings["gradient_noise_scale/noise_scale"]
early, late = np.median(scale[:100]), np.median(scale[-100:])
print(f"noise scale: {early:.0f} examples in the first 100 steps, {late:.0f} in the last 100")

# %% [markdown]
# In the first 100 steps the noise scale is a few dozen examples: that is where the curve of section 3 bends. As the
# loss falls, the signal gets weaker but the noise less so: the noise scale grows, and late in training larger batches
# pay.
#
# ## 5 · A batch that grows (§4.1)
#
# So start small and grow. In a linear regression on 353 patients we know the lowest loss there is. The learning rate
# stays the same throughout; `growing_batch_sizes` is a schedule that `lab.run` takes.

# %%
patients, tx, growing = lab.problems.diabetes(), gradtx.sgd(0.1), gradtx.growing_batch_sizes(4, 256, every=60, factor=8)
same = {"key": key, "eval_every": 10}
runs = {
    "4 throughout": lab.run(patients, tx, steps=600, batch_size=4, **same),
    "256 throughout": lab.run(patients, tx, steps=200, batch_size=256, **same),
    "growing from 4 to 256": lab.run(patients, tx, steps=200, batch_size_schedule=growing, **same),
}
print("batch sizes of the growing run:", growing.sizes)

# %%
figure, axes = plt.subplots()
for name, run in runs.items():
    seen = np.concatenate([[0], np.cumsum(run.batch_sizes)])[run.eval_steps]
    axes.plot(seen[1:], (run.train_loss - patients.optimum)[1:], "o-", ms=3, label=name)
axes.set(xscale="log", yscale="log", xlabel="examples seen", ylabel="training loss above its minimum")
axes.set_title("Small batches start cheaply and then hover; growing ones go on")
axes.legend()
plt.show()

# %% [markdown]
# The small batch falls first and then hovers where its noise keeps it. The large one goes far lower, for far more
# examples. The growing one starts like the one and ends like the other, for less than half of the examples.
#
# ## What was claimed, checked

# %%
# The error of a minibatch gradient is σ/√n, and the instrument reads it from minibatches that pass.
assert np.allclose(errors, sigma / np.sqrt(sizes), rtol=0.15)
assert np.isclose(read, sigma / 8, rtol=0.3)
# Sorted examples do not train, one shuffle is as good as one each epoch.
last = {name: float(jnp.mean(curve[-steps_an_epoch:])) for name, curve in curves.items()}
assert last["sorted by label"] < 0.5
assert last["shuffled once"] > 0.9
assert abs(last["shuffled once"] - last["shuffled each epoch"]) < 0.03
# 64 times the batch is worth far less than 64 times fewer steps.
medians = {size: np.median(steps[size]) for size in sweeps}
assert medians[4] > 2 * medians[32] > 2 * medians[256]
assert medians[4] < 20 * medians[256]
# Larger batches want larger rates, and are no worse on new images; with one rate for all the largest is behind.
assert best_rate[4] < best_rate[32] <= best_rate[256]
assert max(at_target.values()) - min(at_target.values()) < 0.03
assert at_same_rate[256] < at_same_rate[32] - 0.03
# The noise scale starts at a few dozen examples and grows.
assert 10 < early < 120
assert late > 1.5 * early
# A batch that grows ends near the large one, at fewer examples; the small one hovers far above.
excess = {name: np.median(run.train_loss[-5:]) - patients.optimum for name, run in runs.items()}
assert excess["4 throughout"] > 10 * excess["growing from 4 to 256"]
assert excess["growing from 4 to 256"] < 2 * excess["256 throughout"]
assert runs["growing from 4 to 256"].batch_sizes.sum() < 0.6 * runs["256 throughout"].batch_sizes.sum()
