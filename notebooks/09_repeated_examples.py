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
# # 9 · Repeated examples: what does the second pass over the data give?
#
# *Chapter §3.3, and the large-data side of §4.1.3.* A training set is usually read many times. You will see what a
# minibatch gradient estimates on the first pass, and what it no longer estimates on the second. You will see why one
# repeats anyway, how online learning does without repeats, and which speed no method can exceed.
#
# **New in gradtx:** `gradtx.online_pass` gives the minibatches of a single pass, in which no example comes twice.

# %% slideshow={"slide_type": "skip"}
import time
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gradtx
from gradtx import lab

key = jax.random.key(0)  # JAX's random numbers come from explicit keys: the same key gives the same numbers

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the gradient of a minibatch estimates
#
# We choose the distribution ourselves, so that we know the truth. An input $x$ holds 20 random numbers, the target is
# $y = x^\top\theta^* + $ noise of standard deviation $\sigma$, the loss is $\frac12(x^\top\theta - y)^2$. Then the
# generalisation error and its gradient are known exactly:
#
# $$J^*(\theta) = \tfrac12 \lVert\theta - \theta^*\rVert^2 + \tfrac12\sigma^2, \qquad
# \nabla J^*(\theta) = \theta - \theta^* .$$
#
# We train on 40 examples, one at a time, for ten passes. At each step we compare the gradient $g$ of the example with
# $G = \nabla J^*$ at the same point, by the number $g\cdot G / G\cdot G$. If $g$ is an unbiased estimate of $G$, that
# number is 1 on average. The average is over 2,000 runs, each with its own 40 examples, at $\sigma = 0.3$.

# %% slideshow={"slide_type": "skip"}
DIM, EXAMPLES, PASSES = 20, 40, 10
truth = jnp.ones(DIM) / DIM**0.5


def draw(key, examples, noise):
    key_x, key_noise = jax.random.split(key)
    x = jax.random.normal(key_x, (examples, DIM))
    return x, x @ truth + noise * jax.random.normal(key_noise, (examples,))


def excess(theta):
    return 0.5 * jnp.sum((theta - truth) ** 2)  # J* - min J*


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def ten_passes(key, noise, rate=0.02):
    key_data, key_order = jax.random.split(key)
    x, y = draw(key_data, EXAMPLES, noise)

    def step(theta, i):
        g, whole = (x[i] @ theta - y[i]) * x[i], theta - truth
        return theta - rate * g, (g @ whole, whole @ whole, excess(theta - rate * g))

    order = gradtx.shuffled_epochs(key_order, EXAMPLES, 1, PASSES)[:, 0]
    _, (inner, square, error) = jax.lax.scan(step, jnp.zeros(DIM), order)
    exact = jnp.linalg.solve(x.T @ x, x.T @ y)  # the minimum of the training cost
    shape = (PASSES, EXAMPLES)
    return inner.reshape(shape).mean(1), square.reshape(shape).mean(1), error.reshape(shape)[:, -1], excess(exact)


keys = jax.random.split(key, 2000)
inner, square, error, at_minimum = map(np.asarray, ten_passes(keys, 0.3))
*_, error_noisy, at_noisy_minimum = map(np.asarray, ten_passes(keys, 1.0))
ratio = inner.mean(0) / square.mean(0)
bias = (inner - square).mean(0)  # of g · G: zero if g is unbiased
standard_error = (inner - square).std(0, ddof=1) / 2000**0.5

# %% slideshow={"slide_type": "skip"}
plt.errorbar(range(1, 11), ratio, 2 * standard_error / square.mean(0), fmt="o-", capsize=3, label="mean of 2,000 runs")
plt.axhline(1, color="k", ls="--", lw=0.8, label="unbiased for the gradient of J*")
plt.gca().set(xlabel="pass over the 40 examples", ylabel="g · G over G · G", xticks=range(1, 11), ylim=(0, 1.1))
plt.title("Only on the first pass is the gradient an unbiased estimate of that of J*")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="The mean of g dot G over G dot G for each of ten passes. It is 1 on the first pass and falls from pass to pass, to less than a half on the tenth." tags=["cover"] slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# On the first pass the number is 1 within its error bar: the parameters have not been fitted to the example yet, so it
# is like a fresh draw. From the second pass on the parameters have been fitted to it before, its gradient is too small,
# and the estimate is *biased*. It estimates the gradient of the training cost $J$, no longer that of $J^*$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why one repeats anyway
#
# A biased gradient can still point downhill. Here is the generalisation error after each pass, for those 2,000 runs and
# for 2,000 others whose targets are noisier, $\sigma = 1$.

# %% slideshow={"slide_type": "skip"}
figure, panels = plt.subplots(1, 2)
cases = {
    "σ = 0.3: later passes pay": (error, at_minimum),
    "σ = 1: they only fit the noise": (error_noisy, at_noisy_minimum),
}
for axes, (title, (after, minimum)) in zip(panels, cases.items(), strict=True):
    axes.errorbar(
        range(1, 11), after.mean(0), 2 * after.std(0) / 2000**0.5, fmt="o-", ms=4, capsize=3, label="after a pass"
    )
    axes.axhline(minimum.mean(), color="C1", ls="--", label="exact minimum of J")
    axes.set(xlabel="passes over the 40 examples", ylabel="excess generalisation error", title=title, ylim=(0, None))
    axes.legend()
plt.close()

# %% alt="Excess generalisation error after each of ten passes, in two panels. With little noise it falls from pass to pass and ends near the exact minimum of the training cost. With much noise it is lowest after the first pass, rises with every later one, and the exact minimum is far worse." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# With little noise the second pass lowers the error much, and the tenth hardly lowers it: the training error falls faster
# than the gap to the test error grows. With much noise one should stop after the first pass. The dashed line shows where
# a perfect optimiser ends, one that finds the minimum of the training cost at once. With much noise it ends at a far
# higher error than one slow pass. So a faster optimiser need not be a better learner.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Which speed nobody can exceed
#
# The simplest learning problem is to estimate a mean. Each example is the mean plus noise of variance $\sigma^2$. The
# bound of Cramér and Rao says that no unbiased method has a variance below $\sigma^2/k$ after $k$ examples (of normal
# noise). SGD at the rate $1/k$ computes the running mean, and has exactly that variance. We compare it with three other
# ways.

# %% slideshow={"slide_type": "skip"}
samples = np.asarray(
    jax.random.normal(jax.random.key(5), (4000, 1024))
)  # 4,000 runs of 1,024 examples, the true mean is 0


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def running(x, exponent):
    def step(theta, example_and_k):
        example, k = example_and_k
        theta = theta - k**-exponent * (theta - example)
        return theta, theta

    return jax.lax.scan(step, 0.0, (x, jnp.arange(1.0, 1025.0)))[1]


k = 2 ** np.arange(1, 11)
estimates = {
    "SGD at rate 1/k": np.asarray(running(samples, 1.0))[:, k - 1],
    "SGD at rate 1/√k": np.asarray(running(samples, 0.5))[:, k - 1],
    "median of all so far": np.stack([np.median(samples[:, :n], axis=1) for n in k], 1),
    "mean of first and last half": np.stack([np.mean(samples[:, : n // 2], axis=1) for n in k], 1) / 2
    + np.stack([np.mean(samples[:, n // 2 : n], axis=1) for n in k], 1) / 2,
}
variance = {name: (values**2).mean(0) for name, values in estimates.items()}

# %% slideshow={"slide_type": "skip"}
for (name, values), marker in zip(variance.items(), "osD^", strict=True):
    plt.loglog(k, values, marker, ms=6, mfc="none", label=name)
plt.loglog(k, 1 / k, "k", lw=1, label="σ²/k: the bound of Cramér and Rao")
plt.gca().set(xlabel="examples seen, k", ylabel="mean squared error")
plt.title("No method is below 1/k, however it optimises")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Squared error of four estimates of a mean against the number of examples. The running mean lies on the line one over k, and no other estimate is below it." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Online learning
#
# With more data than time one never repeats an example: each minibatch is a fresh draw. This is *online learning*. We
# compare two ways to train one network with equally many steps. One reads 64,000 examples once, the other reads 500
# examples again and again. 15 % of the labels are wrong, so that there is something to overfit. We do both from four
# keys, each with its own data and its own start.


# %% slideshow={"slide_type": "skip"}
@partial(jax.jit, static_argnames="examples")
def labelled(key, examples):
    key_x, key_flip = jax.random.split(key)
    x = jax.random.normal(key_x, (examples, 10))
    is_flipped = jax.random.bernoulli(key_flip, 0.15, (examples,))
    return x, jnp.where(is_flipped, x[:, :3].sum(1) <= 0, x[:, :3].sum(1) > 0).astype(int)


def init(key):
    key_in, key_out = jax.random.split(key)
    w_in, w_out = jax.random.normal(key_in, (10, 40)) / 10**0.5, jax.random.normal(key_out, (40, 2)) / 40**0.5
    return {"w_in": w_in, "b_in": jnp.zeros(40), "w_out": w_out, "b_out": jnp.zeros(2)}


def scores(params, x):
    return jnp.tanh(x @ params["w_in"] + params["b_in"]) @ params["w_out"] + params["b_out"]


def best_possible(batch):
    """The loss of a model that knows the rule, and that 15 % of the labels are wrong."""
    x, y = batch
    return -jnp.mean(jnp.log(jnp.where(y == (x[:, :3].sum(1) > 0), 0.85, 0.15)))


starts, test = jax.random.split(jax.random.key(1), 4), labelled(jax.random.key(3), 10_000)
much, few = (jax.vmap(partial(labelled, examples=n))(starts) for n in (64_000, 500))  # four sets of each size
once = gradtx.online_pass(jax.random.key(4), 64_000, batch_size=32)  # [2000, 32] indices
again = gradtx.shuffled_epochs(jax.random.key(4), 500, batch_size=32, epochs=134)[:2000]
problem = lab.problems.classification("coin", init, scores, labelled(key, 500), test)
tx = gradtx.sgd(0.3)


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, None))
def train(start, data, batches):
    params = init(start)

    def step(params, indices):
        batch = jax.tree.map(lambda a: a[indices], data)
        loss, grads = jax.value_and_grad(problem.loss)(params, batch)
        updates, _ = tx.update(grads, tx.init(params))
        return jax.tree.map(jnp.add, params, updates), (loss, loss - best_possible(batch))

    def hundred(params, some):
        params, (losses, excess) = jax.lax.scan(step, params, some)
        return params, {
            "training loss": losses.mean(), "training excess": excess.mean(),
            "test loss": problem.loss(params, test), "test error": 1 - problem.metric(params, test),
        }  # fmt: skip

    return jax.lax.scan(hundred, params, batches.reshape(20, 100, 32))[1]


online, repeated = (jax.tree.map(np.asarray, train(starts, *pair)) for pair in ((much, once), (few, again)))
lowest = float(best_possible(test))
seen = 3200 * np.arange(1, 21)

# %% slideshow={"slide_type": "skip"}
for name, run, colour in (("64,000 once", online, "C0"), ("500 again and again", repeated, "C1")):
    for what, style, width in (("training loss", "--", 1.5), ("test loss", "-", 2.2)):
        plt.plot(seen, run[what].T, color=colour, ls=style, lw=0.5, alpha=0.6)
        plt.plot(seen, run[what].mean(0), color=colour, ls=style, lw=width, label=f"{name}: {what}")
plt.axhline(lowest, color="k", lw=0.8, ls=":", label="lowest possible on the test set")
plt.gca().set(xlabel="examples processed", ylabel="cross-entropy (nats)", ylim=(0, None))
plt.title("Without repeats training and test loss are the same (thin: four keys, thick: their mean)")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Training and test loss of two ways to train, four keys each. Online, the two curves lie on each other, fall slowly and stay above the lowest possible loss. With 500 examples again and again the training loss falls far below while the test loss rises." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# The online runs have no gap: each minibatch is a test before it is used for training, so there is nothing to overfit.
# Something else limits these runs. Here we know the lowest possible loss, that of a model that knows the rule (the dotted
# line). The online runs come down slowly and are still above it, on training and test examples alike: the network
# *underfits*. Only more examples or a larger model would help, and both cost more computing.
#
# The online runs are also good early. How much of the data does it take until the test error is within one percentage
# point of its final value, and stays there?

# %% slideshow={"slide_type": "skip"}
final = online["test error"][:, -5:].mean(1)  # [key]
far = online["test error"] > final[:, None] + 0.01
share = np.array([seen[np.flatnonzero(row).max(initial=-1) + 1] for row in far]) / 64_000
print("final test error, key by key:", final.round(3), " within one point of it from this share of the data on:", share)
test_excess = online["test loss"] - lowest
print(
    "test loss above the lowest possible, key by key: after 5 %",
    test_excess[:, 0].round(3),
    " last quarter",
    test_excess[:, -5:].mean(1).round(3),
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The cost of a step
#
# All this is affordable because a step of SGD costs the same for any number of training examples. The compiler counts
# the operations of a step, and of the gradient of all examples. We also print the time of a step, as a ratio to that
# with the smallest set.

# %% slideshow={"slide_type": "skip"}
SIZES = [1_000, 30_000, 1_000_000]


@jax.jit
def one_step(params, x, y, indices):
    grads = jax.grad(problem.loss)(params, (x[indices], y[indices]))
    return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads)


@jax.jit
def full_gradient(params, x, y):
    return jax.grad(problem.loss)(params, (x, y))


def count(function, *arguments):
    return function.lower(*arguments).compile().cost_analysis()["flops"]


params, indices, operations, whole, seconds = init(key), jnp.arange(32), [], [], []
for size in SIZES:
    x, y = jnp.zeros((size, 10)), jnp.zeros(size, int)
    operations.append(count(one_step, params, x, y, indices))
    whole.append(count(full_gradient, params, x, y))
    jax.block_until_ready(one_step(params, x, y, indices))
    tick = time.perf_counter()
    for _ in range(200):
        moved = one_step(params, x, y, indices)
    jax.block_until_ready(moved)
    seconds.append(time.perf_counter() - tick)
for size, step_cost, whole_cost, t in zip(SIZES, operations, whole, seconds, strict=True):
    print(
        f"{size:9,} examples: a step {step_cost:.3g} operations ({t / seconds[0]:.1f} x the time), all {whole_cost:.3g}"
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** On the first pass you descend the generalisation error, and later only the error on your sample. Repeat
# as long as the validation error falls. If you have plenty of data, do not repeat them, and spend the computing on a
# larger model.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. Where would the curve of the first figure end after very many passes?
# 2. Train on 400 examples instead of 40 in the first experiment. How does the second pass change?
# 3. Which line of the Cramér-Rao figure would a run at the constant rate 0.1 follow in the long run?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. Near 0. At the minimum of the training cost the mean gradient of the examples is zero, whatever $G$ is.
# 2. The bias is much smaller, since a step on one of 400 examples tells the parameters little about the others, and the
#    gain of the second pass is smaller too.
# 3. None: it hovers at a constant variance of about 0.05, however many examples it sees.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
assert abs(bias[0]) < 2 * standard_error[0]  # 3.3.1: unbiased on the first pass
assert 0.97 < ratio[0] < 1.03  # 3.3.1: unbiased on the first pass
assert bias[1] < -10 * standard_error[1]  # 3.3.3a: biased on passes 2 and 10
assert bias[9] < -10 * standard_error[9]  # 3.3.3a: biased on passes 2 and 10
assert ratio[9] < ratio[1] < 0.95  # 3.3.3a: and more so with each pass
gain = error[:, [0, 1]] - error[:, [1, 4]]  # of pass 2, and of passes 3 to 5
assert np.all(gain.mean(0) > 10 * gain.std(0, ddof=1) / 2000**0.5)  # 3.3.3b: with little noise they lower the error
assert len(np.unique(once)) == once.size == 64_000  # 3.3.2: in an online pass no example comes twice
gaps = {
    name: (run["test loss"] - run["training loss"])[:, -5:].mean(1)
    for name, run in (("online", online), ("repeated", repeated))
}
assert np.abs(gaps["online"]).max() < 0.03 < 0.3 < gaps["repeated"].min()  # 3.3.4: for each key, only repeats overfit
for late in (online["training excess"][:, -5:].mean(1), test_excess[:, -5:].mean(1)):
    assert late.mean() > 3 * late.std(ddof=1) / 2  # 3.3.4: the loss is above the lowest possible: it underfits
assert np.all(
    test_excess[:, -5:].mean(1) < 0.7 * test_excess[:, :3].mean(1)
)  # 3.3.4: more examples help, at their cost
assert np.ptp(operations) == 0  # 4.1.3.1a: a step costs the same for a million examples
assert whole[-1] > 900 * whole[0]  # 4.1.3.1a: a step costs the same for a million examples
assert share.max() < 0.9  # 4.1.3.1b: near its final test error before all data are seen, for each key
assert share.mean() < 0.75  # 4.1.3.1b: and on average a good part of them is not needed
assert np.allclose(variance["SGD at rate 1/k"], 1 / k, rtol=0.1)  # 4.1.3.2d: the running mean is on the bound
assert all(np.all(values > 0.9 / k) for values in variance.values())  # 4.1.3.2d: and no method is below it
worse = at_noisy_minimum - error_noisy[:, 0]
assert (
    worse.mean() > 10 * worse.std(ddof=1) / 2000**0.5
)  # 4.1.3.2e: with noise the exact minimum is worse than one pass
