# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8 · Adaptive learning rates: should every parameter have its own?
#
# The learning rate ε is hard to choose because the cost is steep along some parameters and flat along others: what is
# too much for one is too little for the next. Adaptive methods give each parameter a rate of its own, and correct it
# while they train (chapter §5).
#
# You will see
# 1. **delta-bar-delta**, which reads the sign of each derivative, and why it wants the whole training set;
# 2. **AdaGrad** and **RMSProp**, which divide by the size of past gradients: their steps against the closed forms;
# 3. AdaGrad's rate **dying too early** in a real network;
# 4. RMSProp **with Nesterov momentum**, put together from two blocks;
# 5. a valley in which none of this helps.
#
# *New in gradtx here*: every method is a **block** (`scale_by_rms`, `nesterov`, ...) and a recipe made of blocks, so
# you can compose your own.

# %%
from functools import cache

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)

# %% [markdown]
# ## 1 · Delta-bar-delta: the sign tells (§5.1)
#
# While a derivative d keeps its sign, the steps in that direction were too short: raise that parameter's rate λ. When
# the sign flips, they were too long: lower it. With d̄ a running mean of past d,
#
# $$\lambda \leftarrow \lambda + \kappa \;\text{ if } \bar d\, d > 0, \qquad
# \lambda \leftarrow (1-\varphi)\,\lambda \;\text{ if } \bar d\, d < 0, \qquad
# \theta \leftarrow \theta - \lambda\, d .$$
#
# The bowl below is 100 times steeper upwards than sideways. Plain gradient descent takes the largest rate that the
# steep direction allows, and crawls along the flat one.

# %%
bowl = landscapes.quadratic(condition_number=100.0)
bar_delta = gradtx.delta_bar_delta(learning_rate=0.005, increase=0.005, decrease=0.5)
in_bowl = {
    "sgd": lab.run(bowl, gradtx.sgd(0.018), steps=60, key=key),
    "delta-bar-delta": lab.run(bowl, bar_delta, steps=60, key=key),
}
lab.plot_trajectories(bowl, in_bowl)

# %% [markdown]
# Delta-bar-delta goes straight for the star as soon as its sideways rate has grown. The two rates it ended with, which
# you find in the optimizer's state by their name:

# %%
rate_flat, rate_steep = optax.tree.get(in_bowl["delta-bar-delta"].opt_state, "rates")
print(f"flat direction {rate_flat:.3f}, steep direction {rate_steep:.2g}")

# %% [markdown]
# ### Why the whole training set?
#
# The gradient of a minibatch is noisy, and noise flips signs whatever the surface does. If the sign is a coin flip, a
# step raises λ by κ or lowers it by φλ with equal odds: λ stops changing on average where κ = φλ. Every rate then ends
# near **κ/φ**, which says nothing about the parameter.
#
# Here is a bowl with ten directions, from curvature 1 to 100, once with its exact gradient, as the whole training set
# would give it, and once with a gradient that carries noise, as that of a minibatch does. Where d = hx with curvature
# h, a rate above 2/h overshoots ever farther, so each rate should end somewhat below that line.

# %%
exact, kappa, phi = landscapes.quadratic(condition_number=100.0, dim=10), 0.002, 0.2
surfaces = {"whole training set": exact, "minibatches": landscapes.noisy(exact, sigma=1.0)}
method = gradtx.delta_bar_delta(0.005, increase=kappa, decrease=phi)
descents = {name: lab.run(surface, method, steps=400, key=key) for name, surface in surfaces.items()}
rates = {name: optax.tree.get(run.opt_state, "rates") for name, run in descents.items()}

figure, axes = plt.subplots()
for (name, rate), marker in zip(rates.items(), "os", strict=True):
    axes.plot(exact.hessian_eigenvalues, rate, marker, label=name)
axes.plot(exact.hessian_eigenvalues, 2 / exact.hessian_eigenvalues, color="k", lw=1, label="2/h, the largest stable")
axes.axhline(kappa / phi, ls="--", color="k", lw=1, label="κ/φ: where coin flips lead")
axes.set(xscale="log", yscale="log", xlabel="curvature h of the direction", ylabel="rate λ after 400 steps")
axes.set_title("Exact signs find the right rate for each direction; noise makes all rates alike")
axes.legend()
plt.show()

# %%
noise_ends = {name: exact(run.iterates[-1]) for name, run in descents.items()}
print("height after 400 steps:", ", ".join(f"{name} {height:.1e}" for name, height in noise_ends.items()))

# %% [markdown]
# With the exact gradient each rate follows the curvature of its direction. With noise the flat directions, which could
# take some fifty times more, sit at κ/φ like the others: noise has been read as oscillation.
#
# ## 2 · AdaGrad and RMSProp: divide by the size of the past (§5.2, §5.3)
#
# These need no signs, so minibatches will do. Both collect squared gradients r for each parameter and divide by its
# root:
#
# $$\text{AdaGrad: } r \leftarrow r + g^2, \quad \Delta\theta = -\frac{\varepsilon}{\delta + \sqrt{r}}\, g
# \qquad\qquad
# \text{RMSProp: } r \leftarrow \rho r + (1-\rho) g^2, \quad \Delta\theta = -\frac{\varepsilon}{\sqrt{\delta + r}}\, g$$
#
# AdaGrad sums, RMSProp takes a running mean that forgets after about 1/(1-ρ) steps; δ only keeps the division safe.
# Now feed them one and the same gradient c at every step. After k steps the chapter has, for the length of the step,
#
# $$\text{AdaGrad: } \frac{\varepsilon}{\sqrt{k}} \to 0, \qquad
# \text{RMSProp: } \frac{\varepsilon}{\sqrt{1-\rho^k}} \to \varepsilon, \qquad \text{both whatever } |c| \text{ is.}$$
#
# We check it with three parameters at once, whose gradients are 0.1, 10 and 1000 for ever. (`jax.lax.scan` is a
# compiled for-loop that keeps what each round returns.)


# %%
def step_lengths(tx, steps=100):
    gradient = jnp.array([0.1, 10.0, 1000.0])

    def step(state, _):
        update, state = tx.update(gradient, state)
        return state, -update

    return jax.lax.scan(step, tx.init(gradient), length=steps)[1]


measured = {"AdaGrad": step_lengths(gradtx.adagrad(1.0)), "RMSProp": step_lengths(gradtx.rmsprop(1.0, decay=0.9))}
k = np.arange(1, 101)
predicted = {"AdaGrad": 1 / np.sqrt(k), "RMSProp": 1 / np.sqrt(1 - 0.9**k)}

# %%
figure, axes = plt.subplots()
for name, colour in {"AdaGrad": "C0", "RMSProp": "C1"}.items():
    for column, marker, gradient in zip(measured[name].T, "o+x", ("0.1", "10", "1000"), strict=True):
        axes.plot(k[::4], column[::4], marker, color=colour, ms=9, mfc="none", label=f"{name}, c = {gradient}")
    axes.plot(k, predicted[name], color=colour, lw=1)
axes.set(xscale="log", yscale="log", xlabel="step k", ylabel="step length / ε")
axes.set_title("Measured (markers) on the closed forms (lines): the size of the gradient does not matter")
axes.legend()
plt.show()

# %% [markdown]
# Circle, plus and cross lie on each other and on the line. RMSProp's first steps are its longest, 1/√(1-ρ) ≈ 3.2 times
# ε; then it settles at ε. AdaGrad's step has no floor: after 100 steps a tenth of ε is left, after 10,000 a hundredth,
# although the gradient never changed.
#
# ## 3 · AdaGrad dies early in a real network
#
# Is that harmful? A small recurrent network reads two symbols, waits, and must then repeat them. AdaGrad has its choice
# of three learning rates, RMSProp gets one. An instrument looks at whatever passes it: `gradient_norm` first in the
# chain reads the gradient g, the same instrument last in the chain reads the step Δθ. Their ratio ‖Δθ‖/‖g‖ is the rate
# that the network really gets.

# %%
memory, look = lab.problems.copying(delay=4, remember=2, symbols=4, hidden=16, examples=512), gradtx.gradient_norm()
same = {"steps": 300, "batch_size": 32}
adagrad = lab.sweep(
    memory,
    lambda learning_rate: optax.chain(look, gradtx.adagrad(learning_rate), look),
    {"learning_rate": [0.03, 0.1, 0.3]},
    keys=key[None],
    **same,
)
rmsprop = lab.run(memory, optax.chain(look, gradtx.rmsprop(0.01), look), key=key, **same)
lab.plot_curves({"adagrad, the best of three": adagrad, "rmsprop": rmsprop}, "train_loss")

# %% [markdown]
# Both start alike, then AdaGrad falls behind. The rates behind this, as medians over 5 steps:


# %%
def rate_given(readings):
    return readings["gradient_norm@2/global"] / readings["gradient_norm/global"]


best = adagrad.order("train_loss")[0]
given = {"adagrad": rate_given(adagrad.readings)[best, 0], "rmsprop": rate_given(rmsprop.readings)}
figure, axes = plt.subplots()
for name, rate in given.items():
    axes.plot(np.arange(2, 300, 5), np.median(rate.reshape(-1, 5), axis=1), label=name)
axes.set(xscale="log", yscale="log", xlabel="optimizer step", ylabel="rate given, ‖Δθ‖ / ‖g‖")
axes.set_title("AdaGrad's rate only falls; RMSProp's rises again when gradients become small")
axes.legend()
plt.show()

# %%
losses = {"adagrad": adagrad.train_loss[best, 0, -1], "rmsprop": rmsprop.train_loss[-1]}
accuracies = {"adagrad": adagrad.metric[best, 0, -1], "rmsprop": rmsprop.metric[-1]}
for name in given:
    print(f"{name}: training loss {losses[name]:.2g}, validation accuracy {accuracies[name]:.1%}")

# %% [markdown]
# The sum r never forgets the large gradients of the beginning: what AdaGrad gives at the end is a small part of what it
# gave at first. RMSProp forgets them within some ten steps. So AdaGrad's training loss stays many times higher. Be
# fair: both networks repeat every sequence of the validation set. AdaGrad's decay is a fault if you train long, and a
# free learning-rate schedule if you do not.
#
# ## 4 · How far, and how to move: RMSProp with Nesterov momentum (§5.3.3)
#
# An adaptive method says *how far* to go along each parameter, a momentum method *how* to move. So they compose:
#
# $$r \leftarrow \rho r + (1-\rho) g^2, \qquad v \leftarrow \alpha v - \frac{\varepsilon}{\sqrt{r}}\, g, \qquad
# \theta \leftarrow \theta + v, \qquad g \text{ taken at } \theta + \alpha v .$$
#
# In gradtx that is a chain of three blocks, and the recipe `rmsprop(..., nesterov=True)` is the same chain.

# %%
composed = optax.chain(gradtx.scale_by_rms(decay=0.9), gradtx.scale_by_learning_rate(0.005), gradtx.nesterov(0.9))
f = landscapes.rosenbrock
paths = {
    "sgd": lab.run(f, gradtx.sgd(0.0015), steps=300, key=key),
    "rmsprop": lab.run(f, gradtx.rmsprop(0.02), steps=300, key=key),
    "rmsprop + nesterov": lab.run(f, composed, steps=300, key=key),
}
recipe = lab.run(f, gradtx.rmsprop(0.005, momentum=0.9, nesterov=True), steps=300, key=key)
print("the recipe takes the same path:", np.allclose(recipe.iterates, paths["rmsprop + nesterov"].iterates))

# %%
lab.plot_trajectories(f, paths)

# %% [markdown]
# All drop into the valley at once. Along its bent floor SGD crawls, RMSProp comes farther, and with momentum it
# arrives.
#
# ## 5 · When it does not help: turn the valley
#
# One rate for each parameter can only stretch the axes. Turn the bowl of section 1 by 45°, so that its valley lies
# across the axes: now both parameters see equally large gradients, both get the same rate, and what is left is gradient
# descent. Move the slider (where a kernel runs).


# %%
@cache
def turned_bowl(degrees):
    f = landscapes.quadratic(condition_number=100.0, rotation=np.deg2rad(degrees))
    methods = {"sgd": gradtx.sgd(0.018), "rmsprop": gradtx.rmsprop(0.05)}
    return f, {name: lab.run(f, tx, steps=80, key=key) for name, tx in methods.items()}


lab.explore(lambda degrees: lab.plot_trajectories(*turned_bowl(degrees)), degrees=[0, 15, 45, 75, 90])

# %%
heights = {degrees: {n: run.metric[-1] for n, run in turned_bowl(degrees)[1].items()} for degrees in (0, 45)}
for degrees, ends in heights.items():
    print(f"{degrees}°:", ", ".join(f"{name} {height:.2g}" for name, height in ends.items()))

# %% [markdown]
# SGD does not notice the turn. RMSProp, far ahead along the axes, is no better than SGD at 45°. For a valley that lies
# across the axes you want momentum, or curvature.
#
# ## What was claimed, checked

# %%
# Delta-bar-delta found a much larger rate for the flat direction, and beat SGD by far.
assert rate_flat > 10 * rate_steep
assert in_bowl["delta-bar-delta"].metric[-1] < 1e-3 * in_bowl["sgd"].metric[-1]
# With exact gradients the rates follow the curvature, with noise they end near κ/φ.
spread = {name: rate[0] / rate[-1] for name, rate in rates.items()}
assert spread["whole training set"] > 20 > 5 > spread["minibatches"]
assert 0.5 < np.median(rates["minibatches"]) / (kappa / phi) < 2
assert noise_ends["minibatches"] > 1e3 * noise_ends["whole training set"]
# The closed forms hold, whatever the size of the gradient.
for name in measured:
    assert np.allclose(measured[name], predicted[name][:, None], rtol=1e-3)
# In the real network AdaGrad's rate falls and stays low, RMSProp's rises again; AdaGrad's loss stays far higher.
assert np.median(given["adagrad"][-50:]) < 0.3 * given["adagrad"][0]
assert np.median(given["rmsprop"][-50:]) > 3 * np.median(given["rmsprop"][10:30])
assert losses["adagrad"] > 5 * losses["rmsprop"]
assert min(accuracies.values()) > 0.97
# The chain is the recipe, and with momentum RMSProp goes farthest along the valley.
assert np.allclose(recipe.iterates, paths["rmsprop + nesterov"].iterates)
assert paths["rmsprop + nesterov"].metric[-1] < 0.1 * min(paths[n].metric[-1] for n in ("sgd", "rmsprop"))
# Turned by 45°, RMSProp loses its advantage; SGD ends where it did.
assert heights[0]["rmsprop"] < 1e-6 * heights[0]["sgd"]
assert heights[45]["rmsprop"] > heights[45]["sgd"]
assert np.isclose(heights[45]["sgd"], heights[0]["sgd"], rtol=0.01)
