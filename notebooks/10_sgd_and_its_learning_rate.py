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
# # 10 · SGD and its learning rate: how large, and how should it fall?
#
# *Chapter §4.1.* You will see that training hardly moves at too small a rate and oscillates at too large a rate. A
# constant rate ends in a cloud around the minimum, whose height can be computed. You will see schedules that meet or break
# the two conditions of Robbins and Monro. The excess error falls as $1/k$ or $1/\sqrt k$, which no method can improve.
# Then you choose a first rate, a last rate and the time between them.
#
# **New in gradtx:** a learning rate is a number or any function of the step $k$. `gradtx.robbins_monro` says whether such
# a rate meets the two conditions, and `lab.sweep` trains with many rates in one call.

# %% slideshow={"slide_type": "skip"}
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)  # JAX's random numbers come from explicit keys: the same key, the same numbers

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Too small a rate stalls, too large a rate oscillates
#
# Stochastic gradient descent is $\theta \leftarrow \theta - \varepsilon_k g$: $\theta$ are the parameters, $g$ is a
# minibatch's gradient, $\varepsilon_k$ the learning rate at step $k$. We first train without noise, on a quadratic with
# curvatures 1 and $\lambda_{\max} = 10$. Each step multiplies the error along an axis of curvature $\lambda$ by
# $1 - \varepsilon\lambda$. This factor is negative if $\varepsilon > 1/\lambda$, and larger than 1 in size if
# $\varepsilon > 2/\lambda$. So descent diverges at rates above $2/\lambda_{\max} = 0.2$.

# %% alt="Three paths in a narrow valley. At rate 0.01 the path is still far from the minimum, at 0.1 it arrives smoothly, at 0.185 it bounces between the walls and arrives too." slideshow={"slide_type": "subslide"}
valley = landscapes.quadratic(condition_number=10.0, rotation=0.6)
paths = {f"ε = {rate}": lab.run(valley, gradtx.sgd(rate), steps=30, key=key) for rate in (0.01, 0.1, 0.185)}
lab.plot_trajectories(valley, paths, arrows=0)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Rate 0.01 is too small: after 30 steps the path is still on its way. At 0.185 it bounces from wall to wall, and yet it
# ends lowest of all: a mild oscillation is fine. Above 0.2 each bounce is higher than the one before (the last cell tries
# 0.21).


# %% [markdown] slideshow={"slide_type": "slide"}
# ## Noise: a constant rate ends in a cloud
#
# A minibatch's gradient is noisy. Here each of its coordinates has noise of standard deviation $\sigma = 1$. With a
# constant rate the steps never shrink, and the parameters end in a cloud. In a live notebook, move the slider: the higher
# the rate, the larger the cloud.


# %% slideshow={"slide_type": "skip"}
cloud = landscapes.noisy(landscapes.quadratic(condition_number=4.0), sigma=1.0)


def wander(learning_rate):
    path = lab.run(cloud, gradtx.sgd(learning_rate), steps=300, key=key)
    return lab.plot_trajectories(cloud, {f"ε = {learning_rate}": path}, arrows=0)


# %% alt="A path with noisy gradients at rate 0.1: it runs to the neighbourhood of the minimum and stays in a cloud around it." slideshow={"slide_type": "subslide"}
lab.explore(wander, learning_rate=[0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4])

# %% [markdown] slideshow={"slide_type": "subslide"}
# One can compute how high above the minimum the cloud lies on average: an axis of curvature $\lambda$ adds
# $\varepsilon\sigma^2 / (2\,(2 - \varepsilon\lambda))$ to the excess error $J - \min J$, which is about
# $\varepsilon\sigma^2/4$. It falls with the rate, and not with time. So the rate must fall, but how fast?

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Robbins and Monro's two conditions
#
# SGD is sure to converge if
#
# $$\sum_k \varepsilon_k = \infty \quad\text{(any distance can be travelled)} \qquad\text{and}\qquad
# \sum_k \varepsilon_k^2 < \infty \quad\text{(the noise dies out)}.$$

# %% slideshow={"slide_type": "skip"}
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

# %% [markdown] slideshow={"slide_type": "subslide"}
# The constant rate, $1/\sqrt k$ and the linear decay to a floor break the second condition, and $1/k^2$ breaks the
# first. Does that matter?


# %% [markdown] slideshow={"slide_type": "slide"}
# ## $O(1/k)$: strongly convex
#
# We let them run. All schedules here are $\varepsilon_k = \varepsilon_0\,(1 + k/10)^{-a}$, so one sweep over the
# exponent $a$ trains them all, from 8 random keys each. The curvatures lie between 1 and 4. (*Strongly* convex means that
# no curvature is near 0.) On these axes $k^{-a}$ is a straight line of slope $-a$.


# %% slideshow={"slide_type": "skip"}
def power(exponent):
    return gradtx.sgd(lambda k: 0.3 * (1 + k / 10) ** -exponent)


bowl = landscapes.noisy(landscapes.quadratic(condition_number=4.0, dim=10), sigma=1.0)
keys = jax.random.split(key, 8)
grid = {"exponent": [0.0, 0.5, 1.0, 2.0]}
strong = lab.sweep(bowl, power, grid, steps=3000, keys=keys, eval_every=30)

# %% alt="Excess error against the step for four decays of the rate, both axes logarithmic. A constant rate stays level, the others fall as their rate does, and the fastest decay stops short." tags=["cover"] slideshow={"slide_type": "subslide"}
lab.plot_convergence(strong, bowl.minimum, what="metric")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The excess error falls like the rate: not at all for $a = 0$, as $1/\sqrt k$ for $a = \frac12$, and as $1/k$ for
# $a = 1$, which is the best possible order. The schedule with $a = 2$ meets the second condition and breaks the first: its
# error is lowest at the start, but then it stops short of the minimum and stays there.


# %% [markdown] slideshow={"slide_type": "slide"}
# ## $O(1/\sqrt k)$: convex
#
# If some curvature is nearly zero, the way is long, and a rate of $1/k$ slows down too early. Here are 40 curvatures from
# $10^6$ down to 1, and noise that is strong enough to stop a constant rate:


# %% slideshow={"slide_type": "skip"}
def flat_power(exponent):
    return gradtx.sgd(lambda k: 1e-6 * (1 + k / 10) ** -exponent)


flat = landscapes.noisy(landscapes.quadratic(condition_number=1e6, dim=40), sigma=3e4)
convex = lab.sweep(flat, flat_power, grid, steps=3000, keys=keys[:6], eval_every=30)

# %% alt="Excess error of the ill-conditioned problem for the same four decays. The decay with exponent one half is lowest and falls as one over root k." slideshow={"slide_type": "subslide"}
lab.plot_convergence(convex, flat.minimum, what="metric")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now $a = \frac12$ is best, and its error falls as $1/\sqrt k$. This schedule just breaks the second condition. So the
# conditions are sufficient, but not necessary.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Nobody can do better
#
# Without further assumptions these orders cannot be improved (Nemirovski & Yudin 1983). For $1/\sqrt k$ one experiment
# shows the idea of the proof. Somebody chooses a sign $s = \pm 1$ and shows you $k$ tosses of a coin. Each toss is $+1$
# with probability $\frac12(1 + s\delta)$, and else $-1$. You choose a $\theta \in [-1, 1]$, and your cost is
# $-s\delta\theta$. That is a convex problem, with the tosses as noisy gradients. Nobody can do better than to guess the
# sign of the majority. But for $\delta = 1/\sqrt k$ the coin is nearly fair, and the guess is often wrong.

# %% slideshow={"slide_type": "skip"}
KS = 4 ** np.arange(2, 7)
rng = np.random.default_rng(0)
hard_excess, sgd_excess = [], []
for k in KS:
    delta = k**-0.5
    coins = np.where(rng.random((4000, k)) < (1 + delta) / 2, 1, -1)  # the sign is +1, in 4,000 trials
    guess = np.sign(coins.sum(1) + 0.5 * rng.choice([-1, 1], 4000))
    theta, mean = np.zeros(4000), np.zeros(4000)
    for i in range(k):  # SGD at the rate 1/√k, kept in [-1, 1], and the mean of its iterates
        theta = np.clip(theta + coins[:, i] / k**0.5, -1, 1)
        mean += theta / k
    hard_excess.append(delta * np.mean(1 - guess))
    sgd_excess.append(delta * np.mean(1 - mean))
hard_order, sgd_order = (-np.polyfit(np.log(KS), np.log(values), 1)[0] for values in (hard_excess, sgd_excess))
print(
    f"best possible guess: k^-{hard_order:.2f}; SGD: k^-{sgd_order:.2f}, {np.mean(np.divide(sgd_excess, hard_excess)):.1f} times as high"
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The excess error of the best possible guess falls as $1/\sqrt k$ and no faster, and that of SGD falls as fast. For
# strongly convex problems the bound of Cramér and Rao shows that $1/k$ is the limit (notebook 9).


# %% [markdown] slideshow={"slide_type": "slide"}
# ## Linear decay
#
# In practice the number of steps is known beforehand, and the rate falls in a straight line to about 1 % of its first
# value: $\varepsilon_k = (1-c)\,\varepsilon_0 + c\,\varepsilon_\tau$ with $c = \min(k/\tau, 1)$. We try several
# $\varepsilon_0$ on real data: logistic regression on 455 tumours, with minibatches of 4. Its minimum is known.


# %% slideshow={"slide_type": "skip"}
def constant(learning_rate):
    return gradtx.sgd(learning_rate)


def decaying(learning_rate):
    return gradtx.sgd(gradtx.linear_decay(learning_rate, learning_rate / 100, steps=1600))


problem = lab.problems.breast_cancer()
rates = {"learning_rate": 0.004 * 4.0 ** np.arange(6)}
tumours = {
    tx.__name__: lab.sweep(problem, tx, rates, steps=2000, keys=keys[:3], batch_size=4) for tx in (constant, decaying)
}

# %% alt="Final excess of the training loss against the first rate, for a constant rate and for a linear decay. The decay has its lowest point at a higher rate, and it is lower." slideshow={"slide_type": "subslide"}
lab.plot_sensitivity(tumours, by="train_loss", minimum=problem.optimum)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The decay allows a higher first rate, which makes fast progress, and later it removes the noise. The lowest point of its
# curve is lower than that of the constant rates, and lies at a higher rate. At low rates the decay only slows training down.
#
# Two numbers are left to choose: the floor $\varepsilon_\tau$ and the time $\tau$. We try five floors and four times, each
# from 6 keys, at the best first rate:

# %% slideshow={"slide_type": "skip"}
first = float(rates["learning_rate"][np.argmin(tumours["decaying"].final("train_loss").mean(1))])


def to_floor(floor):
    return gradtx.sgd(gradtx.linear_decay(first, first * floor, steps=1600))


def for_time(tau):
    return gradtx.sgd(gradtx.linear_decay(first, first / 100, steps=tau))


FLOORS, TIMES = [0.0, 0.001, 0.01, 0.1, 1.0], [50, 400, 1600, 6400]
settings = {"steps": 2000, "keys": jax.random.split(jax.random.key(4), 6), "batch_size": 4, "eval_every": 100}
floors = lab.sweep(problem, to_floor, {"floor": FLOORS}, **settings).train_loss - problem.optimum
times = lab.sweep(problem, for_time, {"tau": TIMES}, **settings).train_loss - problem.optimum
at_floor, at_time = floors[..., -1].mean(1), times[..., -1].mean(1)

# %% slideshow={"slide_type": "skip"}
_, (left, right) = plt.subplots(1, 2, sharey=True)
grid_steps = 100 * np.arange(21)
for floor, values in zip(FLOORS, floors, strict=True):
    left.semilogy(grid_steps, values.mean(0), "o-", ms=3, label=f"floor {floor:.1%} of the first rate")
for tau, values in zip(TIMES, times, strict=True):
    right.semilogy(grid_steps, values.mean(0), "o-", ms=3, label=f"τ = {tau}")
left.set(xlabel="optimizer step", ylabel="excess training loss", title="The floor: below 1 % nothing is gained")
right.set(xlabel="optimizer step", title="The time τ: how quickly the rate falls")
left.legend()
right.legend()
figure = plt.gcf()
plt.close()

# %% alt="Left: excess training loss over the steps for five floors; all floors of at most ten percent end low, one hundred percent ends far higher. Right: the same for four decay times; a decay that is over after 50 steps gets stuck high, a very long one has not finished falling." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Left: a constant rate (100 %) ends far higher than all others. Here 10 % is as good as 1 %, and a floor below 1 % gains
# nothing. Right: if the rate falls too soon, the run gets stuck high, and if it falls too late, the noise remains.
#
# Why not let the rate fall to zero? Because one then cannot tell a run that has stopped from a run that has converged.
# Here are two runs on the digits, whose rate falls within 60 steps: to 0, and to 1 %. After step 60 the first one never
# moves again. Its loss is perfectly flat, and yet its gradient is far from zero.

# %% slideshow={"slide_type": "skip"}
digits = lab.problems.digits(hidden=16)


def fading(floor):
    return gradtx.sgd(gradtx.linear_decay(1.0, floor, steps=60))


flat_ends = {
    floor: lab.run(digits, fading(floor), steps=600, batch_size=64, eval_every=60, key=key) for floor in (0.0, 0.01)
}
stopped, going = flat_ends.values()
left_over = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(digits.loss)(stopped.params, digits.train))))
print("training loss with floor 0:  ", stopped.train_loss.round(4))
print("training loss with floor 1 %:", going.train_loss.round(4))
print(f"norm of the whole gradient where the first one stopped: {left_over:.2f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Finding $\varepsilon_0$: the range test
#
# The range test is one short run in which the rate grows from far too low to far too high. The loss falls fastest at a
# good rate, and it leaps up at a rate that is too high. We test a small network on images of digits, with 100 minibatches
# of 128.

# %% alt="Loss against the learning rate during a range test. The loss falls slowly, then quickly, and leaps up at a rate of several units." slideshow={"slide_type": "subslide"}
order = gradtx.shuffled_epochs(key, digits.num_examples, batch_size=128, epochs=10)[:100]  # [100, 128] indices
batches = jax.tree.map(lambda x: x[order], digits.train)
test = gradtx.lr_range_test(digits.loss, digits.init(key), lowest=1e-3, highest=30.0, batches=batches)
lab.plot_range_test(test)

# %% [markdown] slideshow={"slide_type": "subslide"}
# We compare it with whole runs of 400 steps, at 16 constant rates from five keys each. Which rate is best after 20 steps,
# and which in the end? (Losses are geometric means over the keys.)

# %% slideshow={"slide_type": "skip"}
rates = {"learning_rate": 2.0 ** np.arange(-5, 2.51, 0.5)}
whole = lab.sweep(digits, constant, rates, steps=400, keys=jax.random.split(key, 5), batch_size=128, eval_every=20)
log_loss = np.log(whole.train_loss)  # [rate, key, evaluation]
best = {int(whole.eval_steps[i]): float(rates["learning_rate"][log_loss[..., i].mean(1).argmin()]) for i in (1, 5, 20)}
by_key = {i: rates["learning_rate"][log_loss[..., i].argmin(0)] for i in (1, 20)}

# %% slideshow={"slide_type": "skip"}
for i in (1, 5, 20):
    steps = int(whole.eval_steps[i])
    label = f"after {steps} steps: best at {best[steps]:.2f}"
    plt.loglog(rates["learning_rate"], np.exp(log_loss[..., i].mean(1)), "o-", ms=4, label=label)
plt.axvline(test.steepest, color="k", ls=":", label=f"range test, steepest: {test.steepest:.2f}")
plt.title("The best rate of the whole run lies above that of the first steps")
plt.gca().set(xlabel="learning rate", ylabel="training loss")
plt.legend(loc="lower left")
figure = plt.gcf()
plt.close()

# %% alt="Training loss against the learning rate after 20, 100 and 400 steps. The lowest point moves to the right a little from the first steps to the last; beyond it the loss leaps up." slideshow={"slide_type": "subslide"}
figure

# %% slideshow={"slide_type": "skip"}
print("excess at the end by floor:", ", ".join(f"{f:g}: {x:.5f}" for f, x in zip(FLOORS, at_floor, strict=True)))
print("best rate after 20 steps, key by key:", by_key[1].round(2), " after 400:", by_key[20].round(2))

# %% [markdown] slideshow={"slide_type": "subslide"}
# After the first 20 steps a moderate rate is best. At the end a somewhat higher one is best, and a still higher one
# diverges. So choose a rate a little above the one that is best early on. The range test finds a good rate only
# within a factor of 4, but it needs only 100 steps for that.

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** Find the order of magnitude with a range test and start a little above the rate that is best after a few steps.
# Let the rate fall linearly to 1 % of it over most of the run. Do not let it fall to zero.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. A bowl has curvatures 2 and 50. Which rates let plain descent converge, and which is the best?
# 2. In the cloud, by which factor does the excess error fall if you halve the rate?
# 3. Which of Robbins and Monro's conditions does $\varepsilon_k = 0.3 \cdot 0.99^k$ break, and what happens?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. Rates below $2/50 = 0.04$. The best one shrinks both errors equally: $2/(2 + 50) \approx 0.038$.
# 2. By about two: the height of the cloud is in proportion to the rate.
# 3. The first: the sum of the rates is finite, 30. If the way to the minimum is longer than 30 times the usual gradient,
#    SGD stops short of it.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
orders = {a: lab.convergence_order(strong.eval_steps, strong.metric[i]) for i, a in enumerate(grid["exponent"])}
flat_orders = {a: lab.convergence_order(convex.eval_steps, convex.metric[i]) for i, a in enumerate(grid["exponent"])}
floor = sum(0.3 / (2 * (2 - 0.3 * bowl.hessian_eigenvalues)))
lowest = {name: sweep.final("train_loss").mean(axis=1) for name, sweep in tumours.items()}

too_high = lab.run(valley, gradtx.sgd(0.21), steps=30, key=key)
assert too_high.metric[-1] > 3 * too_high.metric[0]  # 4.1.2.4c: beyond 2/λ descent oscillates and diverges
bounces = np.sum(np.diff(np.sign(paths["ε = 0.185"].iterates @ [-np.sin(0.6), np.cos(0.6)])) != 0)
assert bounces > 20  # 4.1.2.4c: mild swings are fine
assert paths["ε = 0.185"].metric[-1] < paths["ε = 0.1"].metric[-1]  # 4.1.2.4c: mild swings are fine
assert paths["ε = 0.01"].metric[-1] > 100 * paths["ε = 0.1"].metric[-1]  # 4.1.2.4d: too small a rate stays high
lows = np.exp(log_loss[0, :, -1])
assert lows.min() > 5 * np.exp(log_loss[..., -1].mean(1).min())  # 4.1.2.4d: and so it does on the digits, for each key
assert np.isclose(strong.metric[0, :, 20:].mean(), floor, rtol=0.1)  # 4.1.2.1: a constant rate ends at the known height
assert [name for name, report in reports.items() if report.satisfied] == ["1/k"]  # 4.1.2.2: only 1/k keeps both
excess = {a: strong.metric[i].mean(0) for i, a in enumerate(grid["exponent"])}
place = {k: int(np.argmax(strong.eval_steps >= k)) for k in (300, 1000, 3000)}
assert excess[1.0][-1] < 0.02 * excess[0.0][-1]  # 4.1.2.2: with both conditions kept, SGD converges
assert excess[2.0][-1] > 0.9 * excess[2.0][place[1000]] > 1e-3  # 4.1.2.2: with the first one broken, it stops short
assert all(abs(orders[a] - a) < 0.25 for a in (0.0, 0.5, 1.0))  # 4.1.3.2b: strongly convex: 1/k at best
assert 0.4 < flat_orders[0.5] < 0.65  # 4.1.3.2a: convex: 1/√k, and that is the best
assert convex.order("metric")[0] == 1  # 4.1.3.2a: convex: 1/√k, and that is the best
assert 0.45 < hard_order < 0.55  # 4.1.3.2c: on the hard problem the best possible guess is no faster than 1/√k
assert np.all(np.array(sgd_excess) > 0.95 * np.array(hard_excess))  # 4.1.3.2c: SGD is as fast
assert 0.4 < sgd_order < 0.6  # 4.1.3.2c: SGD is as fast
schedule = gradtx.linear_decay(0.3, 0.003, steps=1600)
line = np.array([schedule(k) for k in (0, 400, 800, 1200, 1600, 1601, 5000)])
assert np.allclose(line[:5], np.linspace(0.3, 0.003, 5))  # 4.1.2.3a: a line, then constant
assert np.allclose(line[5:], 0.003)  # 4.1.2.3a: a line, then constant
assert lowest["decaying"].min() - problem.optimum < 0.7 * (
    lowest["constant"].min() - problem.optimum
)  # 4.1.2.3a: it pays
assert lowest["decaying"].argmin() > lowest["constant"].argmin()  # 4.1.2.3a: and allows a higher first rate
assert at_floor[2] < 2 * at_floor.min()  # 4.1.2.4a: a floor of 1 % is low enough
assert at_floor[4] > 10 * at_floor[2]  # 4.1.2.4a: a floor of 1 % is low enough
assert min(at_floor[:2]) > 0.8 * at_floor[2]  # 4.1.2.4a: and a lower one gains nothing
speed = [float(gradtx.linear_decay(1.0, 0.01, steps=tau)(40)) for tau in TIMES]
assert speed == sorted(speed)  # 4.1.2.4b: the smaller τ, the sooner the rate is low
assert speed[0] < 0.25 < 0.9 < speed[2]  # 4.1.2.4b: the smaller τ, the sooner the rate is low
assert at_time[0] > 2 * at_time.min()  # 4.1.2.4b: a rate that falls too soon leaves the run high
assert np.ptp(stopped.train_loss[1:]) == 0  # 4.1.2.3b: it looks converged, its gradient says no
assert left_over > 0.1  # 4.1.2.3b: it looks converged, its gradient says no
assert going.train_loss[-1] < 0.9 * stopped.train_loss[-1]  # 4.1.2.3b: a floor of 1 % goes on
assert best[20] < best[400] <= 2 * best[20]  # 4.1.2.4e: a little above the early best
assert np.mean(by_key[20] > by_key[1]) > 0.7  # 4.1.2.4e: for most keys, each by itself
assert 0.25 < test.steepest / best[400] < 4  # beyond the chapter: the range test finds the neighbourhood
