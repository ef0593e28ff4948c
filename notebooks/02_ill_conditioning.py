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
# # 2 Ill-conditioning: why is learning slow where the gradient is strong?
#
# *Chapter §2.1.* You will see a valley whose walls forbid the rate that its floor would need; a gradient norm that
# grows while the loss falls, until one ratio crosses 1 and the loss turns upward; and what momentum and Newton's method
# do about it, also on real data.
#
# **The new idea**: `gradtx.curvature_ratio` reads that ratio in any run, at the cost of about one and a half gradients.

# %%
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)

# %% [markdown]
# ## A valley
#
# The *Hessian* $H$ holds the second derivatives. Its eigenvalues are the curvatures of the loss: here 1 along the
# valley and $\kappa$ across. Their ratio $\kappa$ is the *condition number*. Across, a step of plain descent multiplies
# the distance from the floor by $1 - \varepsilon\kappa$, so it diverges where the learning rate $\varepsilon$ exceeds
# $2/\kappa$; along, by $1 - \varepsilon$, which at such a rate is next to nothing.


# %%
def descend(condition_number):
    valley = landscapes.quadratic(condition_number, rotation=0.5)
    rate = 1.8 / condition_number
    methods = {"SGD": gradtx.sgd(rate), "momentum 0.8": gradtx.sgd(rate, momentum=0.8), "Newton": gradtx.newton()}
    return valley, {name: lab.run(valley, tx, steps=60, key=key) for name, tx in methods.items()}


valley, paths = descend(100.0)
lab.plot_trajectories(valley, paths)

# %% [markdown]
# Plain descent goes from wall to wall, then crawls; after sixty steps it is still far from the star. *Momentum* adds up
# what the steps agree on, the way along the floor. *Newton's method* multiplies the gradient by $H^{-1}$, which makes
# the valley round: one step.
#
# **Play**: in a live notebook, move $\kappa$. At 10 plain descent arrives too; at 10,000 momentum crawls as well.

# %%
lab.explore(
    lambda condition_number: lab.plot_trajectories(*descend(condition_number)), condition_number=[10.0, 1e3, 1e4]
)

# %% [markdown]
# How many steps does it take to bring the loss to a ten thousandth? Here each method has its best rate and momentum for
# each $\kappa$. As in a sweep, `vmap` trains all of them at once: rates and momenta may be numbers that JAX has yet to
# fill in.


# %%
@jax.jit
@jax.vmap
def heights(kappa, rate, momentum):
    tx, theta = gradtx.sgd(rate, momentum), jnp.ones(2)

    def loss(theta):
        return 0.5 * (theta[0] ** 2 + kappa * theta[1] ** 2)

    def step(carry, _):
        theta, state = carry
        updates, state = tx.update(jax.grad(loss)(theta), state)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), loss(theta) / loss(jnp.ones(2))

    return jax.lax.scan(step, (theta, tx.init(theta)), length=3000)[1]


kappas = jnp.array([10.0, 30.0, 100.0, 300.0, 1000.0])
root = jnp.sqrt(kappas)
plain = heights(kappas, 2 / (1 + kappas), jnp.zeros(5))
heavy = heights(kappas, 4 / (1 + root) ** 2, ((root - 1) / (root + 1)) ** 2)
steps = {name: jnp.argmax(loss < 1e-4, axis=1) + 1 for name, loss in {"SGD": plain, "momentum": heavy}.items()}

# %%
for name, count in steps.items():
    plt.loglog(kappas, count, "o-", label=name)
plt.loglog(kappas, 2 * kappas, "k--", lw=0.8, label="slope 1: ∝ κ")
plt.loglog(kappas, 8 * root, "k:", lw=0.8, label="slope ½: ∝ √κ")
plt.xlabel("condition number κ")
plt.ylabel("steps to a ten thousandth of the loss")
plt.legend()
plt.show()

# %% [markdown]
# Plain descent needs steps in proportion to $\kappa$, momentum in proportion to $\sqrt\kappa$.
#
# ## The ratio that crosses 1
#
# The chapter's own test. To second order a step $-\varepsilon g$ changes the loss by
#
# $$-\varepsilon\, g^\top g + \tfrac12 \varepsilon^2\, g^\top H g,$$
#
# so it raises the loss where $r = \tfrac12\varepsilon^2\, g^\top H g \,/\, \varepsilon\, g^\top g$ exceeds 1. Here is a
# run that starts on the floor of the valley, a thousandth off, at a rate 2 % too high.

# %%
floor = replace(landscapes.quadratic(100.0), start=[1.0, 0.001])
rate = 2.04 / 100
look = [gradtx.gradient_norm(), gradtx.curvature_ratio(rate)]
run = lab.run(floor, optax.chain(*look, gradtx.sgd(rate)), steps=110, key=key)
curves = {"loss": run.loss, "gradient norm ‖g‖": run.readings["gradient_norm/global"]}
curves |= {"g'Hg": run.readings["curvature_ratio/gHg"], "r": run.readings["curvature_ratio/ratio"]}
for name, curve in curves.items():
    plt.semilogy(curve, label=name, lw=2.5 if name == "r" else 1.5)
crossing = int(jnp.argmax(curves["r"] > 1))
plt.axvline(crossing, color="k", lw=0.8, ls="--", label=f"r crosses 1: step {crossing}")
plt.xlabel("optimizer step")
plt.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# Look at the steps before the dashed line. The loss still falls, along the floor, and yet the gradient norm grows, and
# $g^\top H g$ by more than an order of magnitude: the steps across get longer and longer. That is the symptom the
# chapter names: a strong gradient, a falling loss, and trouble that only the curvature shows. Where $r$ crosses 1, the
# loss turns.
#
# ## Real data
#
# Linear regression on 442 patients of diabetes. Some blood values are nearly copies of each other, so the loss is a
# quadratic whose Hessian has condition number 442, in eleven dimensions.

# %%
problem = lab.problems.diabetes()
inputs = jnp.column_stack([problem.train[0], jnp.ones(problem.num_examples)])
curvatures = jnp.linalg.eigvalsh(inputs.T @ inputs / problem.num_examples)
print("curvatures", curvatures, "condition number", curvatures[-1] / curvatures[0])

# %%
methods = {"SGD": gradtx.sgd(0.45), "momentum 0.9": gradtx.sgd(0.45, momentum=0.9), "Newton": gradtx.newton()}
look = [gradtx.gradient_norm(), gradtx.curvature_ratio(0.45)]
patients = {
    name: lab.run(problem, optax.chain(*look, tx), steps=200, batch_size="all", key=key) for name, tx in methods.items()
}
for name, history in patients.items():
    excess = jnp.maximum(history.loss - problem.optimum, 1e-7)  # single precision sees no less
    plt.loglog(jnp.arange(1, 201), excess, label=name)
plt.xlabel("optimizer step, from 1")
plt.ylabel("loss above the minimum")
plt.legend()
plt.show()

# %% [markdown]
# Newton is there after one step. Plain descent falls fast along the steep directions, then crawls along the flattest
# one; momentum overtakes it.
#
# Why not always Newton? It solves a system of as many equations as there are parameters, at every step; it needs the
# Hessian of far more examples than a minibatch holds; and it walks into saddle points (notebook 3). For networks it
# needs changes.
#
# ## Finding it in a run
#
# Nothing above needs to be known beforehand. `gradtx.diagnose` compares the steepest curvature that a run met with the
# one it crawls along.

# %%
narrow = landscapes.quadratic(1000.0)
look = [gradtx.gradient_norm(), gradtx.curvature_ratio(1.5e-3)]
sick = lab.run(narrow, optax.chain(*look, gradtx.sgd(1.5e-3)), steps=300, key=key)
finding = gradtx.diagnose(sick).findings[0]
print(finding.title, "| chapter", finding.section)
print(finding.evidence)
print(finding.remedy)

# %%
cured = lab.run(narrow, gradtx.sgd(1.5e-3, momentum=0.9), steps=300, key=key)
print("loss after 300 steps: plain", sick.loss[-1], "with momentum", cured.loss[-1])

# %% [markdown]
# ## What was claimed, checked

# %%
ends = {name: history.loss[-1] for name, history in paths.items()}
assert ends["Newton"] < 1e-8 < ends["momentum 0.8"] < 0.1 * ends["SGD"]  # one step, a few, and a crawl
slopes = {name: jnp.polyfit(jnp.log(kappas), jnp.log(count), 1)[0] for name, count in steps.items()}
assert 0.9 < slopes["SGD"] < 1.1  # plain descent: steps in proportion to κ
assert 0.4 < slopes["momentum"] < 0.65  # momentum: to √κ
norm, growth = curves["gradient norm ‖g‖"], curves["g'Hg"]
before = int(jnp.argmin(norm[:crossing]))
assert norm[crossing] > 1.5 * norm[before]  # the gradient norm grows
assert growth[crossing] > 8 * growth[before]  # g'Hg by about an order of magnitude
assert run.loss[crossing] < 0.8 * run.loss[before]  # while the loss falls
rises, above = jnp.diff(run.loss) > 0, curves["r"][:-1] > 1
assert jnp.mean(rises == above) > 0.97  # the loss rises where r > 1, and only there (rounding apart)
assert 400 < curvatures[-1] / curvatures[0] < 480  # condition number of the diabetes data
assert patients["Newton"].loss[1] - problem.optimum < 1e-5  # Newton: there after one step
assert patients["momentum 0.9"].loss[-1] < patients["SGD"].loss[-1]  # momentum overtakes
assert "ill_conditioning" in gradtx.diagnose(sick).challenges  # found
assert cured.loss[-1] < 0.01 * sick.loss[-1]  # and cured
