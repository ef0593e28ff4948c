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
# # 11 · Momentum and Nesterov: how does a velocity help?
#
# *Chapter §4.2.* You will see a ball roll through a valley in which plain descent bounces between the walls, and measure
# its terminal velocity $\varepsilon|g|/(1-\alpha)$. You will see Nesterov's excess error fall as $1/k^2$ while that of
# plain descent falls as $1/k$, and see that noise removes the gain.
#
# **New in gradtx:** every hyper-parameter takes a *schedule*, a function of the step $k$, the momentum too:
# `gradtx.sgd(learning_rate, momentum=lambda k: k / (k + 3), nesterov=True)`.

# %% slideshow={"slide_type": "skip"}
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)  # JAX's random numbers come from explicit keys: the same key, the same numbers

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A ball in a valley
#
# Plain descent steps along the gradient $g$ and forgets it. With momentum a *velocity* $v$ remembers past gradients:
#
# $$\text{plain:}\quad \theta \leftarrow \theta - \varepsilon g \qquad\qquad
# \text{momentum:}\quad v \leftarrow \alpha v - \varepsilon g,\quad \theta \leftarrow \theta + v .$$
#
# $\theta$ are the parameters, $\varepsilon$ is the learning rate, $\alpha \in [0, 1)$ says how much of the velocity
# survives a step. The valley is a quadratic with curvatures 1 and 100; `lab.run` takes 40 steps.

# %% alt="Paths in a narrow valley. Plain descent zigzags between the walls and is still far from the minimum; momentum turns along the valley and arrives." tags=["cover"] slideshow={"slide_type": "subslide"}
valley = landscapes.quadratic(condition_number=100.0, rotation=0.6)
methods = {"plain": gradtx.sgd(0.0185), "momentum 0.8": gradtx.sgd(0.0185, momentum=0.8)}
first_paths = {name: lab.run(valley, tx, steps=40, key=key) for name, tx in methods.items()}
lab.plot_trajectories(valley, first_paths)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Both have the same $\varepsilon$. Plain descent zigzags from wall to wall, where the arrows point. Across the valley
# the gradient keeps flipping its sign, so the pushes in the velocity cancel; along the valley they add up, and
# momentum arrives within 40 steps.
#
# Nesterov's momentum takes the gradient at the point to which the velocity is about to lead, at $\theta + \alpha v$, and
# so it brakes in time. Here are both kinds of momentum with $\alpha = 0.9$ and a smaller $\varepsilon = 0.01$ (one over
# the largest curvature):

# %% slideshow={"slide_type": "skip"}
methods = {
    "momentum 0.9": gradtx.sgd(0.01, momentum=0.9),
    "Nesterov 0.9": gradtx.sgd(0.01, momentum=0.9, nesterov=True),
}
runs = {name: lab.run(valley, tx, steps=60, key=key) for name, tx in methods.items()}


def without_lookahead(ahead, alpha=0.9):
    """θ from the look-ahead points θ_k + α (θ_k - θ_{k-1}), at which Nesterov's method trains."""
    path = [ahead[0]]
    for point in ahead[1:]:
        path.append((point + alpha * path[-1]) / (1 + alpha))
    return np.array(path)


paths = {
    "momentum 0.9": runs["momentum 0.9"].iterates,
    "Nesterov 0.9": without_lookahead(runs["Nesterov 0.9"].iterates),
}

# %% alt="Two paths in the valley. Momentum 0.9 swings about the floor of the valley, Nesterov's momentum rolls along it." slideshow={"slide_type": "subslide"}
lab.plot_trajectories(valley, paths, arrows=0)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Momentum swings about the floor of the valley, and Nesterov's momentum rolls along it. Here are the same paths as an
# animation. Press play. (A page that runs no scripts shows the last picture.)

# %% alt="The last frame of the animation: both paths at the minimum." slideshow={"slide_type": "subslide"}
lab.animate_trajectories(valley, paths, frames=15)


# %% [markdown] slideshow={"slide_type": "subslide"}
# **Play**: in a live notebook, move the slider. 0 is plain descent; near 1 there is hardly any friction, and the ball
# swings far past the minimum.


# %% slideshow={"slide_type": "skip"}
def roll(momentum):
    path = lab.run(valley, gradtx.sgd(0.0185, momentum=momentum), steps=40, key=key)
    return lab.plot_trajectories(valley, {f"momentum {momentum}": path})


# %% alt="The path of momentum 0.9 in the valley: it swings past the minimum and comes back." slideshow={"slide_type": "subslide"}
lab.explore(roll, momentum=[0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99])

# %% [markdown] slideshow={"slide_type": "slide"}
# ## It is physics
#
# A ball of mass 1 in the potential $J$ with viscous drag $\mu$ obeys
# $\ddot\theta = -\nabla J(\theta) - \mu\dot\theta$. If one simulates this motion in time steps of length
# $\sqrt\varepsilon$, the result is momentum, with $\alpha = 1 - \mu\sqrt\varepsilon$. For $J = \theta^2/2$ the motion is
# that of a damped pendulum, which has a closed form. The lines show the closed form, the dots the steps of momentum.

# %% slideshow={"slide_type": "skip"}
bowl, rate = landscapes.quadratic(dim=1), 0.01  # J = ½ θ², from θ = 1
t = np.sqrt(rate) * np.arange(151)
off_by = {}
for drag in (0.3, 1.0, 5.0):
    path = lab.run(bowl, gradtx.sgd(rate, momentum=1 - drag * rate**0.5), steps=150, key=key).iterates[:, 0]
    fast, slow = np.roots([1, drag, 1]).astype(complex)  # θ = e^(rt) where r² + μ r + 1 = 0
    pendulum = ((fast * np.exp(slow * t) - slow * np.exp(fast * t)) / (fast - slow)).real
    line = plt.plot(t, pendulum, label=f"drag μ = {drag}: momentum α = {1 - drag * rate**0.5:.2f}")[0]
    plt.plot(t[::5], path[::5], "o", ms=4, color=line.get_color())
    off_by[drag] = np.abs(path - pendulum).max()
plt.title("Momentum (dots) follows the damped pendulum (lines)")
plt.gca().set(xlabel="time k√ε", ylabel="θ (position)")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Position against time for three amounts of drag. The dots of momentum lie on the lines of the damped pendulum." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# With little drag the ball swings, and with much drag it creeps. A drag in between is quickest. Drag in proportion
# to the velocity suits descent: it is strong enough for the ball to come to rest, and so weak at low speed that any
# gradient still moves it.
#
# A detail: the velocity changes during a time step. Should the ball move by the old velocity or by the new one? It does
# not matter. Both loops below make the same sequence of displacements, but one of them is a step later.


# %% slideshow={"slide_type": "skip"}
def displacements(by_new_velocity, steps=30):
    theta, v, moves = 1.0, 0.0, []
    for _ in range(steps):
        old = v
        if by_new_velocity:
            v = 0.9 * v - 0.1 * theta  # the gradient of ½ θ² is θ
            theta, move = theta + v, v
        else:
            theta, move = theta + v, v
            v = 0.9 * old - 0.1 * theta
        moves.append(move)
    return np.array(moves)


by_new, by_old = displacements(True), displacements(False)
print("by the new velocity:", by_new[:4].round(4), " by the old one:", by_old[:5].round(4))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What the velocity remembers
#
# The velocity is a weighted sum of all past gradients, and each step multiplies the weights by $\alpha$:
#
# $$v_k = -\varepsilon \sum_{i \le k} \alpha^{k-i} g_i .$$
#
# So $\alpha$ decides for how long a gradient counts. To see it, we give momentum a single push: a gradient of 1 at the
# first step and 0 from then on.


# %% slideshow={"slide_type": "skip"}
def answers(tx, gradients):
    """The steps that a method makes of a sequence of gradients."""

    def step(state, g):
        update, state = tx.update(g, state)
        return state, update

    return np.asarray(jax.lax.scan(step, tx.init(gradients[0]), gradients)[1])


impulse = jnp.zeros(300).at[0].set(1.0)
memory = {alpha: -answers(gradtx.sgd(1.0, momentum=alpha), impulse) for alpha in (0.5, 0.9, 0.99)}
half_life = {alpha: int(np.argmax(values < 0.5 * values[0] + 1e-6)) for alpha, values in memory.items()}
print("steps until a push has lost half of its weight:", half_life)

random_gradients = jax.random.normal(key, (40,))
weights = 0.9 ** np.arange(40)[::-1]
written_out = -0.1 * np.sum(weights * np.asarray(random_gradients))
velocity = answers(gradtx.sgd(0.1, momentum=0.9), random_gradients)[-1]
print(f"velocity after 40 random gradients: {velocity:.6f}, written out: {written_out:.6f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Momentum is a scheme, not one method: `heavy_ball` can stand behind any other transformation in a chain, after clipped
# gradients or after those that RMSProp scales (notebook 12).

# %% slideshow={"slide_type": "skip"}
composed = optax.chain(gradtx.scale_by_rms(decay=0.9), gradtx.scale_by_learning_rate(0.01), gradtx.heavy_ball(0.9))
of_blocks = answers(composed, random_gradients)
of_recipe = answers(gradtx.rmsprop(0.01, momentum=0.9), random_gradients)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Terminal velocity
#
# Under a constant gradient the ball speeds up until drag balances the push: the $k$-th step is
# $\varepsilon|g|\,(1-\alpha^k)/(1-\alpha)$. In the end it is as long as $1/(1-\alpha)$ plain steps: 2, 10 or 100 of them
# for the usual values $\alpha$ = 0.5, 0.9, 0.99.


# %% slideshow={"slide_type": "skip"}
def push(tx, steps=400):
    """The lengths of the steps under a constant gradient of 1."""
    return -answers(tx, jnp.ones(steps))


k = np.arange(1, 401)
pushed = {alpha: push(gradtx.sgd(1.0, momentum=alpha)) for alpha in (0.5, 0.9, 0.99)}
for alpha, lengths in pushed.items():
    plt.loglog(k, lengths, label=f"α = {alpha}")
    plt.axhline(1 / (1 - alpha), color="k", lw=0.8, ls=":")
plt.title("Each step is longer than the last, up to the terminal velocity ε|g| / (1 - α) (dotted)")
plt.gca().set(xlabel="optimizer step k", ylabel="step / ε|g|")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Length of the step under a constant gradient for alpha 0.5, 0.9 and 0.99. It grows to 2, 10 and 100 plain steps." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# **The learning rate is inside the velocity.** In $v \leftarrow \alpha v - \varepsilon_k g$ an old push keeps the
# rate of the step at which it was made. If the rate falls from 1 to 0.1 after step 60, the ball rolls on for a while. In
# Optax and PyTorch the rate multiplies the velocity from outside, and then the step drops at once. For a constant rate
# both are the same.


# %% slideshow={"slide_type": "skip"}
def falling(k):
    return jnp.where(k < 60, 1.0, 0.1)


inside = push(gradtx.sgd(falling, momentum=0.9), 120)
outside = push(optax.chain(gradtx.heavy_ball(0.9), gradtx.scale_by_learning_rate(falling)), 120)
plt.plot(k[:120], inside, label="rate inside the velocity (chapter, gradtx)")
plt.plot(k[:120], outside, "--", label="rate outside (Optax, PyTorch)")
plt.title("The rate falls tenfold after step 60; inside the velocity, old pushes fade away")
plt.gca().set(xlabel="optimizer step k", ylabel="step / |g|")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Step length before and after the rate falls tenfold. Inside the velocity the step decays over some twenty steps, outside it drops at once." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A rate that fell too far
#
# A rate that decays may end lower than the problem needs, and SGD cannot know that. Momentum makes up for it, because
# many small pushes in the same direction add up. In the valley, the rate falls to a hundredth within 50 steps:

# %% slideshow={"slide_type": "skip"}
schedule = gradtx.linear_decay(0.018, 0.00018, steps=50)
too_far = {alpha: lab.run(valley, gradtx.sgd(schedule, momentum=alpha), steps=600, key=key) for alpha in (0.0, 0.9)}
print("height after 600 steps:", {f"momentum {alpha}": f"{run.metric[-1]:.2g}" for alpha, run in too_far.items()})

# %% [markdown] slideshow={"slide_type": "subslide"}
# ## Which $\alpha$?
#
# Usual values are 0.5, 0.9 and 0.99, and $\alpha$ may grow during training. A small network learns digits in 300 steps,
# with each of these values, without momentum, and with an $\alpha$ that grows from 0.5 to 0.9 in the first 150 steps. Each gets
# the best of eight rates, and three keys. `lab.sweep` trains all points of a grid.


# %% slideshow={"slide_type": "skip"}
def with_alpha(learning_rate, alpha, growth):
    return gradtx.sgd(learning_rate, momentum=lambda k: alpha - growth * (1 - jnp.minimum(k / 150, 1)))


digits, rates = lab.problems.digits(hidden=16), 2.0 ** np.arange(-6, 2)
settings = {"steps": 300, "keys": jax.random.split(jax.random.key(2), 3), "eval_every": 300}
grids = {"fixed": {"alpha": [0.0, 0.5, 0.9, 0.99], "growth": [0.0]}, "growing": {"alpha": [0.9], "growth": [0.4]}}
usual, best_rates = {}, {}
for name, grid in grids.items():
    trained = lab.sweep(digits, with_alpha, {"learning_rate": rates} | grid, **settings).final("train_loss")
    for i, alpha in enumerate(grid["alpha"]):
        losses = trained[:, i, 0]  # [rate, key]
        place = int(np.nanargmin(losses.mean(1)))
        usual[name, alpha], best_rates[name, alpha] = losses[place], rates[place]
        print(f"α {name}, {alpha}: best rate {rates[place]:.3g}, training losses {losses[place].round(3)}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# With each of the values the network ends lower than with plain descent ($\alpha = 0$), for each key. A large $\alpha$
# needs a lower rate.
#
# Which matters more, the rate or $\alpha$? Both may change during training. We try all four combinations on a noisy bowl:
# the rate fixed at 0.05 or falling to 1 % of it, $\alpha$ fixed at 0.9 or growing from 0.5 to 0.9. We print the excess
# errors at the end, from 16 keys:


# %% slideshow={"slide_type": "skip"}
def two_by_two(floor, growth):
    rate = gradtx.linear_decay(0.05, 0.05 * floor, steps=2000)
    return gradtx.sgd(rate, momentum=lambda k: 0.9 - growth * (1 - k / 2000))


cloud = landscapes.noisy(landscapes.quadratic(condition_number=10.0, dim=10), sigma=1.0)
grid = {"floor": [1.0, 0.01], "growth": [0.0, 0.4]}
at_end = lab.sweep(cloud, two_by_two, grid, steps=2000, keys=jax.random.split(key, 16)).metric[..., -5:].mean((2, 3))
ends = {}
for i, rate_name in enumerate(("fixed", "falling")):
    for j, alpha_name in enumerate(("fixed", "growing")):
        ends[rate_name, alpha_name] = at_end[i, j]
        print(f"rate {rate_name}, α {alpha_name}: {at_end[i, j]:.4f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# A falling rate lowers the error to about a ninth. A growing $\alpha$ lowers it by less than a half.


# %% [markdown] slideshow={"slide_type": "slide"}
# ## Nesterov's algorithm, exactly
#
# Training code computes the gradient at the parameters. So gradtx keeps the *parameters* at the look-ahead point
# $\theta + \alpha v$, and `gradtx.nesterov_eval_params` steps back to $\theta$, the point to evaluate (`lab.run`
# evaluates there by itself). This is exact even if learning rate and momentum both change. We compare it with the
# chapter's algorithm, written by hand:


# %% slideshow={"slide_type": "skip"}
def growing(k):
    return k / (k + 3)  # a momentum that starts at 0 and tends to 1


rate = gradtx.linear_decay(0.01, 0.002, steps=60)
run = lab.run(valley, gradtx.sgd(rate, momentum=growing, nesterov=True), steps=60, key=key)
ours = gradtx.nesterov_eval_params(run.params, run.opt_state)

θ, v, gradient = jnp.asarray(valley.start), jnp.zeros(2), jax.jit(jax.grad(valley))
for i in range(60):
    v = growing(i) * v - rate(i) * gradient(θ + growing(i) * v)
    θ = θ + v
by_the_book = θ
print("by hand:", np.round(by_the_book, 4), " gradtx:", np.round(ours, 4))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## From $1/k$ to $1/k^2$
#
# How fast does the *excess error* $J(\theta_k) - \min J$ fall? The hardest convex valleys have curvatures of all
# sizes, so that at any time descent has not yet converged in some flat direction. Here are 60 curvatures from 1 to $10^8$, exact
# gradients and $\varepsilon = 10^{-8}$, one over the largest curvature. Nesterov's momentum grows as
# $\alpha_k = k/(k+3)$. On these axes $k^{-a}$ is a straight line of slope $-a$.

# %% slideshow={"slide_type": "skip"}
hard = landscapes.quadratic(condition_number=1e8, dim=60)
methods = {
    "plain": gradtx.sgd(1e-8),
    "momentum 0.9": gradtx.sgd(1e-8, momentum=0.9),
    "Nesterov": gradtx.sgd(1e-8, momentum=growing, nesterov=True),
}
exact = {name: lab.run(hard, tx, steps=1000, key=key, eval_every=20) for name, tx in methods.items()}

# %% alt="Excess error against the step with exact gradients, both axes logarithmic. Plain descent and momentum 0.9 fall as one over k on parallel lines; Nesterov's method falls as one over k squared." slideshow={"slide_type": "subslide"}
lab.plot_convergence(exact, hard.minimum)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Momentum 0.9 ends ten times lower than plain descent, because its terminal velocity is ten plain steps. But its line is
# parallel: a constant $\alpha$ gains a constant factor. The *growing* $\alpha$ of Nesterov's method changes the slope
# from $1/k$ to $1/k^2$. (On a quadratic, momentum without the look-ahead does as well with that schedule. The look-ahead
# is needed for other smooth convex costs.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Noise removes the gain
#
# Now we add noise to each gradient, as minibatches do. Nothing else changes:

# %% slideshow={"slide_type": "skip"}
noisy = landscapes.noisy(hard, sigma=3e6)
stochastic = {
    f"{name} with noise": lab.run(noisy, methods[name], steps=1000, key=key, eval_every=20)
    for name in ("plain", "Nesterov")
}

# %% alt="The same with noisy gradients: plain descent levels off, Nesterov's error grows, and its curve with exact gradients lies far below." slideshow={"slide_type": "subslide"}
lab.plot_convergence(stochastic | {"Nesterov": exact["Nesterov"]}, hard.minimum)

# %% [markdown] slideshow={"slide_type": "subslide"}
# A long memory adds up noise as well as signal: Nesterov's error *grows*. The method needs rates that fall. With rates in
# proportion to $1/k$ both methods converge on the noisy bowl (curvatures 1 to 10), and we can measure the order of both:


# %% slideshow={"slide_type": "skip"}
def inverse_time(learning_rate, alpha):  # with α = 0 it is plain descent
    return gradtx.sgd(gradtx.inverse_time_decay(learning_rate, steps=20), momentum=alpha, nesterov=True)


measured = {}
for name, rate, alpha in (("plain", 0.2, 0.0), ("Nesterov", 0.02, 0.9)):
    grid = {"learning_rate": [rate], "alpha": [alpha]}
    sweep = lab.sweep(cloud, inverse_time, grid, steps=4000, keys=jax.random.split(key, 16), eval_every=40)
    measured[name] = lab.convergence_order(sweep.eval_steps, sweep.metric[0, 0])
print("order with noise:", {name: f"k^-{order:.2f}" for name, order in measured.items()})

# %% [markdown] slideshow={"slide_type": "subslide"}
# Both fall as $1/k$, and neither as $1/k^2$. We try the same on real data, with each method at its own best rate: logistic
# regression on 455 tumours, one example per step. The problem is convex, and its minimum is known. Each rate is tried
# from eight random keys (they decide the order in which the tumours are read).


# %% slideshow={"slide_type": "skip"}
def plain(learning_rate):
    return gradtx.sgd(learning_rate)


def nesterov(learning_rate):
    return gradtx.sgd(learning_rate, momentum=growing, nesterov=True)


problem = lab.problems.breast_cancer()
settings = {"steps": 400, "keys": jax.random.split(key, 8), "batch_size": 1}
grid = {"learning_rate": 2.0 * 4.0 ** np.arange(-7, 1)}
tuned = {tx.__name__: lab.sweep(problem, tx, grid, **settings) for tx in (plain, nesterov)}

# %% alt="Final excess training loss against the learning rate for plain descent and Nesterov's method with single examples. The lowest points are equally low, at different rates." slideshow={"slide_type": "subslide"}
lab.plot_sensitivity(tuned, by="train_loss", minimum=problem.optimum)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The lowest point of Nesterov's curve is not lower than that of plain descent. With noisy gradients Nesterov's method
# only has another best rate.

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** Momentum cancels gradients that change their sign and adds up those that keep it. It helps in
# ill-conditioned valleys, as long as the gradient is larger than its noise. With minibatches start from a constant
# $\alpha = 0.9$, and if you raise $\alpha$, lower $\varepsilon$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. How many plain steps is one step of momentum 0.95 worth under a constant gradient?
# 2. A run at rate 0.1 without momentum is stable. Which rate would you try first with momentum 0.9, and why?
# 3. In the slider above, with which $\alpha$ does the ball arrive soonest, and what happens at 0.99?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. 20: $1/(1 - 0.95)$.
# 2. 0.01: then the terminal velocity $\varepsilon|g|/(1-\alpha)$ is the same as before.
# 3. It arrives soonest at 0.8. At 0.99 there is hardly any friction, and the ball swings through the minimum many times.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
orders = {name: lab.convergence_order(run.eval_steps, run.metric) for name, run in exact.items()}
noisy_order = {name: lab.convergence_order(run.eval_steps, run.metric) for name, run in stochastic.items()}
best = {name: sweep.final("train_loss").mean(axis=-1) - problem.optimum for name, sweep in tuned.items()}
across = np.array([-np.sin(0.6), np.cos(0.6)])  # the direction across the valley


def swings(path):
    return int(np.sum(np.diff(np.sign(path @ across)) != 0))


def overshoot(path):
    """How far it goes beyond the floor of the valley."""
    side = path @ across
    return float(np.max(-side * np.sign(side[0])))


assert (
    too_far[0.9].metric[-1] < 0.1 * too_far[0.0].metric[-1]
)  # 4.2.1.1: momentum makes up for the rate that fell too far
assert np.isclose(velocity, written_out, rtol=1e-4)  # 4.2.1.2: the velocity is the weighted sum of past gradients
assert np.allclose(of_blocks, of_recipe)  # 4.2.1.3: the same momentum behind RMSProp's scaling is the recipe
assert stochastic["plain with noise"].metric[-1] < 0.5 * hard(hard.start)  # beyond the chapter: plain descent gets on
assert all(
    np.allclose(values[:50], alpha ** np.arange(50), atol=1e-5) for alpha, values in memory.items()
)  # 4.2.1.4: α^k
assert half_life[0.5] < half_life[0.9] < half_life[0.99]  # 4.2.1.4: the larger α, the longer a gradient counts
assert max(off_by.values()) < 0.06  # 4.2.1.5a: momentum follows the ball with friction
assert np.allclose(by_old[1:], by_new[:-1])  # 4.2.1.5b: the same displacements, a step later
assert by_old[0] == 0  # 4.2.1.5b: the same displacements, a step later
heights = {name: run.metric[-1] for name, run in first_paths.items()}
assert heights["momentum 0.8"] < 0.05 * heights["plain"]  # 4.2.1.6: in the valley momentum arrives sooner
assert swings(first_paths["momentum 0.8"].iterates) < 0.7 * swings(
    first_paths["plain"].iterates
)  # 4.2.1.6: with fewer swings across
θ, v = jnp.asarray(valley.start), jnp.zeros(2)
for i in range(40):
    v = 0.8 * v - schedule(i) * gradient(θ)
    θ = θ + v
same = lab.run(valley, gradtx.sgd(schedule, momentum=0.8), steps=40, key=key)
assert np.allclose(θ, same.params, atol=1e-5)  # 4.2.1.7: two lines by hand are the method
assert np.isclose(inside[69], 1 + 9 * 0.9**10, rtol=0.02)  # 4.2.1.7: rate inside
assert np.isclose(outside[69], 1, rtol=0.02)  # 4.2.1.7: rate inside
terminal = {alpha: lengths[-1] * (1 - alpha) for alpha, lengths in pushed.items()}
assert all(0.98 < share <= 1.0001 for share in terminal.values())  # 4.2.2.1: the step ends at ε|g| / (1 - α)
assert all(np.all(np.diff(lengths) >= -1e-4) for lengths in pushed.values())  # 4.2.2.1: and grows until then
plain_losses = usual.pop(("fixed", 0.0))
assert list(usual) == [
    ("fixed", 0.5),
    ("fixed", 0.9),
    ("fixed", 0.99),
    ("growing", 0.9),
]  # 4.2.2.2a: usual, and growing
assert all(np.all(losses < plain_losses) for losses in usual.values())  # 4.2.2.2a: lower than plain descent, key by key
assert all(rates[0] < rate < rates[-1] for rate in best_rates.values())  # 4.2.2.2a: no best rate at an edge
assert (
    exact["Nesterov"].metric[-1] < exact["momentum 0.9"].metric[-1]
)  # 4.2.2.2a: a growing α beats a constant one here
by_rate = ends["fixed", "fixed"] / ends["falling", "fixed"]
by_alpha = ends["fixed", "fixed"] / ends["fixed", "growing"]
assert by_rate > 5  # 4.2.2.2b: shrinking the rate matters more than changing α
assert 0.7 < by_alpha < 1.4  # 4.2.2.2b: shrinking the rate matters more than changing α
assert np.allclose(by_the_book, ours, atol=1e-4)  # 4.2.3.1a: the gradient is taken where the velocity is about to lead
assert overshoot(paths["Nesterov 0.9"]) < 0.3 * overshoot(paths["momentum 0.9"])  # 4.2.3.1b: it brakes in time
assert 0.9 < orders["plain"] < 1.1  # 4.2.3.2a: from 1/k to 1/k² with exact gradients
assert 1.8 < orders["Nesterov"] < 2.3  # 4.2.3.2a: from 1/k to 1/k² with exact gradients
assert 0.9 < orders["momentum 0.9"] < 1.3  # 4.1.3.2f: a constant momentum has the same order
assert 8 < exact["plain"].metric[-1] / exact["momentum 0.9"].metric[-1] < 12  # 4.1.3.2f: and gains a constant factor
assert noisy_order["Nesterov with noise"] < -0.5  # 4.2.3.2b: with noise, at the same rate, its error grows
assert abs(measured["plain"] - 1) < 0.25  # 4.2.3.2b: with falling rates both have 1/k
assert measured["Nesterov"] < 1.25  # 4.2.3.2b: with falling rates both have 1/k
assert best["nesterov"].min() > 0.85 * best["plain"].min()  # 4.2.3.2b: on real data, tuned, it ends no lower
assert all(0 < values.argmin() < len(values) - 1 for values in best.values())  # 4.2.3.2b: no best rate at an edge
