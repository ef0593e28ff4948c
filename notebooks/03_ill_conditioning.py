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
# # 3 · Ill-conditioning: why is learning slow although the gradient is strong?
#
# *Chapter §2.1.* You will see a valley whose steep walls allow only a small learning rate, although its flat floor would
# need a large one. You will see a gradient norm that grows while the error falls, also on a real network, and a ratio
# that shows when a step raises the loss. Momentum and Newton's method help. You will see why Newton's method is still
# not the usual choice for networks.
#
# **New in gradtx:** `gradtx.curvature_ratio` measures that ratio in any run, at the cost of about one and a half gradients.

# %% slideshow={"slide_type": "skip"}
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A valley
#
# The *Hessian* $H$ holds the second derivatives. Its eigenvalues are the curvatures of the loss: here 1 along the
# valley and $\kappa$ across. Their ratio $\kappa$ is the *condition number*. Across the valley, a step of plain descent
# multiplies the distance from the floor by $1 - \varepsilon\kappa$, so it diverges if the learning rate $\varepsilon$
# exceeds $2/\kappa$. Along the valley it multiplies the distance by $1 - \varepsilon$. At such a small rate this factor
# is nearly 1, so there is hardly any progress.
#
# Two methods are compared with plain descent. *Momentum* (notebook 11) keeps a running sum of past steps and moves by
# it: steps that agree add up, steps that alternate cancel. *Newton's method* multiplies the gradient by $H^{-1}$, the
# inverse of the Hessian.


# %% slideshow={"slide_type": "skip"}
def descend(condition_number):
    valley = landscapes.quadratic(condition_number, rotation=0.5)
    rate = 1.8 / condition_number
    methods = {"SGD": gradtx.sgd(rate), "momentum 0.8": gradtx.sgd(rate, momentum=0.8), "Newton": gradtx.newton()}
    return valley, {name: lab.run(valley, tx, steps=60, key=key) for name, tx in methods.items()}


valley, paths = descend(100.0)

# %% alt="Paths in a narrow valley. Plain descent zigzags and is still far from the minimum after 60 steps, momentum arrives, Newton's method is there after one step." slideshow={"slide_type": "subslide"}
lab.plot_trajectories(valley, paths)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Plain descent (SGD, blue) goes from wall to wall, and then it crawls. After sixty steps it is still far from the star.
# Momentum adds up the steps along the floor and arrives. Newton's method makes the valley round, so it needs one step.
#
# **Play**: in a live notebook, move $\kappa$. At 10 plain descent arrives too; at 10,000 momentum crawls as well.

# %% alt="The same three paths in a valley of condition number 300: plain descent and momentum are both still far from the minimum, momentum less so." slideshow={"slide_type": "subslide"}
lab.explore(
    lambda condition_number: lab.plot_trajectories(*descend(condition_number)), condition_number=[10.0, 300.0, 1e4]
)

# %% [markdown] slideshow={"slide_type": "subslide"}
# How many steps does it take until the loss is a ten thousandth of its first value? Here each method has its best rate
# and momentum for each $\kappa$. `jax.vmap` trains all of them at once. This works because rate and momentum
# may be arguments of a compiled function.


# %% slideshow={"slide_type": "skip"}
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


kappas = np.array([10.0, 30.0, 100.0, 300.0, 1000.0])
root = np.sqrt(kappas)
plain = heights(kappas, 2 / (1 + kappas), np.zeros(5))
heavy = heights(kappas, 4 / (1 + root) ** 2, ((root - 1) / (root + 1)) ** 2)
steps = {
    name: np.argmax(np.asarray(loss) < 1e-4, axis=1) + 1 for name, loss in {"SGD": plain, "momentum": heavy}.items()
}

# %% slideshow={"slide_type": "skip"}
for name, count in steps.items():
    plt.loglog(kappas, count, "o-", label=name)
plt.loglog(kappas, 2 * kappas, "k--", lw=0.8, label="slope 1: ∝ κ")
plt.loglog(kappas, 8 * root, "k:", lw=0.8, label="slope ½: ∝ √κ")
plt.xlabel("condition number κ")
plt.ylabel("steps to a ten thousandth of the loss")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Steps to a ten thousandth of the loss against the condition number, both axes logarithmic: slope 1 for plain descent, slope one half for momentum." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Plain descent needs steps in proportion to $\kappa$: the walls force the rate down to $2/(1+\kappa)$, however strong the
# gradient is. Momentum needs steps in proportion to $\sqrt\kappa$.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The ratio that rises above 1
#
# The chapter itself gives this test. To second order a step $-\varepsilon g$ changes the loss by
#
# $$-\varepsilon\, g^\top g + \tfrac12 \varepsilon^2\, g^\top H g,$$
#
# so it raises the loss if $r = \tfrac12\varepsilon^2\, g^\top H g \,/\, \varepsilon\, g^\top g$ exceeds 1. Here is a
# run that starts only a thousandth away from the floor of the valley, at a rate that is 2 % too high.

# %% slideshow={"slide_type": "skip"}
floor = replace(landscapes.quadratic(100.0), start=[1.0, 0.001])
rate = 2.04 / 100
look = [gradtx.gradient_norm(), gradtx.curvature_ratio(rate)]
run = lab.run(floor, optax.chain(*look, gradtx.sgd(rate)), steps=110, key=key)
curves = {"loss": run.loss, "gradient norm ‖g‖": run.readings["gradient_norm/global"]}
curves |= {"g'Hg": run.readings["curvature_ratio/gHg"], "r": run.readings["curvature_ratio/ratio"]}
for name, curve in curves.items():
    plt.semilogy(curve, label=name, lw=2.5 if name == "r" else 1.5)
crossing = int(np.argmax(curves["r"] > 1))
plt.axvline(crossing, color="k", lw=0.8, ls="--", label=f"r crosses 1: step {crossing}")
plt.gca().set(xlabel="optimizer step", ylabel="value", title="The loss turns when the ratio r crosses 1")
plt.legend(loc="upper left", bbox_to_anchor=(1, 1))
figure = plt.gcf()
plt.close()

# %% alt="Loss, gradient norm, g'Hg and the ratio r over 110 steps. The loss falls until r crosses 1 and rises afterwards, while the norm and g'Hg grow all the time." tags=["cover"] slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Look at the steps before the dashed line. The loss still falls, along the floor, and yet the gradient norm grows, and
# $g^\top H g$ grows by more than an order of magnitude, because the steps across get longer and longer. That is the
# symptom that the chapter names: the gradient is strong and the loss falls, and only the curvature shows the trouble. The
# loss begins to rise at the step at which $r$ exceeds 1.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The same on a real network
#
# Does this happen in practice? Here is a small convolutional network on images of digits, trained for six epochs from
# five seeds by plain descent with minibatches of 16. The book has this figure for its own network: on the left the norm of
# the gradient, on the right the error on the validation set.

# %% slideshow={"slide_type": "skip"}
network = lab.problems.digits_cnn(channels=4)
EPOCHS, PER_EPOCH = 6, network.num_examples // 16
watch = optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.03))
runs = [
    lab.run(network, watch, steps=EPOCHS * PER_EPOCH, batch_size=16, eval_every=PER_EPOCH, key=seed)
    for seed in jax.random.split(key, 5)
]
norms = np.stack([run.readings["gradient_norm/global"].reshape(EPOCHS, PER_EPOCH).mean(1) for run in runs])
errors = np.stack([1 - run.metric for run in runs])

# %% slideshow={"slide_type": "skip"}
_, (left, right) = plt.subplots(1, 2)
left.plot(range(1, EPOCHS + 1), norms.T, "o-", lw=0.8, ms=3, color="C0")
left.set(xlabel="epoch", ylabel="norm of the minibatch gradient", title="The gradient norm grows ...", ylim=(0, None))
right.plot(range(EPOCHS + 1), errors.T, "o-", lw=0.8, ms=3, color="C1")
right.set(xlabel="epoch", ylabel="validation error", title="... while the error falls", ylim=(0, None))
figure = plt.gcf()
plt.close()

# %% alt="Two panels over six epochs, five runs each. Left: the mean gradient norm rises from about 1 in the first epoch to about 3 and stays there. Right: the validation error falls from 90 to about 15 percent." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# In all five runs the norm of the last epoch is larger than that of the first, and training succeeds all the same. So a
# norm that stays large does not mean that training fails, and good training does not need a small norm. (The figure shows
# the norm of minibatch gradients, so part of it is noise: notebooks 5 and 8.)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Real data
#
# The next problem is a linear regression on data of 442 patients with diabetes. Some blood values are nearly copies of
# each other. So the loss is a quadratic in eleven dimensions whose Hessian has a condition number of about 440.

# %% slideshow={"slide_type": "subslide"}
problem = lab.problems.diabetes()
inputs = np.column_stack([problem.train[0], np.ones(problem.num_examples)])
curvatures = np.linalg.eigvalsh(inputs.T @ inputs / problem.num_examples)
print("curvatures", curvatures.round(4), f"condition number {curvatures[-1] / curvatures[0]:.0f}")

# %% slideshow={"slide_type": "skip"}
methods = {"SGD": gradtx.sgd(0.45), "momentum 0.9": gradtx.sgd(0.45, momentum=0.9), "Newton": gradtx.newton()}
look = [gradtx.gradient_norm(), gradtx.curvature_ratio(0.45)]
patients = {
    name: lab.run(problem, optax.chain(*look, tx), steps=200, batch_size="all", key=key) for name, tx in methods.items()
}
for name, history in patients.items():
    excess = np.maximum(history.loss - problem.optimum, 1e-7)  # single precision cannot show smaller differences
    plt.loglog(np.arange(1, 201), excess, label=name)
plt.xlabel("optimizer step, from 1")
plt.ylabel("loss above the minimum")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Loss above the minimum for the diabetes data. Newton's method is at the bottom after one step, momentum overtakes plain descent." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Newton's method is at the minimum after one step. Plain descent falls fast along the steep directions, and then it
# crawls along the flattest one. Momentum overtakes it.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why not always Newton?
#
# For $n$ parameters, Newton's method keeps a matrix of $n \times n$ numbers and solves a system with it at every step.
# Here is the working memory of one compiled step. On a log-log plot a slope of 2 means $n^2$.


# %% slideshow={"slide_type": "skip"}
def step_memory(n):
    tx, theta = gradtx.newton(), jnp.ones(n)

    def loss(theta):
        return jnp.sum(jnp.cosh(theta))

    def step(theta):
        return tx.update(jax.grad(loss)(theta), tx.init(theta), theta, value_fn=loss)[0]

    return jax.jit(step).lower(theta).compile().memory_analysis().temp_size_in_bytes


widths = [100, 200, 400]
memory = [step_memory(n) for n in widths]
growth_of_memory = np.polyfit(np.log(widths), np.log(memory), 1)[0]
print({n: f"{size / 1024:.0f} KiB" for n, size in zip(widths, memory, strict=True)}, f"slope {growth_of_memory:.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# At $n = 10^6$ such a matrix takes 4 terabytes. The time of a step grows even faster, as $n^3$. Besides, a full Newton
# step on a network is not safe. The cost is not a quadratic, and if a curvature is near zero, $H^{-1}g$ is far too long.
# Here are fifteen steps on a network with two hidden units, with all examples, from three seeds:

# %% slideshow={"slide_type": "skip"}
tiny = lab.problems.digits(hidden=2)
attempts = {"Newton": gradtx.newton(), "SGD": gradtx.sgd(1.0)}
on_network = {
    name: [lab.run(tiny, tx, steps=15, eval_every=5, batch_size="all", key=seed) for seed in jax.random.split(key, 3)]
    for name, tx in attempts.items()
}
for name, histories in on_network.items():
    print(name, "training losses from and to:", [f"{h.train_loss[0]:.2f}, {h.train_loss[-1]:.3g}" for h in histories])

# %% [markdown] slideshow={"slide_type": "subslide"}
# Newton's method throws the parameters far away. It needs changes before it suits networks: shorter steps (damping),
# absolute values of the curvatures (notebook 5), an approximation instead of the full matrix, and the Hessian of far
# more examples than a minibatch holds (notebook 8).

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Finding it in a run
#
# You need not know the curvatures beforehand. `gradtx.diagnose` compares the steepest curvature that a run met with the
# one along which the run crawls in the end. It prints its evidence and a remedy.

# %% slideshow={"slide_type": "subslide"}
narrow = landscapes.quadratic(1000.0)
look = [gradtx.gradient_norm(), gradtx.curvature_ratio(1.5e-3)]
sick = lab.run(narrow, optax.chain(*look, gradtx.sgd(1.5e-3)), steps=300, key=key)
finding = gradtx.diagnose(sick).findings[0]
print(finding.title, "| chapter", finding.section)
print(finding.evidence)
print(finding.remedy)

# %% [markdown] slideshow={"slide_type": "subslide"}
# We try the remedy. `heavy_ball(0.95)` behind plain descent is momentum with $\alpha = 0.95$ (notebook 11):

# %% slideshow={"slide_type": "subslide"}
cured = lab.run(narrow, optax.chain(gradtx.sgd(1.5e-3), gradtx.heavy_ball(0.95)), steps=300, key=key)
print(f"loss after 300 steps: plain {sick.loss[-1]:.2g}, with momentum {cured.loss[-1]:.2g}")

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** The largest curvature limits the learning rate, and the smallest one decides how long you walk at that
# rate. Read the curvature ratio rather than the gradient norm. Momentum needs about $\sqrt\kappa$ steps instead of
# $\kappa$, and Newton's method does not depend on $\kappa$ at all, but it suits only small and smooth problems.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. At $\kappa = 100$ and $\varepsilon = 0.018$, how many steps does plain descent need to halve the distance along the
#    floor?
# 2. In the figure of the ratio, why does the loss fall at first, although the rate is too high?
# 3. Rescale the inputs of a regression so that all have the same variance. What does that do to $\kappa$?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. About 38: $(1 - 0.018)^k = 1/2$ gives $k = \ln 2 / 0.018$.
# 2. It starts near the floor, where the steep direction hardly contributes. The swing across grows by 4 % per step, and
#    it takes some time until it outweighs the progress along the floor.
# 3. It removes the part of $\kappa$ that comes from different scales. Correlated inputs stay ill-conditioned, as in the
#    diabetes data.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
ends = {name: history.loss[-1] for name, history in paths.items()}
assert ends["Newton"] < 1e-8 < ends["momentum 0.8"] < 0.1 * ends["SGD"]  # 2.1.1b: Newton is there, plain descent crawls
slopes = {name: np.polyfit(np.log(kappas), np.log(count), 1)[0] for name, count in steps.items()}
assert 0.9 < slopes["SGD"] < 1.1  # 2.1.3d: at its best stable rate plain descent needs steps in proportion to κ
assert 0.4 < slopes["momentum"] < 0.65  # beyond the chapter: momentum needs steps in proportion to √κ
norm, growth = curves["gradient norm ‖g‖"], curves["g'Hg"]
before = int(np.argmin(norm[:crossing]))
assert norm[crossing] > 1.5 * norm[before]  # 2.1.3c: norm up, loss down
assert run.loss[crossing] < 0.8 * run.loss[before]  # 2.1.3c: norm up, loss down
growth_of_square = (norm[crossing] / norm[before]) ** 2
assert growth[crossing] / growth[before] > 2 * growth_of_square  # 2.1.3c: g'Hg grows faster than g'g
rises, above = np.diff(run.loss) > 0, curves["r"][:-1] > 1
assert np.mean(rises == above) > 0.97  # 2.1.2: the loss rises if r > 1, and only then (rounding apart)
assert rate < 0.02 * 2 / min(floor.hessian_eigenvalues)  # 2.1.1a: a rate far below the limit of the flat direction
assert run.loss[-1] > 2 * run.loss[crossing]  # 2.1.1a: and yet its steps raise the loss
gentle = patients["Newton"].readings["gradient_norm/global"]
calm = lab.run(valley, optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.018)), steps=1000, key=key)
fall = calm.readings["gradient_norm/global"]
assert fall[-1] < 1e-3 * fall[0]  # 2.1.3a: at a stable rate the norm tends to 0
assert gentle[-1] < 1e-3 * gentle[0]  # 2.1.3a: at a stable rate the norm tends to 0
assert np.all(norms[:, -1] > 1.2 * norms[:, 0])  # 2.1.3b: in five of five networks the norm has grown
assert np.all(errors[:, -1] < errors[:, 1] - 0.2)  # 2.1.3b: while the validation error fell
assert 400 < curvatures[-1] / curvatures[0] < 480  # beyond the chapter: the condition number of the diabetes data
assert patients["Newton"].loss[1] - problem.optimum < 1e-5  # 2.1.1b: on real data too, Newton is there after one step
assert patients["momentum 0.9"].loss[-1] < patients["SGD"].loss[-1]  # beyond the chapter: momentum overtakes
assert 1.8 < growth_of_memory < 2.2  # 2.1.1c: the memory of a Newton step grows as n²
assert all(not h.train_loss[-1] < h.train_loss[0] for h in on_network["Newton"])  # 2.1.1c: it does not train a network
assert all(h.train_loss[-1] < h.train_loss[0] - 0.2 for h in on_network["SGD"])  # 2.1.1c: which plain descent does
assert "ill_conditioning" in gradtx.diagnose(sick).challenges  # beyond the chapter: found in a run
assert cured.loss[-1] < 0.01 * sick.loss[-1]  # beyond the chapter: and cured by momentum
