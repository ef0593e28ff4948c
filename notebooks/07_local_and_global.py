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
# # 7 · Local and global: does going downhill lead to a good place?
#
# *Chapter §2.7.* Suppose that a method copes with saddles, cliffs and narrow valleys. It still only looks at the
# neighbourhood of its current point. You will see descent that goes downhill all the time and ends in the wrong place,
# costs that have no minimum at all, and paths that are very long. You will also see a remedy, which is a better start.
#
# **New in gradtx:** a *landscape* is a function of a few parameters with known facts: its lowest value, its critical
# points, and a start from which it shows its difficulty. `lab.run` minimises it like any problem.

# %% slideshow={"slide_type": "skip"}
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)  # JAX's random numbers come from explicit keys: the same key gives the same numbers

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Locally excellent, globally poor
#
# Rastrigin's function is a bowl covered with local minima. Locally, descent does everything right: it arrives at a point
# of zero gradient and positive curvature. But from 500 random starts it hardly ever ends at the lowest point.

# %% slideshow={"slide_type": "skip"}
bumps = landscapes.rastrigin()
starts = jax.random.uniform(key, (500, 2), minval=-4, maxval=4)


def descend(f, x, rate, steps):
    return jax.lax.fori_loop(0, steps, lambda _, x: x - rate * jax.grad(f)(x), x)


ends = jax.jit(jax.vmap(lambda x: descend(bumps, x, 0.002, 1000)))(starts)
facts = jax.jit(jax.vmap(lambda x: (bumps(x), jax.grad(bumps)(x), jax.hessian(bumps)(x))))(ends)
heights, gradients, hessians = map(np.asarray, facts)
slopes, curvatures = np.linalg.norm(gradients, axis=1), np.linalg.eigvalsh(hessians)

# %% alt="Histogram of the heights at which 500 descents on Rastrigin's function end. They spread from 0 to 40, and only a few are at the lowest height 0." slideshow={"slide_type": "subslide"}
plt.hist(heights, bins=np.arange(-0.5, 42, 1))
plt.gca().set(xlabel="height at the end (the lowest possible is 0)", ylabel="descents")
plt.title("All 500 descents end in a minimum, and nearly all in a poor one")
plt.show()

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The wrong side of a hill
#
# The next function has one minimum, at the star, and no other local minimum. The start lies to the left of a hill. From
# there the way down always leads to the left: the function approaches 0, its asymptote, and never reaches it. Momentum
# and Adam (notebooks 11 and 13) go the same way, only faster. A start 1.5 farther to the right solves the problem for all
# three methods.

# %% slideshow={"slide_type": "skip"}
hill = landscapes.asymptote_hill()
right = replace(hill, start=[-0.2, 2.0])
methods = {"SGD": gradtx.sgd(0.1), "momentum 0.9": gradtx.sgd(0.1, momentum=0.9), "Adam": gradtx.adam(0.1)}
wrong_side = {name: lab.run(hill, tx, steps=1000, key=key) for name, tx in methods.items()}
right_side = {name: lab.run(right, tx, steps=1000, key=key) for name, tx in methods.items()}
fastest = lab.run(hill, gradtx.sgd(0.3, momentum=0.95), steps=1000, key=key)

# %% alt="Contours of a function with a hill. From the left side of the hill three paths run to the left and out of the picture; from a start on the right side a path leads to the minimum." tags=["cover"] slideshow={"slide_type": "subslide"}
shown = {f"{name} from the left": run for name, run in wrong_side.items()}
lab.plot_trajectories(hill, shown | {"SGD from the right": right_side["SGD"]}, arrows=6)

# %% slideshow={"slide_type": "skip"}
for where, runs in (("left start", wrong_side), ("right start", right_side)):
    print(f"{where}:", "; ".join(f"{name} at θ₁ = {run.iterates[-1][0]:.1f}" for name, run in runs.items()))

# %% [markdown] slideshow={"slide_type": "subslide"}
# Another method does not help here, but another start does. That is why the start matters so much in training. One can
# choose the scale of the weights, or begin with weights that were trained on another task. The same happens in a real
# network. If its weights start 100 times too large, its tanh units are saturated: their slopes are nearly zero. None of
# the rates that we try makes up for that.


# %% slideshow={"slide_type": "skip"}
digits = lab.problems.digits(hidden=16)
large = replace(digits, init=lambda key: jax.tree.map(lambda w: 100 * w, digits.init(key)))
grid = {"learning_rate": [0.01, 0.1, 0.3, 1.0, 3.0]}
keys = jax.random.split(key, 3)
same = {"steps": 300, "keys": keys, "eval_every": 300}
usual, saturated = (lab.sweep(p, gradtx.sgd, grid, **same).final("metric").mean(1) for p in (digits, large))
adaptive = lab.sweep(large, gradtx.adam, {"learning_rate": [0.001, 0.01, 0.1, 1.0]}, **same).final("metric").mean(1)
print("usual start, SGD:", usual, "\nlarge start, SGD:", saturated, "\nlarge start, Adam:", adaptive)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A loss without a minimum
#
# Must there be a critical point at all? Take logistic regression on two classes that a line separates. Longer weights
# always give a lower loss, so the loss has no minimum. It tends to 0 while the weights keep growing, like the logarithm
# of the number of steps.

# %% slideshow={"slide_type": "skip"}
x = jax.random.normal(key, (100, 2)) * 0.5 + jnp.where(jnp.arange(100)[:, None] < 50, 1.5, -1.5)
sign = jnp.where(jnp.arange(100) < 50, 1.0, -1.0)


def logistic(w):
    return jnp.mean(jax.nn.softplus(-sign * (x @ w)))


@jax.jit
def separate(w):
    def step(w, _):
        w = w - 0.5 * jax.grad(logistic)(w)
        return w, (logistic(w), jnp.linalg.norm(w), jnp.linalg.norm(jax.grad(logistic)(w)))

    return jax.lax.scan(step, w, length=100_000)[1]


loss, length, slope = (np.asarray(a) for a in separate(jnp.zeros(2)))
k = np.arange(1, 100_001)

# %% slideshow={"slide_type": "skip"}
_, (left, middle) = plt.subplots(1, 2)
left.loglog(k, loss)
left.set(xlabel="optimizer step", ylabel="loss", title="The loss tends to 0 and never reaches it")
middle.semilogx(k, length)
middle.set(xlabel="optimizer step", ylabel="length of the weights", title="The weights grow without end")
figure = plt.gcf()
plt.close()

# %% alt="Two curves over a hundred thousand steps. The loss of logistic regression on separable data falls as a power of the steps, while the length of the weights keeps growing with the logarithm of the steps." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# The gradient gets small, although no critical point is near. A method that runs until it reaches one never ends.


# %% [markdown] slideshow={"slide_type": "slide"}
# ## A path that is very long
#
# In Rosenbrock's valley a descent path leads to the minimum. The valley bends and is narrow, so the path takes thousands
# of steps, although start and minimum are only 2.2 apart. In a spiral valley the path is many times as long as the
# straight way.


# %% slideshow={"slide_type": "skip"}
def spiral(theta):
    """A valley whose floor winds 3 times around the origin, and falls towards the inside."""
    radius = jnp.sqrt(jnp.sum(theta**2) + 1e-6)
    phase = 2 * jnp.pi * radius - jnp.arctan2(theta[1], theta[0])
    return 0.5 * radius + 0.5 * (1 - jnp.cos(phase)) * jnp.minimum(radius, 1)


def walk(f, start, rate, steps, every):
    def some(x, _):
        return jax.lax.fori_loop(0, every, lambda _, x: x - rate * jax.grad(f)(x), x), x

    end, path = jax.jit(lambda x: jax.lax.scan(some, x, length=steps // every))(jnp.asarray(start))
    return np.vstack([path, end])


winding = walk(spiral, [3.0, 0.0], 0.05, 20_000, 10)
valley = landscapes.rosenbrock()
bent = walk(valley, valley.start, 0.0015, 20_000, 1)


def path_over_distance(path, goal):
    gone = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    return gone / np.linalg.norm(path[0] - goal)


ratios = {"spiral": path_over_distance(winding, [0, 0]), "Rosenbrock": path_over_distance(bent, [1, 1])}
steps_needed = int(np.argmax(np.array(jax.vmap(valley)(jnp.asarray(bent))) < 1e-4))
print("length of the path over the distance:", {name: f"{ratio:.1f}" for name, ratio in ratios.items()})
print(f"Rosenbrock: {steps_needed} steps to a height of 1e-4")

# %% slideshow={"slide_type": "skip"}
grid_x, grid_y = np.meshgrid(np.linspace(-3.3, 3.3, 200), np.linspace(-3.3, 3.3, 200))
values = jax.vmap(spiral)(jnp.stack([grid_x.ravel(), grid_y.ravel()], 1)).reshape(grid_x.shape)
figure, axes = plt.subplots(figsize=(5.2, 4.6))
axes.contourf(grid_x, grid_y, values, levels=20, cmap="Greys", alpha=0.5)
axes.plot(*winding.T, color="C0", lw=2, label="path of descent")
axes.plot([3, 0], [0, 0], color="C1", ls="--", label="straight way")
axes.set(xlabel="θ₁", ylabel="θ₂", title=f"The path is {ratios['spiral']:.0f} times as long as the distance")
axes.legend(loc="lower left")
plt.close()

# %% alt="Contours of a spiral valley. The path of descent winds around the origin three times before it arrives at the centre, whereas the straight way is short." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Greedy: downhill, and away from the goal
#
# Descent takes the way that is steepest at its current point. In the double well below, the left valley is deeper. But the
# start 0.25 lies a little to the right of the top, so descent goes to the right. It loses height at every step, and it
# gets ever farther from the solution.


# %% slideshow={"slide_type": "subslide"}
def two_valleys(theta):
    return 0.25 * theta[0] ** 4 - 0.5 * theta[0] ** 2 + 0.15 * theta[0]


greedy = walk(two_valleys, [0.25], 0.05, 300, 1)
other = walk(two_valleys, [0.1], 0.05, 300, 1)
best = float(np.roots([1, 0, -1, 0.15]).real.min())
away = np.abs(greedy[:, 0] - best)
falls = np.diff([two_valleys(theta) for theta in greedy])

# %% slideshow={"slide_type": "skip"}
line = np.linspace(-1.5, 1.4, 300)
plt.plot(line, two_valleys(line[None]), "k", lw=1)
for path, label, colour in ((greedy, "start 0.25", "C1"), (other, "start 0.1", "C0")):
    plt.plot(path[:, 0], two_valleys(path.T), "o", ms=4, color=colour, label=label)
plt.plot(best, two_valleys([best]), "k*", ms=14, label="lowest point")
plt.gca().set(xlabel="θ", ylabel="cost", title="Downhill at every step, and away from the lowest point")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="A curve with a shallow valley on the right and a deeper one on the left. From a start a little right of the hump, descent rolls into the shallow one; from a start left of it, into the deep one." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** Going downhill is a local rule, and it can lead to a poor minimum, along an asymptote, or along a very
# long path. A better update rule seldom repairs that. A better start often does.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. From which starts $(\theta_1, 2)$ does descent (SGD at rate 0.1) find the minimum of `asymptote_hill`? Find the
#    border between left and right to one digit.
# 2. Does momentum 0.99 at rate 0.1 carry the ball over the hill from the left start? Try it.
# 3. In the logistic regression, what changes if you add the penalty $0.001\,\lVert w\rVert^2$ to the loss?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. From starts with $\theta_1 > -1$. The saddle between both sides is at $\theta_1 = -1$, and from starts to its left
#    descent goes to the left.
# 2. No. The ball starts at rest and rolls to the left, away from the hill. Momentum only carries a ball over a hill
#    towards which it already rolls.
# 3. The loss then has a minimum at finite weights, and descent converges to it: the length of the weights stops growing
#    at about 2.95 after a few thousand steps.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
assert slopes.max() < 1e-3  # 2.7.1: all 500 descents end in a local minimum
assert curvatures.min() > 0  # 2.7.1: all 500 descents end in a local minimum
assert np.mean(heights > 0.9) > 0.9  # 2.7.1: and more than nine in ten of them far above the lowest, 0
assert np.all(np.diff(loss[::1000]) < 0)  # 2.7.2: the loss falls towards the limit 0 without end
assert loss[-1] < 1e-4  # 2.7.2: the loss falls towards the limit 0 without end
assert length[-1] > length[9_999] + 0.1 > length[999] + 0.2  # 2.7.2: the weights keep growing, no minimum is near
assert all(
    run.iterates[-1][0] < -4 and run.metric[-1] > -0.1 for run in wrong_side.values()
)  # 2.7.3: away, without end
assert fastest.iterates[-1][0] < -4  # 2.7.3: more momentum only takes it farther
assert all(run.metric[-1] < -1.99 for run in right_side.values())  # 2.7.5: from the right side descent arrives
assert max(saturated.max(), adaptive.max()) < usual.max() - 0.1  # 2.7.6: the start repairs what no tried rate does
assert ratios["spiral"] > 5  # 2.7.4a: it arrives, by a path five times as long
assert np.linalg.norm(winding[-1]) < 0.2  # 2.7.4a: it arrives, by a path five times as long
assert steps_needed > 2_000  # 2.7.4a: thousands of steps in Rosenbrock's valley
assert np.all(falls < 1e-7)  # 2.7.4b: downhill at each step, and ever farther from the goal
assert away[-1] > away[0]  # 2.7.4b: downhill at each step, and ever farther from the goal
assert abs(other[-1, 0] - best) < 1e-3  # 2.7.5: a start on the other side of the hump leads to it
