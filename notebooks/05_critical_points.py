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
# # 5 · Critical points: is training stuck in a minimum?
#
# *Chapter §2.2 (the gradient norm) and §2.3.* If a training makes no progress, is a minimum to blame, or a saddle, or
# neither? You will see what the gradient norm can show and what it cannot. You will see descent leave a saddle that
# attracts Newton's method. Then you will count the critical points of random functions: the more dimensions, the fewer
# of them are minima, and those few have low values.
#
# **New in gradtx:** `gradtx.critical_point(loss, params, key=key)` says what kind of point the parameters are. It looks at
# the gradient and at the smallest and the largest eigenvalue of the Hessian.

# %% slideshow={"slide_type": "skip"}
import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)  # JAX's random numbers come from explicit keys: the same key, the same numbers

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The signs of the curvature
#
# At a *critical point* the gradient is zero. The signs of the eigenvalues of the Hessian $H$ (the matrix of second
# derivatives) decide what kind of point it is. The eigenvalues are the curvatures along the axes of $H$. If all are
# positive, the point is a minimum. If all are negative, it is a maximum. If there are both, it is a *saddle*, from which
# the function rises along some axes and falls along others. Himmelblau's function has nine critical points, and
# `jax.vmap` classifies all of them at once:

# %% slideshow={"slide_type": "skip"}
f = landscapes.himmelblau()
points = jnp.array([point for point, _ in f.critical_points])
found = jax.jit(jax.vmap(lambda x: gradtx.critical_point(f, x, key=key)))(points)
kinds = [jax.tree.map(lambda numbers, i=i: numbers[i], found).kind for i in range(len(points))]
for (x, y), kind, low, high in zip(points, kinds, found.lambda_min, found.lambda_max, strict=True):
    print(f"({x:5.2f}, {y:5.2f})  curvature from {low:6.1f} to {high:5.1f}  {kind}")

# A short way along both eigenvectors of each saddle: is it higher or lower there?
saddles = jnp.array([point for point, kind in zip(points, kinds, strict=True) if kind == "saddle"])
hessians, heights_of = jax.jit(jax.vmap(jax.hessian(f))), jax.jit(jax.vmap(jax.vmap(f)))
axes_of = np.linalg.eigh(hessians(saddles))[1]  # [saddle, 2, axis], that of the lower curvature first
moved = np.asarray(saddles)[:, None] + 0.1 * axes_of.transpose(0, 2, 1)  # [saddle, axis, 2]
rise = np.asarray(heights_of(moved) - heights_of(saddles[:, None]))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Descent escapes from saddles, Newton's method is drawn to them
#
# A double well has two minima and a saddle between them. Newton's method, $\theta \leftarrow \theta - H^{-1} g$, jumps to
# the point at which the gradient of the quadratic approximation is zero, also if that point is a saddle or a maximum.
# Saddle-free Newton divides by the absolute values of the curvatures, $|H|$, instead.

# %% slideshow={"slide_type": "skip"}
well = landscapes.double_well()
methods = {
    "gradient descent": gradtx.sgd(0.1),
    "Newton": gradtx.newton(),
    "saddle-free Newton": gradtx.newton(saddle_free=True),
}
paths = {name: lab.run(well, tx, steps=80, key=key) for name, tx in methods.items()}

# %% alt="Paths in a double well. Gradient descent approaches the saddle and then leaves it for a minimum, as does saddle-free Newton; Newton's method ends at the saddle." slideshow={"slide_type": "subslide"}
lab.plot_trajectories(well, paths, arrows=0)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Gradient descent first approaches the saddle, where it is slow, and then leaves it: the downhill direction grows
# step by step. Newton's method is at the saddle after a few steps, and stays.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the gradient norm can show
#
# If training is slow, is a critical point to blame? Then the gradient norm $\|g\|$ must be small. Here are two runs of
# one network on images of digits, with all examples at each step. One starts as usual, and the other with weights that
# are 50 times smaller. An instrument in front of the method reads the norm at each step.

# %% slideshow={"slide_type": "skip"}
digits = lab.problems.digits(hidden=8)
small = dataclasses.replace(digits, init=lambda key: jax.tree.map(lambda w: w / 50, digits.init(key)))
tx = optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.5))
runs = {
    name: lab.run(problem, tx, steps=100, key=key, batch_size="all", eval_every=50)
    for name, problem in {"usual start": digits, "small start": small}.items()
}

# %% slideshow={"slide_type": "skip"}
_, (left, right) = plt.subplots(1, 2)
for name, run in runs.items():
    left.plot(run.loss, label=name)
    right.semilogy(run.readings["gradient_norm/global"], label=name)
left.set(xlabel="optimizer step", ylabel="training loss", title="The small start waits on a plateau ...")
right.set(xlabel="optimizer step", ylabel="norm of the whole gradient", title="... on which the gradient is tiny")
left.legend()
figure = plt.gcf()
plt.close()

# %% alt="Two panels over 100 steps. Left: the loss of the usual start falls at once; that of the small start stays at 2.3 for some thirty steps. Right: the gradient norm of the small start is tiny at first and rises more than tenfold." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# The small start sits on a plateau of the loss (at $\log 10 = 2.3$, that of a blind guess), and its gradient is tiny. Is it
# near a minimum? The norm cannot say. `critical_point` looks at the curvature too. (The small start is not exactly at a
# critical point, so the tolerance is wide.)


# %% slideshow={"slide_type": "skip"}
@jax.jit
def kind_of_point(params):
    return gradtx.critical_point(lambda p: digits.loss(p, digits.train), params, key=key, gradient_tolerance=0.1)


point = kind_of_point(small.init(key))
print(point)

# %% [markdown] slideshow={"slide_type": "subslide"}
# It is near a saddle: there are negative curvatures as large as the positive ones. (If all weights are zero, the gradient
# of each layer is zero too, because it is a product with the weights of the other layer.) The network has 610 parameters,
# so $H$ has 372,100 entries. But `critical_point` only needs 20 products of $H$ with a vector, and each of them costs
# about as much as two gradients.
#
# **A small norm is no proof of a minimum.** Here are three points with the very same gradient norm of 0.001. The first
# is near a minimum, the second near a saddle, the third at the edge of a wide flat plain. Only the first is low.


# %% slideshow={"slide_type": "skip"}
def where_norm_is(landscape, inside, outside, norm=1e-3):
    """The point between two others at which the gradient has this norm, by halving the distance."""

    def halve(_, ends):
        inside, outside = ends
        middle = (inside + outside) / 2
        steep = jnp.linalg.norm(jax.grad(landscape)(middle)) > norm
        return jnp.where(steep, inside, middle), jnp.where(steep, middle, outside)

    search = jax.jit(lambda ends: jax.lax.fori_loop(0, 60, halve, ends)[0])
    return search((jnp.asarray(inside, float), jnp.asarray(outside, float)))


bowl, plain = landscapes.quadratic(4.0), landscapes.plateau()
flat_points = {
    "bowl": (bowl, where_norm_is(bowl, [0, 0], [1, 1])),
    "double well": (well, where_norm_is(well, [0, 0], [0.3, 0.3])),
    "plateau": (plain, where_norm_is(plain, [-5, 0], [1, 0])),
}
tolerances = {"gradient_tolerance": 0.01, "curvature_tolerance": 0.01}
look = {
    name: jax.jit(lambda x, g=g: gradtx.critical_point(g, x, key=key, **tolerances))(x)
    for name, (g, x) in flat_points.items()
}
above = {name: float(g(x)) - g.minimum for name, (g, x) in flat_points.items()}
for name, what in look.items():
    print(f"{name}: norm {what.gradient_norm:.4f}, {above[name]:.3f} above the lowest value, {what.kind}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Farther out on the flat plain of the third function the gradient *and* the Hessian are exactly zero. Descent that starts
# there never moves.
#
# **A large norm of a minibatch gradient proves nothing either.** Its noise does not vanish at a minimum (notebook 10).
# The first run below hovers around the minimum of a noisy bowl: the gradient that each step sees stays large, although the
# true gradient is small. The second run goes through a long valley with exact gradients. There the true gradient never
# becomes small, so no critical point is to blame, and one has to look for another reason (notebook 3).

# %% slideshow={"slide_type": "skip"}
noisy = landscapes.noisy(bowl, sigma=1.0)
norms_of = optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.02))
hover = lab.run(noisy, norms_of, steps=2000, key=key)
seen = hover.readings["gradient_norm/global"][-500:]
true = np.linalg.norm(jax.jit(jax.vmap(jax.grad(bowl)))(hover.iterates[-500:]), axis=1)
valley = landscapes.quadratic(1000.0)
slow = lab.run(valley, optax.chain(gradtx.gradient_norm(), gradtx.sgd(1.5e-3)), steps=300, key=key)
slow_norm = slow.readings["gradient_norm/global"]
at_end = jax.jit(lambda x: gradtx.critical_point(valley, x, key=key))(slow.iterates[-1])
print(f"noisy bowl: the steps see a norm of {np.median(seen):.2f}, the true one is {np.median(true):.2f}")
print(f"long valley: the true norm is never below {slow_norm.min():.2f}; {at_end}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Tossing coins
#
# In $n$ dimensions a minimum needs $n$ positive eigenvalues. If each sign were the toss of a coin, a share of $2^{-n}$
# of the critical points would be minima. We count them. Each function is a sum of 30 random waves, so it is smooth. Newton's
# method is attracted by critical points of any kind, so it finds all kinds. We start it at 1,500 places in a box, keep
# the points that it finds in the box, and count each point once. For each number of dimensions there are six functions.


# %% slideshow={"slide_type": "skip"}
def random_function(n, key):
    key_w, key_b = jax.random.split(key)
    w, b = jax.random.normal(key_w, (30, n)), jax.random.uniform(key_b, (30,), maxval=2 * jnp.pi)
    return lambda x: jnp.sum(jnp.cos(w @ x + b)) / 30**0.5


@partial(jax.jit, static_argnames=("n", "starts"))
def search(key, n, starts=1500):
    key_function, key_starts = jax.random.split(key)
    f = random_function(n, key_function)

    def from_one(x):
        def newton(_, x):
            return x - jnp.linalg.solve(jax.hessian(f)(x), jax.grad(f)(x))

        x = jax.lax.fori_loop(0, 20, newton, x)
        return x, f(x), jnp.linalg.norm(jax.grad(f)(x)), jnp.linalg.eigvalsh(jax.hessian(f)(x))

    return jax.vmap(from_one)(jax.random.uniform(key_starts, (starts, n), minval=-8, maxval=8))


def critical_points(key, n):
    """Heights [m] and Hessian eigenvalues [m, n] at the different critical points in the box."""
    x, heights, norms, curvatures = map(np.asarray, search(key, n))
    good = (norms < 1e-3) & np.all(np.abs(x) < 8, axis=1)
    _, first = np.unique(np.round(x[good], 1), axis=0, return_index=True)
    return heights[good][first], curvatures[good][first]


dims = [1, 2, 3, 4, 6]
found = {n: [critical_points(k, n) for k in jax.random.split(jax.random.key(n), 6)] for n in dims}
counts = {n: sum(len(heights) for heights, _ in sets) for n, sets in found.items()}
shares = np.array([[np.mean(np.all(curvatures > 0, axis=1)) for _, curvatures in found[n]] for n in dims])
print("different critical points:", counts)

# %% slideshow={"slide_type": "skip"}
plt.semilogy(dims, shares.mean(1), "o-", label="share of minima, counted (six functions)")
plt.semilogy(dims, np.maximum(shares, 1e-3), "o", color="C0", ms=3, alpha=0.5)
plt.semilogy(dims, [2.0**-n for n in dims], "k--", label="$2^{-n}$: fair coins")
plt.title("Each dimension about halves the share of minima among critical points: the others are saddles")
plt.gca().set(xlabel="dimensions n", ylabel="share of minima", xticks=dims)
plt.yticks([0.5, 0.2, 0.1, 0.05, 0.02, 0.01], ["50 %", "20 %", "10 %", "5 %", "2 %", "1 %"])
plt.minorticks_off()
plt.legend()
figure = plt.gcf()
plt.close()

# %% tags=["cover"] alt="Share of minima among critical points against the number of dimensions, for six random functions each. The points lie near the line two to the minus n and fall below it." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# The share of minima falls about as the coins predict: saddles outnumber minima exponentially. A network has not six
# dimensions but thousands.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Low critical points are minima
#
# But the coins are not fair: at low points a positive sign is likelier. Here are the critical points in four dimensions,
# by their height and by the number of their negative eigenvalues:

# %% slideshow={"slide_type": "skip"}
heights = np.concatenate([heights for heights, _ in found[4]])
negative = np.concatenate([np.sum(curvatures < 0, axis=1) for _, curvatures in found[4]])
by_negative = [heights[negative == count] for count in range(5)]
plt.boxplot(by_negative, positions=range(5), widths=0.6)
plt.title("The lower a critical point, the fewer ways down it has (box: middle half, line: median)")
plt.gca().set(xlabel="negative eigenvalues", ylabel="height f(x)")
figure = plt.gcf()
plt.close()

# %% alt="Box plots of the heights of critical points in four dimensions by their number of negative eigenvalues. The medians rise steadily from minima, with none, to maxima, with four." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** In many dimensions suspect saddles and plateaus rather than bad minima: nearly every high critical
# point has a way down. If the norm of the *whole* gradient stays large, no critical point is to blame. If it is small
# and the loss is not, let `gradtx.critical_point` classify the point.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. What does `critical_point` say at the origin of `landscapes.monkey_saddle`, and why is that not the whole truth?
# 2. Of 1,000 critical points in ten dimensions, how many minima would fair coins give?
# 3. Start gradient descent *exactly* at $(0, 1.5)$ in the double well. Where does it end, and would it in practice?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. "plateau": gradient and Hessian are both zero there. But three valleys begin at that point, and only the third
#    derivatives show them.
# 2. About one: $1000 / 2^{10}$.
# 3. At the saddle $(0, 0)$, since nothing pushes it sideways. In practice rounding or minibatch noise does.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
norms = {name: run.readings["gradient_norm/global"] for name, run in runs.items()}
medians = [np.median(group) for group in by_negative]

assert [kinds.count(kind) for kind in ("minimum-like", "saddle", "maximum-like")] == [4, 4, 1]  # 2.3.2: by the signs
assert np.all(rise[:, 0] < 0)  # 2.3.2: each saddle has lower and higher neighbours
assert np.all(rise[:, 1] > 0)  # 2.3.2: each saddle has lower and higher neighbours
descent = paths["gradient descent"].iterates
pace = np.linalg.norm(np.diff(descent, axis=0), axis=1)
assert pace[np.abs(descent[:-1, 0]) < 0.1].min() < 0.2 * pace.max()  # 2.3.5: gradient descent is slow near the saddle
assert well(descent[-1]) < 1e-3  # 2.3.5: and leaves it for a minimum
assert np.linalg.norm(paths["Newton"].iterates[-1]) < 1e-3  # 2.3.5: Newton's method ends at the saddle
assert well(paths["saddle-free Newton"].iterates[-1]) < 1e-3  # beyond the chapter: saddle-free Newton does not
assert point.kind == "saddle"  # beyond the chapter: the start
assert abs(runs["small start"].loss[0] - np.log(10)) < 0.02  # beyond the chapter: the start
assert norms["small start"].max() > 10 * norms["small start"][0]  # beyond the chapter: the norm grows as it gets away
small_norms = np.array([what.gradient_norm for what in look.values()])
assert np.allclose(small_norms, 1e-3, rtol=0.05)  # 2.2.4b: three points with one and the same small norm
assert [what.kind for what in look.values()] == ["minimum-like", "saddle", "plateau"]  # 2.2.4b: of three kinds
assert above["bowl"] < 1e-4  # 2.2.4b: only one of them is low
assert min(above["double well"], above["plateau"]) > 0.2  # 2.2.4b: only one of them is low
assert slow_norm.min() > 0.1  # 2.2.4a: the true norm stays large, and no such point is near
assert at_end.kind == "descending"  # 2.2.4a: the true norm stays large, and no such point is near
assert np.median(seen) > 5 * np.median(true)  # 2.2.4a: a noisy norm does not say so
assert bowl(hover.iterates[-1]) < 0.2  # 2.2.4a: a noisy norm does not say so
on_plain = jnp.array([-5.0, 0.0])
assert jnp.all(jax.grad(plain)(on_plain) == 0)  # 2.3.6: both are zero
assert jnp.all(jax.hessian(plain)(on_plain) == 0)  # 2.3.6: both are zero
assert all(
    0.2 * 2.0**-n < share < 1.5 * 2.0**-n for n, share in zip(dims, shares.mean(1), strict=True)
)  # 2.3.3: as coins
assert np.all(np.diff(shares.mean(1)) < 0)  # 2.3.3: ever fewer, with each dimension
assert min(counts.values()) > 50  # 2.3.3: ever fewer, with each dimension
assert medians == sorted(medians)  # 2.3.4: the lower, the fewer negative eigenvalues
low, high = heights < np.quantile(heights, 0.1), heights > np.quantile(heights, 0.9)
assert np.mean(negative[low] <= 1) > 2 * np.mean(negative <= 1)  # 2.3.4: low down minima, or nearly
assert np.mean(negative[high] >= 3) > 2 * np.mean(negative >= 3)  # 2.3.4: high up maxima, or nearly
