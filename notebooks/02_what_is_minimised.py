# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: alt,tags,slideshow
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] slideshow={"slide_type": "slide"}
# # 2 · What is minimised, and is it what one wants?
#
# *Chapter §1.1 and §1.2.* Training lowers a cost on the examples at hand. One wants few errors on examples that nobody
# has seen. You will see how far these two can drift apart, why one descends a stand-in for the error rate, and what
# early stopping does about it.
#
# **New in gradtx:** `gradtx.early_stopping` ends a run by a validation metric.

# %% slideshow={"slide_type": "skip"}
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab

key = jax.random.key(0)  # JAX's random numbers come from explicit keys: the same key gives the same numbers

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A world that we know
#
# Real data come from a distribution that nobody knows. Here we choose the distribution ourselves: an input $x$ holds ten
# random numbers, and the label is 1 if $x_1 + x_2 + x_3 > 0$. Then 15 % of the labels are flipped. So we can draw as
# many fresh examples as we like, and we know that no classifier can have fewer than 15 % errors in the long run.


# %% slideshow={"slide_type": "skip"}
@partial(jax.jit, static_argnums=1)
def draw(key, examples):
    key_x, key_flip = jax.random.split(key)
    x = jax.random.normal(key_x, (examples, 10))
    is_flipped = jax.random.bernoulli(key_flip, 0.15, (examples,))
    return x, jnp.where(is_flipped, x[:, :3].sum(1) <= 0, x[:, :3].sum(1) > 0).astype(int)


fresh = draw(jax.random.key(99), 10_000)
train = draw(jax.random.key(1), 60)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The model is a network with 40 hidden units; $f(x;\theta)$ is its output. $L$ is the loss of one example. The chapter
# has two costs:
#
# $$J(\theta) = \frac1n \sum_{i=1}^n L(f(x_i;\theta), y_i) \qquad\text{and}\qquad
# J^*(\theta) = \mathrm{E}\, L(f(x;\theta), y) .$$
#
# $J$ is the mean over the training set, the *empirical risk*. $J^*$ is the expectation over the distribution, the
# *generalisation error*. We measure $J^*$ on 10,000 fresh examples.


# %% slideshow={"slide_type": "skip"}
@jax.jit
def init(key):
    key_in, key_out = jax.random.split(key)
    w_in, w_out = jax.random.normal(key_in, (10, 40)) / 10**0.5, jax.random.normal(key_out, (40, 2)) / 40**0.5
    return {"w_in": w_in, "b_in": jnp.zeros(40), "w_out": w_out, "b_out": jnp.zeros(2)}


def scores(params, x):
    return jnp.tanh(x @ params["w_in"] + params["b_in"]) @ params["w_out"] + params["b_out"]


problem = lab.problems.classification("coin", init, scores, train, draw(jax.random.key(2), 1000))


def error_rate(params, batch):
    return 1 - problem.metric(params, batch)


params = init(key)
outputs, answers = np.asarray(scores(params, train[0])), np.asarray(train[1])
by_hand = np.mean([np.log(np.sum(np.exp(f))) - f[y] for f, y in zip(outputs, answers, strict=True)])  # -log p(y)
print(f"J as a mean over 60 examples: {by_hand:.4f}, problem.loss: {problem.loss(params, train):.4f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Minimising the training cost overfits
#
# We start eight runs of plain descent, each with its own 60 examples and its own start. `jax.vmap` trains all of them
# at once, and `jax.lax.scan` is a compiled loop.


# %% slideshow={"slide_type": "skip"}
@jax.jit
@jax.vmap
def overfit(key):
    key_data, key_init = jax.random.split(key)
    mine, tx = draw(key_data, 60), gradtx.sgd(0.3)

    def ten_steps(params, _):
        def one_step(params, _):
            updates, _ = tx.update(jax.grad(problem.loss)(params, mine), tx.init(params))
            return jax.tree.map(jnp.add, params, updates), None

        seen = {
            "J": problem.loss(params, mine), "J*": problem.loss(params, fresh),
            "error": error_rate(params, mine), "error*": error_rate(params, fresh),
        }  # fmt: skip
        return jax.lax.scan(one_step, params, length=10)[0], seen

    return jax.lax.scan(ten_steps, init(key_init), length=80)[1]


curves = overfit(jax.random.split(key, 8))  # [8 runs, 80 evaluations]
steps = 10 * np.arange(80)

# %% slideshow={"slide_type": "skip"}
_, (left, right) = plt.subplots(1, 2)
for axes, names in ((left, ("J", "J*")), (right, ("error", "error*"))):
    for name, label, colour in zip(names, ("training set", "10,000 fresh examples"), ("C0", "C1"), strict=True):
        axes.plot(steps, curves[name].T, color=colour, lw=0.7, alpha=0.5)
        axes.plot(steps, curves[name].mean(0), color=colour, lw=2.5, label=label)
left.set(title="Cost: one falls, the other turns", xlabel="optimizer step", ylabel="cross-entropy (nats)")
right.set(title="Error rate (thin: eight runs, thick: their mean)", xlabel="optimizer step", ylabel="share of errors")
right.axhline(0.15, color="k", lw=0.8, ls="--", label="15 %: labels that were flipped")
left.legend()
right.legend()
figure = plt.gcf()
plt.close()

# %% alt="Two panels over optimizer steps. Left: the training cost of eight runs falls towards zero while the cost on fresh examples falls, turns after some hundred steps and rises. Right: the training error falls to zero, and the error on fresh examples stays above 20 percent." tags=["cover"] slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# At the start $J$ and $J^*$ agree, because the parameters do not depend on the sample yet. Then descent fits the
# parameters to the sample, and $J$ tells us less and less about $J^*$: $J$ goes to zero while $J^*$ turns and rises.
# The network has learnt the flipped labels by heart. That is *overfitting*.
#
# Look at the error rates too. In most runs the smallest $J^*$ and the smallest error on fresh examples come at different
# steps, because the cost only stands in for the metric. (We look at every tenth step.)

# %% slideshow={"slide_type": "skip"}
best_cost, best_error = steps[curves["J*"].argmin(1)], steps[curves["error*"].argmin(1)]
print("step of the lowest J*:   ", best_cost)
print("step of the lowest error:", best_error)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why a stand-in?
#
# Why not descend the error rate itself? It is a count of errors, so along any line through the parameters it looks like
# a staircase: it is flat nearly everywhere, and there its derivative is exactly zero. The cross-entropy is a *surrogate*.
# It is smooth, and it falls if the network gives the right answer a higher probability.

# %% slideshow={"slide_type": "skip"}
direction = init(jax.random.key(5))
line = np.linspace(-2, 2, 2001)


def along(function):
    moved = jax.vmap(lambda t: function(jax.tree.map(lambda p, d: p + t * d, params, direction), train))
    return jax.jit(moved)(jnp.asarray(line))


stairs, smooth = along(error_rate), along(problem.loss)
gradient_of_error = jax.jit(jax.grad(error_rate))(params, train)

# %% slideshow={"slide_type": "skip"}
plt.plot(line, smooth, label="cross-entropy: smooth")
plt.plot(line, stairs, label="error rate: a staircase")
plt.gca().set(xlabel="distance along a random line", ylabel="cost of 60 examples")
plt.title("The error rate has no slope to follow")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Along a line through the parameters the error rate on 60 examples is a staircase with flat steps, while the cross-entropy is a smooth curve." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# A surrogate can be at its minimum while the error rate is not. Here is such a case. A line separates two classes in the
# plane, except for 4 % outliers that lie far away. A linear classifier is trained to the end with the squared loss. To
# descend the error rate as well, we smooth its stairs a little: an example counts as $\sigma(-m/0.1)$ errors. Here
# $\sigma$ is the logistic function, and the margin $m$ is positive if the example is classified correctly.


# %% slideshow={"slide_type": "skip"}
@jax.jit
def plane(key):
    key_x, key_y, key_far = jax.random.split(key, 3)
    y = jnp.where(jax.random.bernoulli(key_y, 0.5, (1000,)), 1.0, -1.0)
    x = jax.random.normal(key_x, (1000, 2)) * jnp.array([0.5, 0.5]) + jnp.stack([y, 0.3 * y], 1)
    is_far = jax.random.bernoulli(key_far, 0.04, (1000,))
    far = jnp.stack([8.0 * jnp.ones(1000), -12 * y], 1)
    return jnp.where(is_far[:, None], far, x), y


def squared(w, data):
    x, y = data
    return 0.5 * jnp.mean((x @ w[:2] + w[2] - y) ** 2)


def wrong(w, data):
    x, y = data
    return jnp.mean(jnp.sign(x @ w[:2] + w[2]) != y)


def smoothed(w, data):
    x, y = data
    return jnp.mean(jax.nn.sigmoid(-y * (x @ w[:2] + w[2]) / 0.1))


data = plane(key)
tx, w = gradtx.newton(), jnp.zeros(3)


@jax.jit
def to_minimum(w):  # the surrogate is a quadratic: one Newton step leads to its minimum (notebook 3)
    return w + tx.update(jax.grad(squared)(w, data), tx.init(w), w, value_fn=lambda w: squared(w, data))[0]


@jax.jit
def follow_errors(w):
    return jax.lax.fori_loop(0, 200, lambda _, w: w - 0.2 * jax.grad(smoothed)(w, data), w)


@jax.jit
def slopes(w):
    return [jnp.linalg.norm(jax.grad(f)(w, data)) for f in (squared, smoothed)]


w = to_minimum(w)
slope_of_surrogate, slope_of_error = slopes(w)
moved = follow_errors(w)
print(f"slope of the surrogate {slope_of_surrogate:.1e}, of the smoothed error rate {slope_of_error:.3f}")
print(
    f"errors at the surrogate's minimum {wrong(w, data):.1%}, after following the error rate {wrong(moved, data):.1%}"
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Early stopping
#
# One remedy is to stop by the metric that one cares about. `gradtx.early_stopping` watches the validation set. With
# `patience=10` it ends the run after ten evaluations in a row without an improvement. The validation examples are not
# among the training examples, so the rule does not look at the training gradient. How large is that gradient at the
# stop?


# %% slideshow={"slide_type": "skip"}
@jax.jit
def gradient_norm(params):
    return optax.tree.norm(jax.grad(problem.loss)(params, train))


@jax.jit
def true_cost(params):
    return problem.loss(params, fresh)


rule = gradtx.early_stopping(patience=10, mode="max")
same = {"steps": 2000, "batch_size": "all"}
keys, tx = jax.random.split(jax.random.key(3), 4), gradtx.sgd(0.3)
stopped = [lab.run(problem, tx, key=key, stopping=rule, eval_every=5, **same) for key in keys]
full = [lab.run(problem, tx, key=key, eval_every=2000, **same) for key in keys]
starts = [problem.init(jax.random.split(key)[0]) for key in keys]
norms = {
    "start": [gradient_norm(params) for params in starts],
    "early stop": [gradient_norm(run.params) for run in stopped],
    "2,000 steps": [gradient_norm(run.params) for run in full],
}
for name, values in norms.items():
    print(f"training gradient, {name}:", np.round(values, 4))
for run, other in zip(stopped, full, strict=True):
    print(
        f"{run.ended} at step {run.eval_steps[-1]}: J* {true_cost(run.params):.2f}, training loss "
        f"{run.train_loss[-1]:.2f}; {other.ended} at step 2000: J* {true_cost(other.params):.2f}, "
        f"training loss {other.train_loss[-1]:.3f}"
    )

# %% slideshow={"slide_type": "skip"}
for i in range(4):
    plt.semilogy(range(3), [norms[name][i] for name in norms], "o-", lw=0.8, label=f"start {i + 1}")
plt.xticks(range(3), list(norms))
plt.ylabel("norm of the training gradient")
plt.title("At an early stop the training cost is far from its minimum")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="The norm of the training gradient of four runs at three times. It is about 1 at the start, a tenth of that at the early stop, and a five-hundredth after 2,000 steps." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# The stopped runs end with a training loss that could fall much further. Their gradient is about a tenth of that at the
# start, and more than forty times as large as after the full training. They are better on fresh examples all the same.

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** Descent lowers the cost of a sample, not what you want. Watch a validation metric while you train,
# and stop by it. Do not expect a small gradient at the end of a good training.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. Train on 600 examples instead of 60. Does $J^*$ still turn up within 2,000 steps?
# 2. In the picture of the staircase, how high is the smallest stair?
# 3. What happens to the stopped runs if `patience` is 1?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. Yes, but later, and from a lower point: $J^*$ is lowest after 50 to 250 steps, at about 0.52 nats instead of 0.6. Then
#    the network learns the flipped labels by heart again, and after 2,000 steps $J^*$ is about 1.3.
# 2. 1/60: one of the 60 examples changes from wrong to right, or from right to wrong.
# 3. They stop at the first evaluation that is not better than the best one so far: after 10 to 25 steps instead of 55 to
#    85. Here that does little harm, because the accuracy hardly rises after the first few evaluations. In a long training
#    it would end the run far too early, because the accuracy on 1,000 examples is noisy.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
late = -1
J, risk, error, true_error = (np.asarray(curves[name]) for name in ("J", "J*", "error", "error*"))
spread = J[:, 0].std(ddof=1) / 8**0.5  # standard error of the mean of eight samples' J
assert np.isclose(by_hand, problem.loss(params, train), rtol=1e-5)  # 1.1.2: the mean of the losses, summed by hand
assert abs(np.mean(J[:, 0] - risk[:, 0])) < 3 * spread  # 1.1.3: before training, J of a sample agrees with J*
assert np.all(risk[:, late] > J[:, late] + 0.5)  # 1.1.3: after training it does not, in any of eight runs
assert np.all(J[:, late] < 0.05)  # 1.1.4a: J near 0, J* turned up
assert np.all(risk[:, late] > 1.3 * risk.min(1))  # 1.1.4a: J near 0, J* turned up
assert np.all(error[:, late] < 1e-6)  # 1.1.4a: no training error, many true ones
assert np.all(true_error[:, late] > 0.2)  # 1.1.4a: no training error, many true ones
assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient_of_error))  # 1.1.4b: the derivative is exactly 0
assert np.mean(np.diff(stairs) == 0) > 0.9  # 1.1.4b: along a line it is flat nearly everywhere
drop = true_error[:, 0] - true_error.min(1)
assert drop.min() > 0.03  # 1.2.1: descending the surrogate lowered the error rate
assert drop.mean() > 0.15  # 1.2.1: descending the surrogate lowered the error rate
assert np.mean(best_cost != best_error) > 0.5  # 1.1.1: most runs have the lowest cost and error at different steps
assert slope_of_surrogate < 1e-3 * slope_of_error  # 1.2.2a: the surrogate is flat here, the true loss is not
assert wrong(moved, data) < wrong(w, data) - 0.01  # 1.2.2a: and the true loss can still be lowered
assert all(run.ended == "stopped early" for run in stopped)  # 1.2.2b, 4.1.1.4: ended by the validation metric
assert all(run.ended == "finished" for run in full)  # 4.1.1.4: or after a given number of steps
pairs = list(zip(stopped, full, strict=True))
assert all(run.train_loss[-1] > 5 * other.train_loss[-1] for run, other in pairs)  # 1.2.2b: long before J is minimal
at_start, at_stop, at_end = norms.values()
assert all(stop > 0.05 * start for stop, start in zip(at_stop, at_start, strict=True))  # 1.2.2c: a tenth of the start
assert all(stop > 20 * end for stop, end in zip(at_stop, at_end, strict=True))  # 1.2.2c: far from that of full training
