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
# # 6 SGD and its learning rate: how large, and how should it fall?
#
# *Chapter §4.1.* You will see too small a rate stall and too large a one oscillate; a constant rate end in a cloud
# around the minimum whose height is known; the conditions of Robbins and Monro kept and broken; the excess error fall
# as $O(1/k)$ and as $O(1/\sqrt k)$, measured; and a range test find a rate for a real network.
#
# **New in gradtx:** a learning rate is a number or any function of the step $k$. `gradtx.robbins_monro` says what it
# will do in the long run, and `lab.sweep` trains many of them at once.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)  # JAX's random numbers come from explicit keys: the same key, the same numbers

# %% [markdown]
# ## Too small stalls, too large oscillates
#
# Stochastic gradient descent is $\theta \leftarrow \theta - \varepsilon_k g$: $\theta$ are the parameters, $g$ is a
# minibatch's gradient, $\varepsilon_k$ the learning rate at step $k$. First without noise, on a quadratic with
# curvatures 1 and $\lambda_{\max} = 10$. Each step multiplies the error along an axis of curvature $\lambda$ by
# $1 - \varepsilon\lambda$: negative beyond $1/\lambda$, larger than 1 in size beyond $2/\lambda$. So
# $2/\lambda_{\max} = 0.2$ is the end.

# %%
valley = landscapes.quadratic(condition_number=10.0, rotation=0.6)
paths = {f"ε = {rate}": lab.run(valley, gradtx.sgd(rate), steps=30, key=key) for rate in (0.01, 0.1, 0.185)}
lab.plot_trajectories(valley, paths, arrows=0)

# %% [markdown]
# 0.01 is too small: after 30 steps it is still on its way. 0.185 bounces from wall to wall, and yet ends lowest of
# all: a mild oscillation is fine. Beyond 0.2 each bounce is higher than the last (the last cell tries 0.21).
#
# ## Noise: a constant rate ends in a cloud
#
# A minibatch's gradient is noisy, here by $\sigma = 1$ a coordinate. With a constant rate the steps never shrink, and
# the parameters end in a cloud. Move the slider: the higher the rate, the larger the cloud.


# %%
cloud = landscapes.noisy(landscapes.quadratic(condition_number=4.0), sigma=1.0)


def wander(learning_rate):
    path = lab.run(cloud, gradtx.sgd(learning_rate), steps=300, key=key)
    return lab.plot_trajectories(cloud, {f"ε = {learning_rate}": path}, arrows=0)


lab.explore(wander, learning_rate=[0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4])

# %% [markdown]
# How high above the minimum the cloud lies on average can be computed: an axis of curvature $\lambda$ adds
# $\varepsilon\sigma^2 / (2\,(2 - \varepsilon\lambda))$ to the excess error $J - \min J$, about
# $\varepsilon\sigma^2/4$. It falls with the rate, not with time. So the rate must fall; but how fast?
#
# ## Robbins and Monro's two conditions
#
# SGD is sure to converge if
#
# $$\sum_k \varepsilon_k = \infty \quad\text{(any distance can be travelled)} \qquad\text{and}\qquad
# \sum_k \varepsilon_k^2 < \infty \quad\text{(the noise dies out)}.$$

# %%
schedules = {
    "constant": 0.3,
    "1/√k": lambda k: 0.3 / (1 + k / 10) ** 0.5,
    "1/k": gradtx.inverse_time_decay(0.3, steps=10),
    "1/k²": lambda k: 0.3 / (1 + k / 10) ** 2,
    "linear decay": gradtx.linear_decay(0.3, 0.003, steps=2000),
}
reports = {name: gradtx.robbins_monro(schedule) for name, schedule in schedules.items()}
for name, report in reports.items():
    print(f"{name}: {report}\n")

# %% [markdown]
# The constant, $1/\sqrt k$ and the linear decay to a floor break the second condition, $1/k^2$ the first. What does
# it matter?
#
# ## $O(1/k)$: strongly convex
#
# Let them run. All schedules here are $\varepsilon_k = \varepsilon_0\,(1 + k/10)^{-a}$, so one sweep over the
# exponent $a$ trains them all, from 8 random keys each. The curvatures lie between 1 and 4 (*strongly* convex: none
# is near 0). On these axes $k^{-a}$ is a straight line of slope $-a$.


# %%
def power(exponent):
    return gradtx.sgd(lambda k: 0.3 * (1 + k / 10) ** -exponent)


bowl = landscapes.noisy(landscapes.quadratic(condition_number=4.0, dim=10), sigma=1.0)
keys = jax.random.split(key, 8)
grid = {"exponent": [0.0, 0.5, 1.0, 2.0]}
strong = lab.sweep(bowl, power, grid, steps=3000, keys=keys, eval_every=30)
lab.plot_convergence(strong, bowl.minimum, what="metric")

# %% [markdown]
# The excess error falls as the rate does: not at all for $a = 0$, as $1/\sqrt k$ for $a = \frac12$, as $1/k$ for
# $a = 1$, the best there is. $a = 2$ keeps the second condition and breaks the first: it leads at the start, and then
# stops short of the minimum for ever.
#
# ## $O(1/\sqrt k)$: convex
#
# When some curvature is nearly zero there is far to go, and $1/k$ slows down too early. Here are 40 curvatures from
# $10^6$ down to 1, and noise that a constant rate feels:


# %%
def flat_power(exponent):
    return gradtx.sgd(lambda k: 1e-6 * (1 + k / 10) ** -exponent)


flat = landscapes.noisy(landscapes.quadratic(condition_number=1e6, dim=40), sigma=3e4)
convex = lab.sweep(flat, flat_power, grid, steps=3000, keys=keys[:6], eval_every=30)
lab.plot_convergence(convex, flat.minimum, what="metric")

# %% [markdown]
# Now $a = \frac12$ is best, and falls as $1/\sqrt k$. It breaks the second condition, if only just: the conditions
# are sufficient, not necessary.
#
# ## Linear decay
#
# In practice the number of steps is known beforehand, and the rate falls in a straight line to about 1 % of its first
# value: $\varepsilon_k = (1-c)\,\varepsilon_0 + c\,\varepsilon_\tau$ with $c = \min(k/\tau, 1)$. On real data:
# logistic regression on 455 tumours, minibatches of 4, its minimum known, several $\varepsilon_0$.


# %%
def constant(learning_rate):
    return gradtx.sgd(learning_rate)


def decaying(learning_rate):
    return gradtx.sgd(gradtx.linear_decay(learning_rate, learning_rate / 100, steps=1600))


problem = lab.problems.breast_cancer()
rates = {"learning_rate": 0.004 * 4.0 ** np.arange(6)}
tumours = {
    tx.__name__: lab.sweep(problem, tx, rates, steps=2000, keys=keys[:3], batch_size=4) for tx in (constant, decaying)
}
lab.plot_sensitivity(tumours, by="train_loss", minimum=problem.optimum)

# %% [markdown]
# Decay allows a higher first rate, which gets far, and then takes the noise away: its best is lower than the best
# constant rate, and to the right of it. Far to the left decay only slows down.
#
# ## Finding $\varepsilon_0$: the range test
#
# One short run in which the rate grows from far too low to far too high: the loss falls, fastest at a good rate, and
# leaps up at one that is too high. Here for a small network on images of digits, in 100 minibatches of 128.

# %%
digits = lab.problems.digits()
order = gradtx.shuffled_epochs(key, digits.num_examples, batch_size=128, epochs=10)[:100]  # [100, 128] indices
batches = jax.tree.map(lambda x: x[order], digits.train)
test = gradtx.lr_range_test(digits.loss, digits.init(key), lowest=1e-3, highest=30.0, batches=batches)
lab.plot_range_test(test)

# %% [markdown]
# Beside it whole runs of 400 steps, at 11 constant rates. Which is best after 20 steps, and which in the end?

# %%
rates = {"learning_rate": 10.0 ** np.arange(-1, 0.26, 0.125)}
whole = lab.sweep(digits, constant, rates, steps=400, keys=keys[:2], batch_size=128, eval_every=20)
best = {}
for place in (1, 5, 20):
    steps, losses = whole.eval_steps[place], whole.train_loss[..., place].mean(axis=1)
    best[steps] = rates["learning_rate"][losses.argmin()]
    plt.loglog(rates["learning_rate"], losses, "o-", ms=4, label=f"after {steps} steps: best at {best[steps]:.2f}")
plt.axvline(test.steepest, color="k", ls=":", label=f"range test, steepest: {test.steepest:.2f}")
plt.title("The best rate of the whole run is a little above that of the first steps")
plt.gca().set(xlabel="learning rate", ylabel="training loss")
plt.legend(loc="lower left")
plt.show()

# %% [markdown]
# The range test's 100 steps point to the right place, and the best rate in the end lies a little above the best of
# the first steps: choose a rate a step higher than the one that looks best early on, but well below the leap.
#
# **To take away.** Find the leap with a range test, start somewhat below it, let the rate fall linearly to 1 % of it.
# The claims of this page, checked:

# %%
orders = {a: lab.convergence_order(strong.eval_steps, strong.metric[i]) for i, a in enumerate(grid["exponent"])}
flat_orders = {a: lab.convergence_order(convex.eval_steps, convex.metric[i]) for i, a in enumerate(grid["exponent"])}
floor = sum(0.3 / (2 * (2 - 0.3 * bowl.hessian_eigenvalues)))
lowest = {name: sweep.final("train_loss").mean(axis=1) for name, sweep in tumours.items()}

# Beyond 2/λ descent diverges; a mild oscillation just below ends lower than a cautious rate
too_high = lab.run(valley, gradtx.sgd(0.21), steps=30, key=key)
assert too_high.metric[-1] > 3 * too_high.metric[0]
assert paths["ε = 0.185"].metric[-1] < paths["ε = 0.1"].metric[-1] < paths["ε = 0.01"].metric[-1]
# A constant rate ends at the computed height
assert np.isclose(strong.metric[0, :, 20:].mean(), floor, rtol=0.2)
# Only 1/k satisfies Robbins and Monro
assert [name for name, report in reports.items() if report.satisfied] == ["1/k"]
# Strongly convex: the error falls as the rate, O(1/k) at best, and stops short beyond
assert all(abs(orders[a] - a) < 0.25 for a in (0.0, 0.5, 1.0))
assert orders[2.0] < 0.4
# Convex: 1/√k is best, and falls as 1/√k
assert 0.4 < flat_orders[0.5] < 0.65
assert convex.order("metric")[0] == 1
# A linear decay has a lower best, at a higher rate, than a constant rate
assert lowest["decaying"].min() - problem.optimum < 0.7 * (lowest["constant"].min() - problem.optimum)
assert lowest["decaying"].argmin() > lowest["constant"].argmin()
# The range test finds the best rate within a factor of 4; that is a little above the best rate of the first steps
assert 0.25 < test.steepest / best[400] < 4
assert best[20] < best[400] <= 2 * best[20]
