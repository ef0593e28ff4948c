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
# # 4 · Local minima: how many are there, and do they matter?
#
# *Chapter §2.2.* The cost of a network is not convex, and it has more minima than anyone can count. You will see where
# most of them come from, why these are harmless, when a local minimum does hurt, and how the harm disappears in wide
# networks.
#
# **New in gradtx:** `gradtx.critical_point(loss, params, key=key)` says what kind of point the parameters are: a
# minimum, a saddle, or a place from which descent still goes on.

# %% slideshow={"slide_type": "skip"}
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)  # JAX's random numbers come from explicit keys: the same key gives the same numbers

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Four valleys of equal depth
#
# Himmelblau's function has four minima. All of them have the height 0. The start decides which of them descent finds.
# Here it does not matter which one that is.

# %% slideshow={"slide_type": "skip"}
hills = landscapes.himmelblau()
corners = [(-5, -5), (-5, 5), (5, -5), (5, 5), (-1, -1), (0, 1), (1, -2), (-1, 0)]


def descend(landscape, starts, rate, steps):
    """The path from each start; `jax.vmap` walks all of them at once, and `jax.lax.scan` is a compiled loop."""

    def from_one(x):
        def step(x, _):
            x = x - rate * jax.grad(landscape)(x)
            return x, x

        return jnp.vstack([x, jax.lax.scan(step, x, length=steps)[1]])

    return dict(zip("ABCDEFGH", jax.jit(jax.vmap(from_one))(jnp.asarray(starts, float)), strict=False))


paths = descend(hills, corners, 0.004, 200)

# %% alt="Contours of Himmelblau's function with its four minima. Paths of plain descent from eight starts, A to H, end in four different minima." tags=["cover"] slideshow={"slide_type": "subslide"}
lab.plot_trajectories(hills, paths, arrows=0)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A network has equivalent minima by the million
#
# We train a network with 8 hidden units on the digits. (`sgd` with `momentum=0.9` is a quicker descent that notebook 11
# explains.) Then we put its hidden units into another order: each one takes its incoming weights, its bias and its
# outgoing weights along. The network computes the same function, but its parameters are another point. This is *weight
# space symmetry*. With 8 hidden units there are $8! = 40{,}320$ such points.

# %% slideshow={"slide_type": "skip"}
digits = lab.problems.digits(hidden=8)
tx, same = gradtx.sgd(1.0, momentum=0.9), {"steps": 300, "batch_size": "all", "eval_every": 300}
trained = jax.tree.map(np.asarray, lab.run(digits, tx, key=key, **same).params)
cost = jax.jit(lambda params: digits.loss(params, digits.train))


def exchanged(params, order):
    first = {"w_in": params["w_in"][:, order], "b_in": params["b_in"][order]}
    return {**first, "w_out": params["w_out"][order], "b_out": params["b_out"]}


def distance(a, b):
    return np.sqrt(sum(np.sum((np.asarray(a[name]) - np.asarray(b[name])) ** 2) for name in a))


rng = np.random.default_rng(0)
copies = [exchanged(trained, rng.permutation(8)) for _ in range(20)]
costs = np.array([cost(copy) for copy in copies])
away = np.array([distance(trained, copy) for copy in copies])
print(f"cost of the trained network {cost(trained):.6f}, of 20 permuted ones {costs.min():.6f} to {costs.max():.6f}")
print(f"they lie {away.min():.1f} to {away.max():.1f} away; the number of permutations is {math.factorial(8):,}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# On the straight line from one such point to another the cost rises. So the cost of a network is *not convex*: a convex
# function lies below the line between any two of its points.

# %% slideshow={"slide_type": "skip"}
other, mixes = copies[0], np.linspace(0, 1, 41)
between = [float(cost(jax.tree.map(lambda a, b, t=t: (1 - t) * a + t * b, trained, other))) for t in mixes]
plt.plot(mixes, between, "o-", ms=3)
plt.gca().set(xlabel="share of the way to the permuted copy", ylabel="training cost (nats)")
plt.title("Equal at both ends, higher between: the cost is not convex")
figure = plt.gcf()
plt.close()

# %% alt="The training cost on the straight line from the trained network to a permuted copy. It is low at both ends and rises to a high hump in the middle." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Scaling is a second symmetry. With rectified units, $\max(0, h)$, the incoming weights of a unit can be multiplied by
# $a > 0$ and its outgoing weights divided by $a$: the function stays the same. Here the equivalent points are not single
# points, they fill whole curves. The smallest example is the cost $\frac12 (w_1 w_2 - 1)^2$, a network of two weights.
# Its minima are all points with $w_1 w_2 = 1$; the stars mark a few of them. Along these curves the curvature is zero.

# %% alt="Contours of the cost of a network with two weights. Its minima fill two curves, and paths from five starts, A to E, end at different points of them." slideshow={"slide_type": "subslide"}
product = landscapes.scaled_product()
ends = descend(product, [(-0.6, 1.5), (2.5, 2), (-2, -0.2), (0.3, -0.2), (2, -1)], 0.05, 300)
lab.plot_trajectories(product, ends, arrows=0)

# %% slideshow={"slide_type": "skip"}
along_valley = jnp.array([(a, 1 / a) for a in (0.25, 0.5, 1.0, 2.0, 4.0)])
heights, hessians = jax.jit(jax.vmap(lambda w: (product(w), jax.hessian(product)(w))))(along_valley)
flattest = np.linalg.eigvalsh(hessians)[:, 0]


def rectified(w_in, w_out, x):
    return np.maximum(0, x @ w_in) @ w_out


w_in, w_out, x = (rng.standard_normal(shape) for shape in [(5, 7), (7, 3), (100, 5)])
scale = np.exp(rng.standard_normal(7))
same_function = np.abs(rectified(w_in, w_out, x) - rectified(w_in * scale, w_out / scale[:, None], x)).max()
print("heights along the valley", heights, "smallest curvature", flattest)
print(f"a rectified network and its scaled copy differ by {same_function:.1e}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# All these minima have one and the same cost. They are not a problem for optimisation: any of them will do.


# %% [markdown] slideshow={"slide_type": "slide"}
# ## When a local minimum hurts
#
# A local minimum is a problem if its cost is much higher than the lowest. The function of Styblinski and Tang has a
# good and a bad valley along each coordinate. In one dimension half of all starts end in the bad one. In 6 dimensions
# hardly any start finds the good valley of every coordinate.


# %% slideshow={"slide_type": "skip"}
def final_heights(dim, starts=500):
    f = landscapes.styblinski_tang(dim)

    def descend(x):
        return f(jax.lax.fori_loop(0, 300, lambda _, x: x - 0.01 * jax.grad(f)(x), x))

    where = jax.random.uniform(jax.random.fold_in(key, dim), (starts, dim), minval=-4, maxval=4)
    return np.asarray(jax.jit(jax.vmap(descend))(where)) - f.minimum


stuck = {dim: final_heights(dim) for dim in (1, 2, 6)}
for dim, above in stuck.items():
    print(f"{dim} dimensions: {np.mean(above < 0.01):.0%} of the starts end in the lowest minimum")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Are the minima of networks of that kind?
#
# Nobody has proved it in general, but we can try it. A teacher network with 4 hidden rectifiers makes the data, without
# noise, so that a cost of 0 is possible for every student. Students of 4, 8, 16 and 64 hidden units learn from two such
# teachers, from 16 random starts each. They are trained by Adam, a quick method that is close to RMSProp in notebook 12.
# Like plain descent it needs the gradient only. The rate falls to a hundredth, so that every student comes to rest.

# %% slideshow={"slide_type": "skip"}
WIDTHS = [4, 8, 16, 64]


def network(key, hidden):
    key_in, key_b, key_out = jax.random.split(key, 3)
    w, b = jax.random.normal(key_in, (2, hidden)), jax.random.normal(key_b, (hidden,))
    return {"w": w, "b": b, "v": jax.random.normal(key_out, (hidden,)) / hidden**0.5}


def output(params, x):
    return jax.nn.relu(x @ params["w"] + params["b"]) @ params["v"]


inputs = jax.random.normal(jax.random.key(10), (100, 2))


def final_costs(hidden, steps=1200):
    """[teacher, start]: the cost at which each student ends; 0.5 is the cost of a constant guess."""
    tx = gradtx.adam(gradtx.linear_decay(0.02, 0.0002, steps))

    def learn(teacher, key):
        targets = output(teacher, inputs)
        targets = (targets - targets.mean()) / targets.std()

        def cost(params):
            return 0.5 * jnp.mean((output(params, inputs) - targets) ** 2)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(cost)(params), state, params)
            return (jax.tree.map(jnp.add, params, updates), state), None

        params = network(key, hidden)
        return cost(jax.lax.scan(step, (params, tx.init(params)), length=steps)[0][0])

    keys = jax.random.split(jax.random.key(hidden), 16)
    teachers = jax.vmap(lambda seed: network(jax.random.key(seed), 4))(jnp.array([11, 12]))
    return np.asarray(jax.jit(jax.vmap(jax.vmap(learn, (None, 0)), (0, None)))(teachers, keys))


final = {hidden: final_costs(hidden).ravel() for hidden in WIDTHS}

# %% slideshow={"slide_type": "skip"}
for hidden, values in final.items():
    plt.semilogy(hidden * np.exp(0.05 * rng.standard_normal(32)), np.maximum(values, 1e-12), "o", alpha=0.5)
plt.axhline(0.01, color="k", lw=0.8, ls="--", label="2 % of the cost of a constant guess")
plt.xscale("log")
plt.xticks(WIDTHS, WIDTHS)
plt.minorticks_off()
plt.gca().set(xlabel="hidden units of the student", ylabel="final training cost")
plt.title("Some narrow students get stuck high up; all wide ones end low")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Final training cost against the width of the student network, 32 students of each width. Students with four units end at costs spread over many orders of magnitude, some of them high, while all wide students end near zero." slideshow={"slide_type": "subslide"}
figure

# %% slideshow={"slide_type": "skip"}
for hidden, values in final.items():
    print(
        f"{hidden} units: median {np.median(values):.1e}, highest {values.max():.1e}, above 0.01: {np.mean(values > 0.01):.0%}"
    )

# %% [markdown] slideshow={"slide_type": "subslide"}
# Some of the narrow students end in bad minima: they have as many units as the teacher, so a cost of 0 is possible, but
# descent does not find it. The wider the student, the rarer the bad ends. The chapter supposes that this is so for large
# networks in general: most of their minima are low. Here we see it in one small example.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Low enough is enough
#
# On the digits ten starts end at ten different points. Their costs differ, and none of them is at an exact minimum. On
# new images they are about equally good.

# %% slideshow={"slide_type": "skip"}
starts = jax.random.split(jax.random.key(7), 10)
ten = [lab.run(digits, tx, key=start, **same) for start in starts]
accuracies = np.array([run.metric[-1] for run in ten])
ending = np.array([run.train_loss[-1] for run in ten])
apart = np.array([distance(ten[0].params, run.params) for run in ten[1:]])
slope = jax.jit(lambda params: optax.tree.norm(jax.grad(cost)(params)))
norms = np.array([slope(run.params) for run in ten])
print(f"training costs {ending.min():.4f} to {ending.max():.4f}, gradient norms {norms.min():.1e} to {norms.max():.1e}")
print(f"distances from the first {apart.min():.0f} to {apart.max():.0f}")
print(f"validation accuracies {accuracies.min():.1%} to {accuracies.max():.1%}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Does the start never matter, then? A bad start does. If all weights of the same network are zero, it starts at a
# saddle: its hidden units are all equal, and they stay equal. `critical_point` looks at the gradient and at the
# curvatures there, and names the kind of point (notebook 5).

# %% slideshow={"slide_type": "skip"}
zeros = jax.tree.map(jnp.zeros_like, trained)
stuck_problem = lab.problems.classification(
    "zeros", lambda key: zeros, lambda p, x: jnp.tanh(x @ p["w_in"] + p["b_in"]) @ p["w_out"] + p["b_out"],
    digits.train, digits.validation,
)  # fmt: skip
from_zero = lab.run(stuck_problem, tx, key=key, **same)
print(f"from zero weights: training cost {from_zero.train_loss[-1]:.2f}, accuracy {from_zero.metric[-1]:.1%}")
print(jax.jit(lambda params: gradtx.critical_point(cost, params, key=key, gradient_tolerance=0.01))(from_zero.params))

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** A network has countless minima, most of them by symmetry, and those are equally good. Bad minima
# exist, but the wider the network, the rarer one meets them. You need a low enough point, not an exact minimum.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. How many points are equivalent to a network with 8 hidden tanh units, if you also count changes of sign? (Hint:
#    $\tanh(-h) = -\tanh(h)$.)
# 2. On the line between two permuted networks the cost rises. Does that prove that there is no low path between them?
# 3. Why does the network that starts at zero weights not learn, although its cost could fall?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. $8! \cdot 2^8$, about 10 million: the weights into and out of each unit may change their signs together.
# 2. No. It only shows that the straight line is not low. Curved paths of low cost often exist.
# 3. The gradient with respect to each layer's weights is zero, because it is a product with the other layer's outputs or
#    weights, and these are zero. Only the output biases move. The Hessian has negative eigenvalues, but descent needs a
#    small push to get away along them.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
found = {tuple(np.round(np.asarray(path[-1]), 2)) for path in paths.values()}
bottoms = np.array([hills(path[-1]) for path in paths.values()])
assert len(found) == 4  # 2.2.1: several minima were reached, all equally low
assert bottoms.max() < 1e-3  # 2.2.1: several minima were reached, all equally low
assert np.ptp(accuracies) < 0.05  # 2.2.1: ten ends far apart, equally good on new images
assert apart.min() > 3  # 2.2.1: ten ends far apart, equally good on new images
assert np.abs(costs - float(cost(trained))).max() < 1e-5  # 2.2.2a: other points of equal cost
assert away.min() > 3  # 2.2.2a: other points of equal cost
assert math.factorial(8) == 40_320  # beyond the chapter: the number of permutations
assert max(between) > 10 * max(between[0], between[-1])  # 2.0: between two low points the cost is high
assert same_function < 1e-5  # 2.2.2b: scaled weights, the same function
assert scale.max() / scale.min() > 3  # 2.2.2b: scaled weights, the same function
assert heights.max() < 1e-10  # 2.2.2c: a whole valley of equal minima
assert np.abs(flattest).max() < 1e-5  # 2.2.2c: a whole valley of equal minima
places = np.array([path[-1] for path in ends.values()])
assert np.abs(places[:, 0] * places[:, 1] - 1).max() < 1e-3  # 2.2.2c: reached
assert np.ptp(np.abs(places[:, 0])) > 0.2  # 2.2.2c: reached
assert 0.3 < np.mean(stuck[1] > 10) < 0.7  # 2.2.3a: half of the starts end in a minimum that is much higher
assert np.mean(stuck[6] < 0.01) < 0.1  # 2.2.3a: in six coordinates hardly any start finds the lowest one
stuck_share = {hidden: np.mean(values > 0.01) for hidden, values in final.items()}
assert stuck_share[4] > 0.1  # 2.2.3b: only narrow students get stuck
assert stuck_share[16] == stuck_share[64] == 0  # 2.2.3b: only narrow students get stuck
assert max(final[16].max(), final[64].max()) < 0.1 * final[4].max()  # 2.2.3b: the worst wide one is far below
assert norms.min() > 1e-4  # 2.2.5: good on new images, none at an exact minimum
assert accuracies.min() > 0.85  # 2.2.5: good on new images, none at an exact minimum
assert from_zero.metric[-1] < 0.2 < 0.85 < accuracies.min()  # 0.2b: the start decides whether it learns at all
