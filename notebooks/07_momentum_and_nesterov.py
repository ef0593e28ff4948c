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
# # 7 Momentum and Nesterov: what does a velocity buy?
#
# *Chapter §4.2 and §4.2.3.* You will see a ball roll through a valley where plain descent bounces between the walls;
# measure its terminal velocity $\varepsilon|g|/(1-\alpha)$; see Nesterov's excess error fall as $1/k^2$ where that of
# plain descent falls as $1/k$; and see noise take the gain away.
#
# **New in gradtx:** every hyper-parameter takes a *schedule*, a function of the step $k$, the momentum too:
# `gradtx.sgd(learning_rate, momentum=lambda k: k / (k + 3), nesterov=True)`.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)  # JAX's random numbers come from explicit keys: the same key, the same numbers

# %% [markdown]
# ## A ball in a valley
#
# Plain descent steps along the gradient $g$ and forgets it; with momentum a *velocity* $v$ remembers:
#
# $$\text{plain:}\quad \theta \leftarrow \theta - \varepsilon g \qquad\qquad
# \text{momentum:}\quad v \leftarrow \alpha v - \varepsilon g,\quad \theta \leftarrow \theta + v .$$
#
# $\theta$ are the parameters, $\varepsilon$ is the learning rate, $\alpha \in [0, 1)$ says how much of the velocity
# survives a step. The valley is a quadratic with curvatures 1 and 100; `lab.run` takes 40 steps.

# %%
valley = landscapes.quadratic(condition_number=100.0, rotation=0.6)
methods = {"plain": gradtx.sgd(0.0185), "momentum 0.8": gradtx.sgd(0.0185, momentum=0.8)}
paths = {name: lab.run(valley, tx, steps=40, key=key) for name, tx in methods.items()}
lab.plot_trajectories(valley, paths)

# %% [markdown]
# Both have the same $\varepsilon$. Plain descent zigzags from wall to wall, where the arrows point. Across the valley
# the gradient keeps flipping its sign, so the pushes in the velocity cancel; along the valley they add up, and
# momentum is there in 40 steps.
#
# Nesterov's momentum takes the gradient where the ball is about to be, at $\theta + \alpha v$, and so brakes in time.
# With $\alpha = 0.9$ and a smaller $\varepsilon = 0.01$ (one over the largest curvature):

# %%
methods = {
    "momentum 0.9": gradtx.sgd(0.01, momentum=0.9),
    "Nesterov 0.9": gradtx.sgd(0.01, momentum=0.9, nesterov=True),
}
paths = {name: lab.run(valley, tx, steps=60, key=key) for name, tx in methods.items()}
lab.plot_trajectories(valley, paths, arrows=0)

# %% [markdown]
# Momentum swings about the floor of the valley, Nesterov rolls along it. The same, moving (press play; pages that run
# no scripts show the last picture):

# %%
lab.animate_trajectories(valley, paths, frames=15)


# %% [markdown]
# Move the slider: 0 is plain descent; near 1 there is hardly any friction, and the ball swings far past the minimum.


# %%
def roll(momentum):
    path = lab.run(valley, gradtx.sgd(0.0185, momentum=momentum), steps=40, key=key)
    return lab.plot_trajectories(valley, {f"momentum {momentum}": path})


lab.explore(roll, momentum=[0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99])

# %% [markdown]
# ## It is physics
#
# A ball of mass 1 in the potential $J$ with viscous drag $\mu$ obeys
# $\ddot\theta = -\nabla J(\theta) - \mu\dot\theta$. In time steps of $\sqrt\varepsilon$ that *is* momentum, with
# $\alpha = 1 - \mu\sqrt\varepsilon$. For $J = \theta^2/2$ this is a damped pendulum, and has a closed form: the
# lines. Momentum's steps are the dots.

# %%
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
plt.show()

# %% [markdown]
# Little drag swings, much drag creeps; the quickest way down lies between. Drag in proportion to the velocity suits
# descent: strong enough to come to rest, weak enough when slow that any gradient still moves the ball.
#
# ## Terminal velocity
#
# Under a constant gradient the ball speeds up until drag balances the push: the $k$-th step is
# $\varepsilon|g|\,(1-\alpha^k)/(1-\alpha)$, in the end $1/(1-\alpha)$ plain steps: 2, 10 or 100 of them for $\alpha$
# = 0.5, 0.9, 0.99. A method is a pair of functions: `init` makes the state (here the velocity), `update` turns a
# gradient into the step to add.


# %%
def push(tx, steps=400):
    """The lengths of the steps under a gradient that is 1 for ever."""
    g, lengths = jnp.ones(()), []
    state, update = tx.init(g), jax.jit(tx.update)  # jit compiles a function: the loop is quick
    for _ in range(steps):
        step, state = update(g, state)
        lengths.append(-float(step))
    return np.array(lengths)


k = np.arange(1, 401)
pushed = {alpha: push(gradtx.sgd(1.0, momentum=alpha)) for alpha in (0.5, 0.9, 0.99)}
for alpha, lengths in pushed.items():
    plt.loglog(k, lengths, label=f"α = {alpha}")
    plt.axhline(1 / (1 - alpha), color="k", lw=0.8, ls=":")
plt.title("Each step is longer than the last, up to the terminal velocity ε|g| / (1 - α) (dotted)")
plt.gca().set(xlabel="optimizer step k", ylabel="step / ε|g|")
plt.legend()
plt.show()

# %% [markdown]
# **The learning rate is inside the velocity.** In $v \leftarrow \alpha v - \varepsilon_k g$ an old push keeps the
# rate it was made with. Let the rate fall from 1 to 0.1 after step 60: the ball coasts on for a while. Where the rate
# multiplies the velocity only on its way out, as in Optax and PyTorch, the step drops at once. For a constant rate
# both are the same.


# %%
def falling(k):
    return jnp.where(k < 60, 1.0, 0.1)


inside = push(gradtx.sgd(falling, momentum=0.9), 120)
outside = push(optax.chain(gradtx.heavy_ball(0.9), gradtx.scale_by_learning_rate(falling)), 120)
plt.plot(k[:120], inside, label="rate inside the velocity (chapter, gradtx)")
plt.plot(k[:120], outside, "--", label="rate outside (Optax, PyTorch)")
plt.title("The rate falls tenfold after step 60; inside the velocity, old pushes fade away")
plt.gca().set(xlabel="optimizer step k", ylabel="step / |g|")
plt.legend()
plt.show()

# %% [markdown]
# ## Nesterov, to the letter
#
# Training code hands over the gradient at the parameters, so gradtx keeps the *parameters* at the look-ahead point
# $\theta + \alpha v$; `gradtx.nesterov_eval_params` steps back to $\theta$, the point to evaluate (`lab.run`
# evaluates there by itself). This is exact also while learning rate and momentum both move. The chapter's algorithm,
# by hand:


# %%
def growing(k):
    return k / (k + 3)  # a momentum that starts at 0 and tends to 1


rate = gradtx.linear_decay(0.01, 0.002, steps=60)
run = lab.run(valley, gradtx.sgd(rate, momentum=growing, nesterov=True), steps=60, key=key)
ours = gradtx.nesterov_eval_params(run.params, run.opt_state)

θ, v, gradient = jnp.asarray(valley.start), jnp.zeros(2), jax.jit(jax.grad(valley))
for i in range(60):
    v = growing(i) * v - rate(i) * gradient(θ + growing(i) * v)
    θ = θ + v
print("by hand:", np.round(θ, 4), " gradtx:", np.round(ours, 4))

# %% [markdown]
# ## From $1/k$ to $1/k^2$
#
# How fast does the *excess error* $J(\theta_k) - \min J$ fall? The hardest convex valleys have curvatures of all
# sizes, so that there is always a direction too flat to be done with. Here are 60 curvatures from 1 to $10^8$, exact
# gradients and $\varepsilon = 10^{-8}$, one over the largest; Nesterov's momentum grows as $\alpha_k = k/(k+3)$. On
# these axes $k^{-a}$ is a straight line of slope $-a$.

# %%
hard = landscapes.quadratic(condition_number=1e8, dim=60)
methods = {
    "plain": gradtx.sgd(1e-8),
    "momentum 0.9": gradtx.sgd(1e-8, momentum=0.9),
    "Nesterov": gradtx.sgd(1e-8, momentum=growing, nesterov=True),
}
exact = {name: lab.run(hard, tx, steps=1000, key=key, eval_every=20) for name, tx in methods.items()}
lab.plot_convergence(exact, hard.minimum)

# %% [markdown]
# Momentum 0.9 ends ten times lower, its terminal velocity being ten plain steps, but on a parallel line: a constant
# $\alpha$ buys a constant factor. The *growing* $\alpha$ of Nesterov's method changes the slope, $1/k$ to $1/k^2$.
# (On a quadratic the heavy ball does as well with that schedule; it is the look-ahead that makes it true of every
# smooth convex $J$.)
#
# ## Noise takes it away
#
# Now add noise to each gradient, as minibatches do. Nothing else changes:

# %%
noisy = landscapes.noisy(hard, sigma=3e6)
stochastic = {
    f"{name} with noise": lab.run(noisy, methods[name], steps=1000, key=key, eval_every=20)
    for name in ("plain", "Nesterov")
}
lab.plot_convergence(stochastic | {"Nesterov": exact["Nesterov"]}, hard.minimum)

# %% [markdown]
# A long memory adds up noise as well as signal: Nesterov's error *grows*. It needs a lower learning rate, so let each
# method have its own best one, on real data: logistic regression on 455 tumours, one at a time; convex, its minimum
# known. `lab.sweep` trains a grid of rates, each from three random keys (the order in which the tumours are read).


# %%
def plain(learning_rate):
    return gradtx.sgd(learning_rate)


def nesterov(learning_rate):
    return gradtx.sgd(learning_rate, momentum=growing, nesterov=True)


problem = lab.problems.breast_cancer()
settings = {"steps": 400, "keys": jax.random.split(key, 3), "batch_size": 1}
grid = {"learning_rate": 2.0 * 4.0 ** np.arange(-7, 1)}
tuned = {tx.__name__: lab.sweep(problem, tx, grid, **settings) for tx in (plain, nesterov)}
lab.plot_sensitivity(tuned, by="train_loss", minimum=problem.optimum)

# %% [markdown]
# The bottom of Nesterov's valley is no lower. With noisy gradients all that Nesterov's method changes is where the
# best rate lies.
#
# **To take away.** Momentum cancels what flips and sums what stays. It pays off in ill-conditioned valleys and while
# the gradient is clearer than its noise. With minibatches start from a constant $\alpha = 0.9$, and when $\alpha$
# goes up, let $\varepsilon$ go down. The claims of this page, checked:

# %%
orders = {name: lab.convergence_order(run.eval_steps, run.metric) for name, run in exact.items()}
noisy_order = {name: lab.convergence_order(run.eval_steps, run.metric) for name, run in stochastic.items()}
best = {name: sweep.final("train_loss").mean(axis=-1).min() - problem.optimum for name, sweep in tuned.items()}

# Momentum follows the damped pendulum
assert max(off_by.values()) < 0.1
# A constant gradient ends in steps of ε|g| / (1 - α)
assert all(np.isclose(lengths[-1], 1 / (1 - alpha), rtol=0.03) for alpha, lengths in pushed.items())
# The learning rate is inside the velocity: the n-th step at the lower rate still holds 9 · 0.9^n of the old pushes
assert np.isclose(inside[69], 1 + 9 * 0.9**10, rtol=0.02)
assert np.isclose(outside[69], 1, rtol=0.02)
# Nesterov is exact while learning rate and momentum move
assert np.allclose(θ, ours, atol=1e-4)
# O(1/k) for plain descent and for a constant momentum, which ends ten times lower; O(1/k²) for Nesterov
assert 0.9 < orders["plain"] < 1.1
assert 0.9 < orders["momentum 0.9"] < 1.3
assert 1.8 < orders["Nesterov"] < 2.3
assert 8 < exact["plain"].metric[-1] / exact["momentum 0.9"].metric[-1] < 12
# With noise and the same rate Nesterov's error grows
assert noisy_order["Nesterov with noise"] < -0.5
# Each at its best rate, with single examples: no gain
assert best["nesterov"] > 0.7 * best["plain"]
