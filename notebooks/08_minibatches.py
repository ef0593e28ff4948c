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
# # 8 · Minibatches: how many examples should a step look at?
#
# *Chapter §2.6 and §3 to §3.2.* The cost is a mean over all training examples, and so is its gradient. A minibatch
# takes the mean over a few of them, which is cheaper and noisy. You will see what more examples gain, what happens
# without shuffling, what large and small batches do to speed, memory and generalisation, and why methods that use the
# Hessian need far more examples.
#
# **New in gradtx:** instruments that know the loss of each example (`gradient_tests`, `gradient_noise_scale`) read the
# noise from the minibatches that you have anyway, without the gradient of any single example.

# %% slideshow={"slide_type": "skip"}
import time
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import gradtx
from gradtx import lab

digits = lab.problems.digits(hidden=16)  # 1,437 images of handwritten digits to train on, 360 to validate
examples, labels = digits.train
key = jax.random.key(0)
params = digits.init(key)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Four times the examples for half the error
#
# The mean of $n$ independent examples has the standard error $\sigma/\sqrt n$. The gradient is such a mean. With
# $\Sigma$ the covariance of the gradients of single examples, its distance from the gradient $G$ of the whole training
# set should be
#
# $$\sqrt{\mathrm{E}\,\lVert g_n - G\rVert^2} = \frac{\sigma}{\sqrt n}, \qquad \sigma^2 = \operatorname{tr} \Sigma .$$
#
# We draw 200 minibatches of each size and measure the distance. For once we take the gradient of every single example
# (`jax.vmap` applies one function to many inputs), so that a minibatch is a random choice of rows of a table.

# %% slideshow={"slide_type": "skip"}
gradient_of_one = jax.grad(lambda params, x, y: digits.loss(params, (x[None], y[None])))


@jax.jit
def table_at(params):
    """[1437, 1210]: the gradient of each example."""
    return jax.vmap(lambda x, y: ravel_pytree(gradient_of_one(params, x, y))[0])(examples, labels)


table = np.asarray(table_at(params))
whole, random = table.mean(axis=0), np.random.default_rng(0)
sizes = [1, 4, 16, 64, 256]


def measured_error(size, rows=slice(None)):
    among = np.arange(len(table))[rows]
    drawn = random.choice(among, (200, size))
    return np.sqrt(np.mean([np.sum((table[rows].mean(0) - whole) ** 2) for rows in drawn]))


errors = np.array([measured_error(size) for size in sizes])
sigma = np.sqrt(table.var(axis=0).sum())

# %% [markdown] slideshow={"slide_type": "subslide"}
# Nobody has such a table in a real training. The instrument `gradient_tests` needs only the minibatches that pass through
# it, here of 64 examples. Like any instrument it passes the gradient on and leaves its reading in the state. One reading
# is a rough estimate, from one random direction, so we take the mean of 110. (`jax.lax.scan` is a compiled for-loop that
# keeps the result of each round.)


# %% slideshow={"slide_type": "skip"}
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
few_labels = [measured_error(size, np.asarray(labels) < 5) for size in sizes]

# %% slideshow={"slide_type": "skip"}
_, axes = plt.subplots()
axes.plot(sizes, errors, "o", ms=9, label="measured, 200 minibatches")
axes.plot(64, read, "X", ms=11, label="gradient_tests, from what passes")
axes.plot(sizes, few_labels, "s-", label="drawn from the digits 0 to 4 only: biased")
axes.plot(sizes, sigma / np.sqrt(sizes), "k", lw=1, label="σ/√n")
axes.axhline(np.linalg.norm(whole), ls="--", color="k", lw=1, label="length of the gradient itself")
axes.set(xscale="log", yscale="log", xlabel="examples n in the minibatch", ylabel="error of the gradient")
axes.set_xticks(sizes, sizes, minor=False)
axes.set_title("The error of a minibatch gradient falls as σ/√n: four times the examples for half of it")
axes.legend()
figure = plt.gcf()
plt.close()

# %% alt="Error of a minibatch gradient against the number of examples, both axes logarithmic. The measured points lie on the line sigma over root n. Minibatches of the digits 0 to 4 only level off at a constant error." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# The points lie on the line $\sigma/\sqrt n$. It crosses the dashed line at the batch size at which the noise is as long
# as the gradient itself. From 16 to 256 examples you pay 16 times as much for a quarter of the error. The green squares
# come from a *biased* sample, the digits 0 to 4 only. There more examples do not help: the error levels off.
#
# The Hessian of a minibatch is an estimate too. Here is its largest eigenvalue, from 24 minibatches of 32 and from all
# examples, at parameters that have been trained for a while.


# %% slideshow={"slide_type": "skip"}
@jax.jit
def descend(params, rate, data, batches):
    """Plain gradient descent, one step for each row of `batches` [steps, examples]."""

    def step(params, rows):
        grads = jax.grad(digits.loss)(params, jax.tree.map(lambda a: a[rows], data))
        return jax.tree.map(lambda p, g: p - rate * g, params, grads), None

    return jax.lax.scan(step, params, batches)[0]


shuffled = gradtx.shuffled_epochs(key, digits.num_examples, 32, epochs=8)
trained = descend(params, 0.5, digits.train, shuffled[:300])
flat, as_tree = ravel_pytree(trained)


@jax.jit
def largest_curvature(batch):
    """Power iteration: a vector that is multiplied by H many times turns to the eigenvector of the largest one."""
    gradient_at = jax.grad(lambda w: digits.loss(as_tree(w), batch))

    def multiply(v, _):
        product = jax.jvp(gradient_at, (flat,), (v,))[1]  # Hv, without the matrix H
        return product / jnp.linalg.norm(product), v @ product

    return jax.lax.scan(multiply, jnp.ones_like(flat) / jnp.sqrt(flat.size), length=40)[1][-1]


of_batches = np.array([largest_curvature(jax.tree.map(lambda a, i=i: a[i], digits.train)) for i in shuffled[:24]])
of_all = float(largest_curvature(digits.train))
print(f"λ_max: all examples {of_all:.1f}; minibatches of 32: mean {of_batches.mean():.1f} ± {of_batches.std():.1f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Redundant examples
#
# Many training sets are redundant: their examples resemble each other. Here is an extreme case, a set that holds 64
# copies of each of 22 images. A minibatch with one copy of each has exactly the gradient of the whole set, for a
# sixty-fourth of the work. Even random minibatches of 22 of the 1,408 examples train nearly as well.

# %% slideshow={"slide_type": "skip"}
copies = jax.tree.map(lambda a: jnp.tile(a[:22], (64,) + (1,) * (a.ndim - 1)), digits.train)
one_of_each = jax.tree.map(lambda a: a[:22], digits.train)
gradient = jax.jit(lambda p, batch: ravel_pytree(jax.grad(digits.loss)(p, batch))[0])
of_copies, of_one = gradient(params, copies), gradient(params, one_of_each)
every_row = jnp.tile(jnp.arange(1408), (200, 1))
random_rows = gradtx.shuffled_epochs(key, 1408, 22, epochs=4)[:200]
every_copy, random_22 = (
    float(digits.loss(descend(params, 0.5, copies, rows), copies)) for rows in (every_row, random_rows)
)
print(f"training loss after 200 steps: 1,408 examples per step {every_copy:.4f}, 22 per step {random_22:.4f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Not shuffling is what hurts
#
# A minibatch must be a *random* sample. Data on disk often are in some order; here we sort the images by their label,
# so that a minibatch holds a single digit. Compare three ways: read in that order; shuffled **once** and then read in
# that fixed order; shuffled again for each epoch (one pass over the data). The fourth way applies each gradient four
# steps late, which happens if parallel workers do not wait for each other.

# %% slideshow={"slide_type": "skip"}
size, epochs = 32, 8
steps_an_epoch = digits.num_examples // size
sorted_order = jnp.argsort(labels)[: steps_an_epoch * size].reshape(-1, size)
orders = {
    "sorted by label": jnp.tile(sorted_order, (epochs, 1)),
    "shuffled once": gradtx.shuffled_epochs(key, digits.num_examples, size, epochs, reshuffle=False),
    "shuffled each epoch": shuffled,
}


@partial(jax.jit, static_argnames="delay")
def accuracies(batches, delay=0):
    tx = gradtx.stale(gradtx.sgd(0.3), delay)

    def step(carry, indices):
        params, state = carry
        grads = jax.grad(digits.loss)(params, (examples[indices], labels[indices]))
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), digits.metric(params, digits.validation)

    return jax.lax.scan(step, (params, tx.init(params)), batches)[1]


curves = {name: accuracies(batches) for name, batches in orders.items()}
curves["shuffled each epoch, gradients 4 steps late"] = accuracies(shuffled, delay=4)

# %% slideshow={"slide_type": "skip"}
_, axes = plt.subplots()
for name, curve in curves.items():
    axes.plot(np.arange(1, len(curve) + 1) / steps_an_epoch, curve, label=name)
axes.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1.02))
axes.set_title("One shuffle is enough, but without any shuffle the network does not learn")
axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
figure = plt.gcf()
plt.close()

# %% alt="Validation accuracy over eight epochs. Sorted data swing between 10 and 40 percent; data shuffled once, shuffled each epoch, and with late gradients all rise above 90 percent." slideshow={"slide_type": "subslide"}
figure

# %% slideshow={"slide_type": "skip"}
sorted_rows = np.asarray(sorted_order)
error_sorted = np.sqrt(np.mean([np.sum((table[rows].mean(0) - whole) ** 2) for rows in sorted_rows]))
print(f"error of a sorted minibatch of 32: {error_sorted:.2f}, of a random one: {sigma / 32**0.5:.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Sorted, the network learns the digit that it is shown and forgets the others: the accuracy swings with each digit. The
# examples of a sorted minibatch are not independent, so the error of its gradient is much larger than $\sigma/\sqrt{32}$.
# The curves for one shuffle and for a shuffle in each epoch can hardly be told apart. Gradients that are four steps late
# make the first epochs rougher, but the accuracy gets to the same level.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Batch size and steps to a target
#
# With all examples in each step the method is called *batch* gradient descent, with one example *stochastic*, and in
# between *minibatch*. It is one method, and only the number of examples differs (the last cell checks it). How many
# examples are best? For each batch size we train with eight learning rates and three seeds, and count the steps until
# the training loss is down to 0.1, at the best learning rate of each size. `lab.sweep` trains all points of a grid.

# %% slideshow={"slide_type": "skip"}
rates, keys, target = 2.0 ** np.arange(-5, 3), jax.random.split(key, 3), 0.1
plan = {1: (3600, 60), 4: (1200, 40), 32: (300, 10), 256: (150, 5)}
sweeps = {
    size: lab.sweep(digits, gradtx.sgd, {"learning_rate": rates}, steps=n, keys=keys, batch_size=size, eval_every=every)
    for size, (n, every) in plan.items()
}

# %% alt="Left: steps to a training loss of 0.1 against the batch size; they fall with the batch size, less and less. Right: examples seen to the same loss; they grow with the batch size." tags=["cover"] slideshow={"slide_type": "subslide"}
lab.plot_batch_sizes(sweeps, target)


# %% slideshow={"slide_type": "skip"}
def steps_to_target(sweep):
    """[rate, seed]: infinite if the target was not reached."""
    reached = sweep.train_loss <= target
    return np.where(reached.any(axis=-1), sweep.eval_steps[reached.argmax(axis=-1)], np.inf)


needed = {size: steps_to_target(sweep) for size, sweep in sweeps.items()}
place = {size: int(np.median(steps, axis=1).argmin()) for size, steps in needed.items()}
steps = {size: np.median(needed[size][place[size]]) for size in sweeps}
best_rate = {size: rates[place[size]] for size in sweeps}
for size in sweeps:
    print(
        f"batch {size:3}: {steps[size]:4.0f} steps, {steps[size] * size:6.0f} examples, best rate {best_rate[size]:g}"
    )

# %% [markdown] slideshow={"slide_type": "subslide"}
# Left: on the dashed line twice the batch needs half of the steps. If the hardware computes all examples of a batch at
# the same time, such a training takes half of the time. From 1 to 4 examples the curve follows the line, but from 32 to
# 256 it saves little. Right: the same count in examples, that is in work. Small batches need the least work, but many
# steps, each at a small rate. The best rate grows with the batch.
#
# Why does a larger batch need fewer steps? Because its direction is better. We count which share of the minibatch
# gradients $g_B$ points downhill for the whole cost, $g_B \cdot G > 0$, at the parameters that were trained above:

# %% slideshow={"slide_type": "skip"}
late_table = np.asarray(table_at(trained))
late_whole = late_table.mean(0)
downhill = {}
for size in (1, 4, 16, 64, 256):
    inner = late_table @ late_whole
    downhill[size] = np.mean(inner[random.choice(len(inner), (2000, size))].mean(1) > 0)
print("share of minibatches that point downhill:", {size: f"{share:.0%}" for size, share in downhill.items()})

# %% [markdown] slideshow={"slide_type": "subslide"}
# And at equal work, are a few exact steps better than many noisy ones? Five passes over the data as 5 exact steps or as
# 220 steps of 32 (from the sweep above), each at the best of eight rates:

# %% slideshow={"slide_type": "skip"}
five_times_all = jnp.tile(jnp.arange(digits.num_examples), (5, 1))
starts = [digits.init(jax.random.split(k)[0]) for k in keys]  # as in the sweeps
exact = [
    np.mean([digits.loss(descend(start, rate, digits.train, five_times_all), digits.train) for start in starts])
    for rate in rates
]
noisy = sweeps[32].train_loss[..., list(sweeps[32].eval_steps).index(220)].mean(1)
at_equal_work = {"220 of 32": noisy.min(), "5 of all": min(exact)}
print("training loss after five passes:", {name: f"{loss:.2f}" for name, loss in at_equal_work.items()})

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Time and memory
#
# A large batch can be split: the gradient of 64 examples is the mean of the gradients of four parts of 16, and four
# devices can each compute one part. A batch that is too small leaves hardware idle. Here is the time of one gradient
# of a wider network, as a ratio to that of a single example, and the memory that the compiled gradient sets aside. All
# sizes are timed in turn, thirty times, and each ratio is taken within one round, so that all sizes see the same
# machine.


# %% slideshow={"slide_type": "skip"}
def wide(params, batch):
    x, y = batch
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(jnp.tanh(x @ params[0]) @ params[1]), y[:, None], 1))


wide_params = (jnp.ones((64, 256)) / 8, jnp.ones((256, 10)) / 16)
powers = [1, 4, 16, 64, 256, 1024]
batches = [(examples[:size], labels[:size]) for size in powers]
compiled = [jax.jit(jax.grad(wide)).lower(wide_params, batch).compile() for batch in batches]
memory = [program.memory_analysis().temp_size_in_bytes for program in compiled]


def seconds(program, batch):
    tick = time.perf_counter()
    jax.block_until_ready(program(wide_params, batch))
    return time.perf_counter() - tick


rounds = np.array([[seconds(*pair) for pair in zip(compiled, batches, strict=True)] for _ in range(31)])[1:]
times = np.quantile(rounds / rounds[:, :1], [0.25, 0.5, 0.75], axis=0)  # [quartile, size]: relative to 1 example
print("time relative to 1 example (median):", {n: f"{t:.1f}" for n, t in zip(powers, times[1], strict=True)})

# %% slideshow={"slide_type": "skip"}
_, (left, right) = plt.subplots(1, 2)
left.loglog(powers, times[1], "o-", label="measured, median and quartiles")
left.fill_between(powers, times[0], times[2], alpha=0.3)
left.loglog(powers, powers, "k--", lw=0.8, label="in proportion")
left.set(xlabel="examples", ylabel="time of a gradient / that of 1 example", title="A few examples take as long as one")
right.loglog(powers, np.array(memory) / 2**20, "o-")
right.loglog(powers, np.array(powers) * memory[-1] / powers[-1] / 2**20, "k--", lw=0.8)
right.set(xlabel="examples", ylabel="working memory (MiB)", title="Memory grows with the batch")
for axes in (left, right):
    axes.set_xticks(powers, powers)
    axes.minorticks_off()
left.legend()
figure = plt.gcf()
plt.close()

# %% alt="Left: the time of one gradient relative to one example. It grows far slower than the batch at first. Right: the memory of the gradient, which grows in proportion to the batch." slideshow={"slide_type": "subslide"}
figure

# %% slideshow={"slide_type": "skip"}
parts = jax.vmap(gradient, (None, 0))(params, jax.tree.map(lambda a: a[:64].reshape(4, 16, *a.shape[1:]), digits.train))
together = gradient(params, jax.tree.map(lambda a: a[:64], digits.train))


@jax.jit
def padded(params, batch, size):
    weight = (jnp.arange(len(batch[1])) < size) / size
    return jax.grad(lambda p: jnp.sum(weight * digits.losses(p, batch)))(params)


def in_blocks(size, block=32):
    """The gradient of the first examples, computed in whole blocks, and the operations that the compiler counts."""
    rows = -(-size // block) * block
    arguments = params, jax.tree.map(lambda a: a[:rows], digits.train), size
    program = padded.lower(*arguments).compile()
    return ravel_pytree(program(*arguments))[0], program.cost_analysis()["flops"]


blocks = {size: in_blocks(size) for size in (97, 128, 129)}
per_example = {size: operations / size for size, (_, operations) in blocks.items()}
print("operations per example:", {size: f"{value:,.0f}" for size, value in per_example.items()})

# %% [markdown] slideshow={"slide_type": "subslide"}
# Why do people choose powers of two? GPUs compute in blocks of a fixed size. The function `in_blocks` does the same in
# small: it works in blocks of 32 examples and fills the last block up with examples of weight zero. So 97 examples cost
# as many operations as 128, and 129 cost as many as 160. Per example, 128 are the cheapest of the three. The filling
# changes nothing in the gradient: the preferred size is a matter of speed only.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Do large batches generalise worse?
#
# On the digits they do not. When the training loss has come down to 0.1, at the best rate of each batch size, this is
# the accuracy on new images:

# %% slideshow={"slide_type": "skip"}
at_target = {}
for size, sweep in sweeps.items():
    reached = sweep.train_loss[place[size]] <= target  # [seed, evaluation]
    first = np.where(reached.any(1), reached.argmax(1), -1)
    at_target[size] = sweep.metric[place[size]][np.arange(3), first]
    print(
        f"batch {size:3}: {at_target[size].mean():.1%}, from {at_target[size].min():.1%} to {at_target[size].max():.1%}"
    )

# %% [markdown] slideshow={"slide_type": "subslide"}
# But there are problems on which they do. The network below has two weights for each of 100 inputs and predicts
# $\sum_i (u_i^2 - v_i^2)\,x_i$. There are 40 examples, so very many parameters fit them perfectly; the truth uses 5
# inputs only. Each batch size makes 10,000 steps at each of six rates, from eight seeds. We measure the error on fresh
# examples (it is known exactly) and the trace of the Hessian at the end, a measure of how sharp the minimum is.

# %% slideshow={"slide_type": "skip"}
EXAMPLES, INPUTS, SEEDS = 40, 100, 8
RATES = 0.2 * 2.0 ** -np.arange(6)[::-1]
true_weights = jnp.zeros(INPUTS).at[:5].set(1.0)


def cost(w, x, y):
    return 0.5 * jnp.mean((x @ (w[0] ** 2 - w[1] ** 2) - y) ** 2)


@partial(jax.jit, static_argnames="size")
def ends(inputs, size):
    """[rate, seed, 2, 100]: the weights after 10,000 steps."""

    def one(rate, x, key):
        y = x @ true_weights

        def step(w, key):
            i = jax.random.randint(key, (size,), 0, EXAMPLES) if size < EXAMPLES else jnp.arange(EXAMPLES)
            return w - rate * jax.grad(cost)(w, x[i], y[i]), None

        return jax.lax.scan(step, jnp.full((2, INPUTS), 0.1), jax.random.split(key, 10_000))[0]

    keys = jax.random.split(jax.random.key(6), SEEDS)
    return jax.vmap(jax.vmap(one, (None, 0, 0)), (0, None, None))(jnp.asarray(RATES), inputs, keys)


@jax.jit
@partial(jnp.vectorize, signature="(2,n),(m,n)->(),(),()")
def measured(w, x):
    """Error on fresh examples, training loss, and trace of the Hessian."""
    y = x @ true_weights
    hessian = jax.hessian(lambda flat: cost(flat.reshape(2, -1), x, y))(w.ravel())
    return 0.5 * jnp.sum((w[0] ** 2 - w[1] ** 2 - true_weights) ** 2), cost(w, x, y), jnp.trace(hessian)


BATCHES = [1, 4, EXAMPLES]
inputs_of_seeds = jax.random.normal(jax.random.key(5), (SEEDS, EXAMPLES, INPUTS))
error, loss, sharp = {}, {}, {}
for size in BATCHES:
    error[size], loss[size], sharp[size] = map(np.asarray, measured(ends(inputs_of_seeds, size), inputs_of_seeds))

# %% slideshow={"slide_type": "skip"}
_, (left, right) = plt.subplots(1, 2)
for size in BATCHES:
    for axes, values in ((left, error[size]), (right, sharp[size])):
        mean, spread = values.mean(1), values.std(1, ddof=1) / SEEDS**0.5
        axes.errorbar(RATES, mean, 2 * spread, fmt="o-", capsize=3, label=f"batch {size}")
left.set(
    xscale="log", xlabel="learning rate", ylabel="error on fresh examples", title="Noise leads to better minima ..."
)
right.set(xscale="log", xlabel="learning rate", ylabel="trace of the Hessian", title="... which are flatter")
left.legend()
figure = plt.gcf()
plt.close()

# %% alt="Two panels against the learning rate, one line for each batch size. Left: the error on fresh examples falls with the rate for batch size 1 and 4, and stays high for all 40 examples. Right: the trace of the Hessian behaves the same way." slideshow={"slide_type": "subslide"}
figure

# %% slideshow={"slide_type": "skip"}
best = {size: int(np.nanargmin(error[size].mean(1))) for size in BATCHES}
found = {size: error[size][best[size]] for size in BATCHES}
for size in BATCHES:
    print(
        f"batch {size:2}: best rate {RATES[best[size]]:.3f}, error {found[size].mean():.2f} ± "
        f"{found[size].std(ddof=1) / SEEDS**0.5:.2f}, training loss {loss[size][best[size]].max():.1e}"
    )

# %% [markdown] slideshow={"slide_type": "subslide"}
# (The bars are two standard errors. Most of their length comes from the differences between the eight data sets; the last
# cell compares the batch sizes on each data set. A line ends at the highest rate at which training does not diverge.)
#
# All of them fit the 40 examples perfectly. The exact gradient ends in a sharp and poor minimum at every rate, and its
# error hardly depends on the rate. Noise drives the parameters on to flatter and better minima, the more so the higher
# the rate and the smaller the batch. With a batch of 4 a higher rate makes up for some of the missing noise. Batch size
# 1 is best here, and it makes no difference on the digits. So noise *can* regularise, but whether it does depends on
# the problem.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why methods with the Hessian need more
#
# Newton's method multiplies the gradient by $H^{-1}$, and in an ill-conditioned problem that amplifies its error. Here is
# a linear regression with 20 inputs, condition number 10,000 and 100,000 examples. We compare the gradient and the
# Newton step of a minibatch with those of all examples.

# %% slideshow={"slide_type": "skip"}
curvatures = np.geomspace(1, 1e-4, 20)
inputs = random.standard_normal((100_000, 20)) * np.sqrt(curvatures)
offset = np.ones(20)  # where the parameters are, seen from the truth
residuals = inputs @ offset + random.standard_normal(100_000)


def steps_of(rows):
    g, hessian = inputs[rows].T @ residuals[rows] / len(rows), inputs[rows].T @ inputs[rows] / len(rows)
    return g, np.linalg.solve(hessian, g)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


exact_g, exact_step = steps_of(np.arange(100_000))
many = [30, 100, 300, 1000, 3000, 10_000, 30_000]
draws = {size: [steps_of(random.integers(0, 100_000, size)) for _ in range(20)] for size in many}
off = {
    "gradient": np.array([np.mean([relative(g, exact_g) for g, _ in draws[size]]) for size in many]),
    "Newton step": np.array([np.mean([relative(step, exact_step) for _, step in draws[size]]) for size in many]),
}
enough = {name: many[int(np.argmax(values < 0.5))] for name, values in off.items()}

amplified = {}
for condition in (1, 10, 100, 1000, 10_000):
    h = np.geomspace(1, 1 / condition, 20)
    noise = random.standard_normal((200, 20))
    noise *= 0.01 * np.linalg.norm(h * offset) / np.linalg.norm(noise, axis=1, keepdims=True)  # 1 % of g
    amplified[condition] = np.mean([relative((h * offset + n) / h, offset) for n in noise]) / 0.01

# %% slideshow={"slide_type": "skip"}
_, (left, right) = plt.subplots(1, 2)
for name, values in off.items():
    left.loglog(many, values, "o-", label=name)
left.axhline(0.5, color="k", ls="--", lw=0.8)
left.set(xlabel="examples in the minibatch", ylabel="relative error", title="The Newton step needs far more examples")
left.legend()
right.loglog(list(amplified), list(amplified.values()), "o-")
right.set(
    xlabel="condition number of H", ylabel="error of H⁻¹g / error of g", title="An ill-conditioned H amplifies errors"
)
figure = plt.gcf()
plt.close()

# %% alt="Left: relative error of a minibatch gradient and of a minibatch Newton step against the batch size. Both fall; the Newton step needs over a hundred times more examples for the same error. Right: how much the inverse Hessian amplifies an error of the gradient grows with the condition number." slideshow={"slide_type": "subslide"}
figure

# %% slideshow={"slide_type": "subslide"}
print("examples for a relative error below one half:", enough)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The noise scale: how large is large enough?
#
# The first figure suggests a measure. If the noise of a minibatch gradient is longer than the gradient itself, more
# examples are worth their cost. If it is shorter, they are wasted. Both have the same length at a batch of
#
# $$B_\text{noise} = \frac{\operatorname{tr} \Sigma}{\lVert G \rVert^2} ,$$
#
# the *gradient noise scale*. The instrument reads it while you train, from the minibatches that pass.

# %% alt="The gradient noise scale over 400 steps. It starts at a few dozen examples and grows to several hundred." slideshow={"slide_type": "subslide"}
history = lab.run(
    digits, optax.chain(gradtx.gradient_noise_scale(), gradtx.sgd(0.5)), steps=400, key=key, batch_size=32
)
lab.plot_curves(history, "gradient_noise_scale/noise_scale")

# %% slideshow={"slide_type": "skip"}
scale = history.readings["gradient_noise_scale/noise_scale"]
early, late = np.median(scale[:100]), np.median(scale[-100:])
print(f"noise scale: {early:.0f} examples in the first 100 steps, {late:.0f} in the last 100")

# %% [markdown] slideshow={"slide_type": "subslide"}
# In the first 100 steps the noise scale is a few dozen examples. As the loss falls, the gradient gets shorter, and its
# noise shrinks less. So the noise scale grows, and late in training larger batches are worth their cost.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A batch that grows
#
# So start small and grow (chapter §4.1.3). In a linear regression on 353 patients we know the lowest loss there is. The
# learning rate stays the same throughout; `growing_batch_sizes` is a schedule that `lab.run` takes.

# %% slideshow={"slide_type": "skip"}
patients, tx, growing = lab.problems.diabetes(), gradtx.sgd(0.1), gradtx.growing_batch_sizes(4, 256, every=60, factor=8)
same = {"key": key, "eval_every": 10}
runs = {
    "4 throughout": lab.run(patients, tx, steps=600, batch_size=4, **same),
    "256 throughout": lab.run(patients, tx, steps=200, batch_size=256, **same),
    "growing from 4 to 256": lab.run(patients, tx, steps=200, batch_size_schedule=growing, **same),
}
print("batch sizes of the growing run:", growing.sizes)

# %% slideshow={"slide_type": "skip"}
_, axes = plt.subplots()
for name, run in runs.items():
    seen = np.concatenate([[0], np.cumsum(run.batch_sizes)])[run.eval_steps]
    axes.plot(seen[1:], (run.train_loss - patients.optimum)[1:], "o-", ms=3, label=name)
axes.set(xscale="log", yscale="log", xlabel="examples seen", ylabel="training loss above its minimum")
axes.set_title("Small batches start cheaply and then hover; growing ones go on")
axes.legend()
figure = plt.gcf()
plt.close()

# %% alt="Training loss above its minimum against examples seen. The small batch falls first and hovers, the large one falls late and far, the growing one does both." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# The loss of the small batch falls first and then hovers at the height that its noise allows. That of the large batch
# falls far lower, for far more examples. The growing batch starts like the small one and ends like the large one, for
# less than half of the examples of the large one.

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** Twice the batch is twice the work, and the error of its gradient is 30 % smaller. Shuffle, take some
# dozens of examples, raise the rate with the batch, and watch the noise scale. Methods that use the Hessian need a
# hundred times as many examples.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. How many examples halve the error of a minibatch gradient of 25?
# 2. In the figure of the steps to a target: which batch size would you choose if eight devices could each take 32
#    examples?
# 3. Repeat the experiment with late gradients for a delay of 16. What happens, and which rate helps?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. 100: the error falls as $1/\sqrt n$.
# 2. 256, if time counts: eight devices then need the time of 32 examples, and steps to the target still fall. If only
#    the total work counts, a smaller one.
# 3. Training becomes unstable: a late gradient acts like momentum. A rate of about a quarter brings it back.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
losses = digits.losses(params, digits.train)
assert jnp.isclose(digits.loss(params, digits.train) * 1437, jnp.sum(losses), rtol=1e-5)  # 3.0.1: a sum over examples
assert np.allclose(whole, gradient(params, digits.train), atol=1e-5)  # 3.0.2: the gradient is the mean of the table
assert np.allclose(errors, sigma / np.sqrt(sizes), rtol=0.15)  # 3.0.2, 3.0.3a, 2.6.1a: estimated, with the error σ/√n
assert np.isclose(read, sigma / 8, rtol=0.3)  # beyond the chapter: the instrument reads it from what passes
assert few_labels[-1] > 0.5 * few_labels[1]  # 2.6.1c: a bias does not average out
assert few_labels[-1] > 4 * errors[-1]  # 2.6.1c: a bias does not average out
assert of_batches.std() > 0.1 * of_all  # 2.6.1b: the largest curvature of a minibatch scatters
assert np.mean(of_batches > of_all) > 0.8  # 2.6.1b, 2.6.1c: and most minibatches overestimate it
assert jnp.allclose(of_copies, of_one, atol=1e-5)  # 3.0.3c: one copy of each image has the gradient of all 64
assert random_22 < 1.2 * every_copy  # 3.0.3c: random minibatches train as far, for a 64th of the work
assert at_equal_work["220 of 32"] < 0.5 * at_equal_work["5 of all"]  # 3.0.3b: many quick steps beat a few exact ones
assert {int(run.batch_sizes[0]) for run in runs.values()} == {4, 256}  # beyond the chapter: the sizes that were used
method = gradtx.sgd(0.5)
for size in (1, 64, 1437):
    rows = random.permutation(1437)[:size]
    g = gradient(params, jax.tree.map(lambda a, rows=rows: a[rows], digits.train))
    step = method.update(g, method.init(g))[0]
    assert np.allclose(step, -0.5 * table[rows].mean(0), atol=1e-5)  # 3.0.4: one rule, for one, some or all examples
assert all(np.isfinite(steps[size]) for size in plan)  # 3.0.4: and it trains with each of these numbers
assert steps[1] > steps[4] > steps[32] > steps[256]  # 3.1.1a: a larger batch needs fewer steps
assert steps[1] < 64 * steps[256]  # 3.0.3a: but 256 times the batch saves far less than 255 of 256 steps
shares = list(downhill.values())
assert shares == sorted(shares)  # 3.1.1b: more often downhill for all
assert shares[0] < 0.8 < 0.95 < shares[-1]  # 3.1.1b: of single examples, more than one in five points uphill
assert jnp.allclose(parts.mean(0), together, atol=1e-6)  # 3.1.1c: the mean of the parts is the gradient of the batch
assert best_rate[1] < best_rate[4] < best_rate[32] <= best_rate[256]  # 3.1.1e: larger batches take larger rates
assert all(0 < at < len(rates) - 1 for at in place.values())  # 3.1.1e: none of them at an edge of the grid
slower = dict(zip(powers, times[1], strict=True))
assert slower[4] < 2  # 3.1.1f: 1 example saves hardly any time compared with 4
assert slower[64] < 16  # 3.1.1f: and per example it takes more than four times as long as 64 together
assert 3 < memory[-1] / memory[-2] < 5  # 3.1.1g: four times the batch, about four times the memory
assert blocks[97][1] == blocks[128][1] < blocks[129][1]  # 3.1.1h: in blocks of 32, 97 examples cost as much as 128
assert per_example[128] < min(per_example[97], per_example[129])  # 3.1.1h: so whole blocks are the cheapest
assert all(np.allclose(g, table[:size].mean(0), atol=1e-5) for size, (g, _) in blocks.items())  # 3.1.1h: same result
assert (
    np.ptp([accuracy.mean() for accuracy in at_target.values()]) < 0.03
)  # beyond the chapter: on digits no difference
gained = found[EXAMPLES] - found[1]  # seed by seed: the same 40 examples for both
assert gained.mean() > 3 * gained.std(ddof=1) / SEEDS**0.5  # 3.0.5: here the noise of single examples regularises
assert found[1].mean() < found[4].mean() < found[EXAMPLES].mean()  # 3.1.2a, 3.1.1d: best at 1, worst with all
flat, sharpest = sharp[1][best[1]], sharp[EXAMPLES][best[EXAMPLES]]
assert np.all(flat < sharpest)  # 3.1.1d: for every seed the large batch ends sharper
assert loss[EXAMPLES].max() < 1e-3  # 3.1.1d: for every seed the large batch ends sharper
assert error[4][4].mean() < error[4][0].mean() - 0.05  # 3.1.1e: a higher rate makes up for missing noise
assert best_rate[1] < 0.2 * best_rate[32]  # 3.1.2b: batch size 1: small rate, many steps
assert steps[1] > 10 * steps[32]  # 3.1.2b: batch size 1: small rate, many steps
assert off["Newton step"][1] > 5 * off["gradient"][1]  # 3.1.3: of the same 100 examples, Newton's method amplifies
assert enough["gradient"] <= 100  # 3.1.4a: about 100 against thousands
assert enough["Newton step"] >= 3000  # 3.1.4a: about 100 against thousands
assert amplified[10_000] > 30 * amplified[100] > 30 * amplified[1]  # 3.1.4b: in proportion to the condition number
assert error_sorted > 3 * sigma / 32**0.5  # 3.2.1: examples that are not independent: a much larger error
last = {name: float(jnp.mean(curve[-steps_an_epoch:])) for name, curve in curves.items()}
assert last["sorted by label"] < 0.5  # 3.2.2: not shuffling is what hurts
assert last["shuffled once"] > 0.9  # 3.2.2: not shuffling is what hurts
assert abs(last["shuffled once"] - last["shuffled each epoch"]) < 0.03  # 3.2.2: one shuffle is enough
assert last["shuffled each epoch, gradients 4 steps late"] > 0.9  # 3.2.3: late gradients train too
assert 10 < early < 120  # beyond the chapter: the noise scale starts small and grows
assert late > 1.5 * early  # beyond the chapter: the noise scale starts small and grows
excess = {name: np.median(run.train_loss[-5:]) - patients.optimum for name, run in runs.items()}
assert excess["4 throughout"] > 10 * excess["growing from 4 to 256"]  # 4.1.3.3: it goes where small batches do not
assert excess["growing from 4 to 256"] < 2 * excess["256 throughout"]  # 4.1.3.3: nearly as far as the large one
assert (
    runs["growing from 4 to 256"].batch_sizes.sum() < 0.6 * runs["256 throughout"].batch_sizes.sum()
)  # 4.1.3.3: cheaper
