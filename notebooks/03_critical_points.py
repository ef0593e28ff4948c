# ---
# jupyter:
#   jupytext:
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

# %% [markdown]
# # 3 Critical points: is training stuck in a minimum?
#
# *Chapter §2.2 and §2.3.* You will see descent escape from a saddle that attracts Newton's method; a network that
# sits on a plateau because it started at a saddle, found out by its gradient norm; and a coin-flip experiment: of the
# critical points of random functions, ever fewer are minima as dimensions are added, and those few lie low.
#
# **New in gradtx:** functions on a point. `gradtx.critical_point(loss, params, key=key)` says what kind of point it
# is, from both ends of the Hessian's spectrum.

# %%
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)  # JAX's random numbers come from explicit keys: the same key, the same numbers

# %% [markdown]
# ## The signs of the curvature
#
# At a *critical point* the gradient is zero. What it is, the Hessian $H$ (the matrix of second derivatives) decides
# by the signs of its eigenvalues, the curvatures along its axes: all positive, a minimum; all negative, a maximum;
# both, a *saddle*, up one way and down another. Himmelblau's function has nine, and `jax.vmap` asks about all at
# once:

# %%
f = landscapes.himmelblau()
points = jnp.array([point for point, _ in f.critical_points])
found = jax.jit(jax.vmap(lambda x: gradtx.critical_point(f, x, key=key)))(points)
kinds = [jax.tree.map(lambda numbers, i=i: numbers[i], found).kind for i in range(len(points))]
for (x, y), kind, low, high in zip(points, kinds, found.lambda_min, found.lambda_max, strict=True):
    print(f"({x:5.2f}, {y:5.2f})  curvature from {low:6.1f} to {high:5.1f}  {kind}")

# %% [markdown]
# ## Descent escapes from saddles, Newton's method is drawn to them
#
# A double well has two minima and a saddle between. Newton's method jumps to where the gradient of the quadratic
# approximation is zero, $\theta \leftarrow \theta - H^{-1} g$: up *or* down, it does not care. Saddle-free Newton
# divides by the absolute curvatures $|H|$ instead.

# %%
well = landscapes.double_well()
methods = {
    "gradient descent": gradtx.sgd(0.1),
    "Newton": gradtx.newton(),
    "saddle-free Newton": gradtx.newton(saddle_free=True),
}
paths = {name: lab.run(well, tx, steps=80, key=key) for name, tx in methods.items()}
lab.plot_trajectories(well, paths, arrows=0)

# %% [markdown]
# Gradient descent first approaches the saddle, where it is slow, and then leaves it: the downhill direction grows
# step by step. Newton's method is at the saddle after a few steps, and stays.
#
# ## The gradient norm tells
#
# If training is slow, is a critical point to blame? Then the gradient norm $\|g\|$ must be small. Two runs of one
# network on images of digits: started as usual, and with all weights 50 times smaller. An instrument in front of the
# method keeps the norm at each step.

# %%
digits = lab.problems.digits(hidden=8)
small = dataclasses.replace(digits, init=lambda key: jax.tree.map(lambda w: w / 50, digits.init(key)))
tx = optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.5))
runs = {
    name: lab.run(problem, tx, steps=100, key=key, batch_size="all", eval_every=50)
    for name, problem in {"usual start": digits, "small start": small}.items()
}
lab.plot_curves(runs, smooth=1)

# %%
lab.plot_curves(runs, "gradient_norm/global", smooth=1)

# %% [markdown]
# The small start sits on a plateau of the loss (at $\log 10 = 2.3$, knowing nothing), and its gradient is tiny: a
# critical point *is* to blame. As it gets away the norm rises more than tenfold while the loss falls. The usual start
# has no such phase; had it been slow at a large norm, one would have to look elsewhere. What is near the small start?
# It is not exactly at a critical point, so the tolerance is wide:

# %%
point = gradtx.critical_point(
    lambda params: digits.loss(params, digits.train), small.init(key), key=key, gradient_tolerance=0.1
)
print(point)

# %% [markdown]
# A saddle: the curvature reaches as far below 0 as above. (With all weights zero, the gradient of each layer, a
# product with the weights of the other, is zero too.) The cost: the network has 610 parameters, so $H$ has 372,100
# entries, but `critical_point` only needs 20 products of $H$ with a vector, each as dear as about two gradients.
#
# ## Tossing coins
#
# In $n$ dimensions a minimum needs $n$ positive eigenvalues. Were each sign the toss of a coin, a share of $2^{-n}$
# of the critical points would be minima. Let us count. A sum of 50 random waves is a random smooth function; Newton's
# method, from 1,000 random starts, finds critical points of any kind, as it is drawn to all.


# %%
def random_function(n, key):
    key_w, key_b = jax.random.split(key)
    w, b = jax.random.normal(key_w, (50, n)), jax.random.uniform(key_b, (50,), maxval=2 * jnp.pi)
    return lambda x: jnp.sum(jnp.cos(w @ x + b)) / 5


def critical_points(f, n, starts=1000):
    """Heights [m] and Hessian eigenvalues [m, n] at the critical points that Newton's method found."""
    newton, gradient = gradtx.newton(), jax.grad(f)
    state = newton.init(jnp.zeros(n))

    def from_one(x):
        x = jax.lax.fori_loop(0, 25, lambda _, x: x + newton.update(gradient(x), state, x, value_fn=f)[0], x)
        return f(x), jnp.linalg.norm(gradient(x)), jnp.linalg.eigvalsh(jax.hessian(f)(x))

    heights, norms, curvatures = jax.jit(jax.vmap(from_one))(10 * jax.random.normal(key, (starts, n)))
    return heights[norms < 1e-3], curvatures[norms < 1e-3]


dims = [1, 2, 4]
found = {n: critical_points(random_function(n, jax.random.key(n)), n) for n in dims}

# %%
shares = [np.mean(np.all(curvatures > 0, axis=1)) for _, curvatures in found.values()]
plt.semilogy(dims, shares, "o-", label="share of minima, counted")
plt.semilogy(dims, [2.0**-n for n in dims], "k--", label="$2^{-n}$: fair coins")
plt.title("Each dimension about halves the share of minima among critical points: the others are saddles")
plt.gca().set(xlabel="dimensions n", ylabel="share of minima", xticks=dims)
plt.yticks([0.5, 0.2, 0.1, 0.05], ["50 %", "20 %", "10 %", "5 %"])
plt.minorticks_off()
plt.legend()
plt.show()

# %% [markdown]
# Minima become rare as the coins say: saddles outnumber them exponentially. And a network has not four dimensions but
# thousands.
#
# ## Low critical points are minima
#
# But the coins are not fair: low down, heads are likelier. The same points in four dimensions, by their height and by
# how many of their four eigenvalues are negative:

# %%
heights, curvatures = found[4]
negative = np.sum(curvatures < 0, axis=1)
by_negative = [np.asarray(heights[negative == count]) for count in range(5)]
plt.boxplot(by_negative, positions=range(5), widths=0.6)
plt.title("The lower a critical point, the fewer ways down it has (box: middle half, line: median)")
plt.gca().set(xlabel="negative eigenvalues", ylabel="height f(x)")
plt.show()

# %% [markdown]
# **To take away.** In many dimensions look for saddles and plateaus, not for bad minima: high up nearly every
# critical point has a way down. Plot the gradient norm first; where it is small and the loss is not, ask
# `gradtx.critical_point`. The claims of this page, checked:

# %%
norms = {name: run.readings["gradient_norm/global"] for name, run in runs.items()}
medians = [np.median(group) for group in by_negative]

# Himmelblau: four minima, four saddles, one maximum
assert [kinds.count(kind) for kind in ("minimum-like", "saddle", "maximum-like")] == [4, 4, 1]
# Gradient descent and saddle-free Newton reach a minimum, Newton's method the saddle
assert max(well(paths[name].iterates[-1]) for name in ("gradient descent", "saddle-free Newton")) < 1e-3
assert np.linalg.norm(paths["Newton"].iterates[-1]) < 1e-3
# The small start sits at a saddle: loss log 10, tiny gradient, which grows as it gets away
assert point.kind == "saddle"
assert abs(runs["small start"].loss[0] - np.log(10)) < 0.02
assert norms["small start"].max() > 10 * norms["small start"][0]
assert norms["usual start"][0] > 10 * norms["small start"][0]
# The share of minima falls about as the coins say
assert all(0.4 * 2.0**-n < share < 1.4 * 2.0**-n for n, share in zip(dims, shares, strict=True))
assert shares[0] > shares[1] > shares[2]
# The lower, the fewer negative eigenvalues
assert medians == sorted(medians)
