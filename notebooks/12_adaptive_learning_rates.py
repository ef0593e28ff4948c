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
# # 12 · Adaptive learning rates: should every parameter have its own?
#
# *Chapter §5 to §5.3.* A learning rate is hard to choose because the cost is steep along some parameters and flat along
# others. Adaptive methods give each parameter its own rate and correct it while they train. Delta-bar-delta reads the
# signs of the derivatives, and AdaGrad and RMSProp divide by the size of past gradients. You will see on which problems
# each of them is good and on which it is not, and combine RMSProp with Nesterov's momentum.
#
# **New in gradtx:** every method is a *block* (`scale_by_rms`, `nesterov`, ...) and a recipe made of blocks, so you can
# compose your own.

# %% slideshow={"slide_type": "skip"}
from functools import cache

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes

key = jax.random.key(0)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Delta-bar-delta: use the sign of the derivative
#
# Let d be the derivative with respect to one parameter, and λ the rate of that parameter. As long as d keeps its sign,
# the method takes the steps for too short and raises λ. If the sign changes, they were too long, so it lowers λ. With d̄ a
# running mean of past d, the rule is
#
# $$\lambda \leftarrow \lambda + \kappa \;\text{ if } \bar d\, d > 0, \qquad
# \lambda \leftarrow (1-\varphi)\,\lambda \;\text{ if } \bar d\, d < 0, \qquad
# \theta \leftarrow \theta - \lambda\, d .$$
#
# The curvature of the bowl below is 100 times as large in the vertical direction as in the horizontal one. Plain gradient
# descent gets about the largest rate that the steep direction allows, and it crawls along the flat one.

# %% slideshow={"slide_type": "skip"}
bowl = landscapes.quadratic(condition_number=100.0)
bar_delta = gradtx.delta_bar_delta(learning_rate=0.005, increase=0.005, decrease=0.5)
in_bowl = {
    "sgd": lab.run(bowl, gradtx.sgd(0.018), steps=60, key=key),
    "delta-bar-delta": lab.run(bowl, bar_delta, steps=60, key=key),
}

# %% alt="Two paths in a bowl that is much steeper vertically than horizontally. Plain descent crawls along the flat direction; delta-bar-delta goes straight to the minimum." slideshow={"slide_type": "subslide"}
lab.plot_trajectories(bowl, in_bowl)

# %% [markdown] slideshow={"slide_type": "subslide"}
# Delta-bar-delta goes straight to the star as soon as its horizontal rate has grown. The state of the optimizer holds its
# rates, and `optax.tree.get` finds them by their name. At the end they are:

# %% slideshow={"slide_type": "skip"}
rate_flat, rate_steep = optax.tree.get(in_bowl["delta-bar-delta"].opt_state, "rates")
print(f"flat direction {rate_flat:.3f}, steep direction {rate_steep:.2g}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# To see the rule itself, we feed it made-up gradients: first ten of one sign, then ten that alternate.

# %% slideshow={"slide_type": "skip"}
gradients = jnp.concatenate([jnp.ones(10), jnp.tile(jnp.array([-1.0, 1.0]), 5)])


def rates_of(tx, gradients):
    def step(state, g):
        _, state = tx.update(g, state)
        return state, optax.tree.get(state, "rates")

    return np.asarray(jax.lax.scan(step, tx.init(gradients[0]), gradients)[1])


followed = rates_of(gradtx.delta_bar_delta(0.1, increase=0.05, decrease=0.2, decay=0.0), gradients)
print("rates:", followed.round(3))

# %% [markdown] slideshow={"slide_type": "slide"}
# ### Why the whole training set?
#
# The gradient of a minibatch is noisy, and the noise changes signs for reasons that have nothing to do with the surface.
# If each sign is the toss of a coin, a step raises λ by κ or lowers it by φλ, both with the same probability. On average
# λ stops changing at κ = φλ. So every rate ends near **κ/φ**, which says nothing about the parameter.
#
# Here is a bowl with ten directions, with curvatures from 1 to 100. One run sees its exact gradient, as the whole training
# set would give it. The other sees a gradient with noise, as a minibatch would give it. Along a direction of curvature h a
# rate above 2/h diverges. So a good rate lies somewhat below that line.

# %% slideshow={"slide_type": "skip"}
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
plt.close()

# %% alt="Rates after 400 steps against the curvature of ten directions. With the exact gradient they follow the curvature; with noise all lie near kappa over phi." slideshow={"slide_type": "subslide"}
figure

# %% slideshow={"slide_type": "skip"}
noise_ends = {name: exact(run.iterates[-1]) for name, run in descents.items()}
print("height after 400 steps:", ", ".join(f"{name} {height:.1e}" for name, height in noise_ends.items()))

# %% [markdown] slideshow={"slide_type": "subslide"}
# With the exact gradient each rate follows the curvature of its direction. With noise the rates of the flat directions
# stay near κ/φ like the others, although they could be some fifty times as large: the method takes noise for oscillation.


# %% [markdown] slideshow={"slide_type": "slide"}
# ## AdaGrad and RMSProp: divide by the size of past gradients
#
# These methods do not look at signs, so they work with minibatches. Both collect squared gradients in a number r for each
# parameter, and divide by the root of r:
#
# $$\text{AdaGrad: } r \leftarrow r + g^2, \quad \Delta\theta = -\frac{\varepsilon}{\delta + \sqrt{r}}\, g
# \qquad\qquad
# \text{RMSProp: } r \leftarrow \rho r + (1-\rho) g^2, \quad \Delta\theta = -\frac{\varepsilon}{\sqrt{\delta + r}}\, g$$
#
# AdaGrad takes the sum. RMSProp takes a running mean that forgets after about 1/(1-ρ) steps. The small number δ only
# prevents a division by 0. Now we give both methods the same gradient c at every step. After k steps the length of the
# step is, according to the chapter,
#
# $$\text{AdaGrad: } \frac{\varepsilon}{\sqrt{k}} \to 0, \qquad
# \text{RMSProp: } \frac{\varepsilon}{\sqrt{1-\rho^k}} \to \varepsilon, \qquad \text{both independent of } |c| .$$
#
# We check it with three parameters at once, whose gradients are 0.1, 10 and 1000 at every step. (`jax.lax.scan` is a
# compiled for-loop that keeps what each round returns.)


# %% slideshow={"slide_type": "skip"}
def step_lengths(tx, steps=100):
    gradient = jnp.array([0.1, 10.0, 1000.0])

    def step(state, _):
        update, state = tx.update(gradient, state)
        return state, -update

    return jax.lax.scan(step, tx.init(gradient), length=steps)[1]


measured = {"AdaGrad": step_lengths(gradtx.adagrad(1.0)), "RMSProp": step_lengths(gradtx.rmsprop(1.0, decay=0.9))}
k = np.arange(1, 101)
predicted = {"AdaGrad": 1 / np.sqrt(k), "RMSProp": 1 / np.sqrt(1 - 0.9**k)}

# %% slideshow={"slide_type": "skip"}
figure, axes = plt.subplots()
for name, colour in {"AdaGrad": "C0", "RMSProp": "C1"}.items():
    for column, marker, gradient in zip(measured[name].T, "o+x", ("0.1", "10", "1000"), strict=True):
        axes.plot(k[::4], column[::4], marker, color=colour, ms=9, mfc="none", label=f"{name}, c = {gradient}")
    axes.plot(k, predicted[name], color=colour, lw=1)
axes.set(xscale="log", yscale="log", xlabel="step k", ylabel="step length / ε")
axes.set_title("Measured (markers) on the closed forms (lines): the size of the gradient does not matter")
axes.legend()
plt.close()

# %% alt="Step length against the step number for AdaGrad and RMSProp, with three sizes of the gradient each. All markers of a method lie on its closed form; AdaGrad's falls without end, RMSProp's settles at epsilon." tags=["cover"] slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# The circles, pluses and crosses coincide, and they lie on the line. RMSProp's first step is its longest, 1/√(1-ρ) ≈ 3.2 times
# ε, and then the steps settle at ε. AdaGrad's steps have no lower limit: after 100 steps they are a tenth of ε, after
# 10,000 a hundredth, although the gradient never changed.
#
# "Independent of |c|" holds while |c| is large beside √δ, which is 0.001 here. For smaller gradients δ decides, and the
# step is in proportion to the gradient. And ρ decides for how long RMSProp remembers: after a single large gradient, r
# has fallen to a half after about 0.7/(1-ρ) steps.

# %% slideshow={"slide_type": "skip"}
sizes = 10.0 ** np.arange(-8, 1)


@jax.jit
@jax.vmap
def settled_step(c):
    tx = gradtx.rmsprop(1.0, decay=0.9, eps=1e-6)
    return -jax.lax.scan(lambda state, _: tx.update(c, state)[::-1], tx.init(c), length=200)[1][-1]


settled = np.asarray(settled_step(jnp.asarray(sizes)))
impulse = jnp.zeros(3000).at[0].set(1.0)
remembered, half_life = {}, {}
for rho in (0.9, 0.99, 0.999):
    tx = gradtx.scale_by_rms(decay=rho)
    scan = jax.lax.scan(lambda s, g, tx=tx: (tx.update(g, s)[1],) * 2, tx.init(impulse[0]), impulse)[1]
    remembered[rho] = np.asarray(optax.tree.get(scan, "mean_square"))
    half_life[rho] = int(np.argmax(remembered[rho] < 0.5 * remembered[rho][0]))
print("steps until half of a large gradient is forgotten:", half_life)

# %% slideshow={"slide_type": "skip"}
_, (left, right) = plt.subplots(1, 2)
left.loglog(sizes, settled, "o-", label="measured")
left.loglog(sizes, sizes / np.sqrt(1e-6 + sizes**2), "k--", lw=0.8, label="|c| / √(δ + c²)")
left.axvline(1e-3, color="k", ls=":", lw=0.8, label="√δ")
left.set(xlabel="size of the gradient |c|", ylabel="settled step / ε", title="A tiny gradient does matter")
left.legend()
for rho, values in remembered.items():
    right.semilogx(1 + np.arange(3000), values / values[0], label=f"ρ = {rho}")
right.set(
    xlabel="steps after a large gradient", ylabel="share of r that is left", title="ρ sets the length of the memory"
)
right.legend()
figure = plt.gcf()
plt.close()

# %% alt="Left: the settled step of RMSProp against the size of a constant gradient. It is epsilon above one thousandth and falls in proportion to the gradient below. Right: r after one large gradient, for rho 0.9, 0.99 and 0.999." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Next we compute both algorithms by hand, with random gradients of three sizes. AdaGrad's rates ε/(δ + √r) can only fall,
# because r only grows, and they are lowest for the parameter with the largest gradients.

# %% slideshow={"slide_type": "skip"}
g = jax.random.normal(key, (60, 3)) * jnp.array([0.1, 1.0, 10.0])
r_sum, r_mean, by_hand = np.zeros(3), np.zeros(3), {"AdaGrad": [], "RMSProp": []}
adagrad_rates = []
for row in np.asarray(g):
    r_sum, r_mean = r_sum + row**2, 0.9 * r_mean + 0.1 * row**2
    adagrad_rates.append(0.1 / (1e-7 + np.sqrt(r_sum)))
    by_hand["AdaGrad"].append(-adagrad_rates[-1] * row)
    by_hand["RMSProp"].append(-0.1 / np.sqrt(1e-6 + r_mean) * row)
adagrad_rates = np.array(adagrad_rates)


def steps_of(tx):
    return np.asarray(jax.lax.scan(lambda state, g: tx.update(g, state)[::-1], tx.init(g[0]), g)[1])


of_gradtx = {"AdaGrad": steps_of(gradtx.adagrad(0.1)), "RMSProp": steps_of(gradtx.rmsprop(0.1))}
print("AdaGrad's rates after 60 steps:", adagrad_rates[-1].round(4))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When AdaGrad is good
#
# AdaGrad is good in convex problems, in particular if some features are rare. Here is a logistic regression on 100
# features. As with words in a text, some are frequent and others rare: the first is present in every other example, the
# last in one of 200. A rare feature seldom has a gradient, so AdaGrad keeps a high rate for it. Each method gets eight
# rates and four keys, and makes one pass over 6,400 examples.

# %% slideshow={"slide_type": "skip"}
FEATURES = 100


def rare_features(key, n):
    key_x, key_y = jax.random.split(key)
    frequency = 0.5 / jnp.arange(1, FEATURES + 1)
    x = jax.random.bernoulli(key_x, frequency, (n, FEATURES)).astype(float)
    weights = 3 * jax.random.normal(jax.random.key(77), (FEATURES,))
    return x, jax.random.bernoulli(key_y, jax.nn.sigmoid(x @ weights), (n,)).astype(int)


words = lab.problems.classification(
    "rare features", lambda key: jnp.zeros((FEATURES, 2)), lambda w, x: x @ w,
    rare_features(jax.random.key(1), 6400), rare_features(jax.random.key(2), 2000),
)  # fmt: skip
one_pass = {"steps": 400, "keys": jax.random.split(key, 4), "batch_size": 16, "eval_every": 400}
grids = {"sgd": 2.0 ** np.arange(-2, 6), "adagrad": 2.0 ** np.arange(-5, 3)}
convex = {
    name: lab.sweep(words, make, {"learning_rate": grids[name]}, **one_pass)
    for name, make in (("sgd", gradtx.sgd), ("adagrad", gradtx.adagrad))
}
convex_ends = {name: sweep.validation_loss[..., -1] for name, sweep in convex.items()}  # [rate, key]
convex_best = {name: int(values.mean(1).argmin()) for name, values in convex_ends.items()}
for name, values in convex_ends.items():
    chosen = values[convex_best[name]]
    print(
        f"{name}: loss on new examples {chosen.mean():.4f} ± {chosen.std():.4f} at rate {grids[name][convex_best[name]]:g}"
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When AdaGrad's rate falls too early
#
# A small recurrent network reads two symbols, waits, and must then repeat them. AdaGrad and RMSProp get six rates and
# three keys each. The instrument `gradient_norm` measures the norm of its input. At the start of the chain this is
# the gradient g, and at the end it is the step Δθ. Their ratio ‖Δθ‖/‖g‖ is the rate that the network
# effectively gets.

# %% slideshow={"slide_type": "skip"}
memory, look = lab.problems.copying(delay=4, remember=2, symbols=4, hidden=16, examples=512), gradtx.gradient_norm()


def watched_adagrad(learning_rate):
    return optax.chain(look, gradtx.adagrad(learning_rate), look)


def watched_rmsprop(learning_rate):
    return optax.chain(look, gradtx.rmsprop(learning_rate), look)


long = {"steps": 400, "batch_size": 32, "keys": jax.random.split(key, 3), "eval_every": 40}
deep_rates = {"adagrad": 0.02 * 2.0 ** np.arange(6), "rmsprop": 0.004 * 2.0 ** np.arange(6)}
deep = {
    name: lab.sweep(memory, make, {"learning_rate": deep_rates[name]}, **long)
    for name, make in (("adagrad", watched_adagrad), ("rmsprop", watched_rmsprop))
}
chosen = {name: int(np.log(sweep.final("train_loss")).mean(1).argmin()) for name, sweep in deep.items()}
ends = {name: sweep.final("train_loss")[chosen[name]] for name, sweep in deep.items()}
for name, values in ends.items():
    print(f"{name}: training loss after 400 steps, key by key: {values}, at rate {deep_rates[name][chosen[name]]:g}")

# %% slideshow={"slide_type": "skip"}
given = {
    name: sweep.readings["gradient_norm@2/global"][chosen[name]] / sweep.readings["gradient_norm/global"][chosen[name]]
    for name, sweep in deep.items()
}  # [key, step]
_, (left, right) = plt.subplots(1, 2)
for name, colour in (("adagrad", "C0"), ("rmsprop", "C1")):
    left.semilogy(deep[name].eval_steps, deep[name].train_loss[chosen[name]].T, color=colour, lw=1)
    left.plot([], [], color=colour, label=name)
    smooth = np.median(given[name].reshape(3, -1, 5), axis=2)
    right.loglog(np.arange(2, 400, 5), smooth.T, color=colour, lw=1)
left.set(xlabel="optimizer step", ylabel="training loss", title="AdaGrad falls behind")
right.set(xlabel="optimizer step", ylabel="rate given, ‖Δθ‖ / ‖g‖", title="It gives less and less")
left.legend()
figure = plt.gcf()
plt.close()

# %% alt="Left: training loss over 400 steps for three keys each; RMSProp's falls far below AdaGrad's. Right: the rate that the network gets. AdaGrad's falls to a small part of its first value, RMSProp's grows as the gradients become small." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# AdaGrad's sum r never forgets the large gradients of the beginning. So AdaGrad's ratio on the right ends at a small part
# of its first value. RMSProp forgets old gradients within some ten steps, so its ratio grows as the gradients shrink, up
# to the limit ε/√δ. Is AdaGrad's decay always a fault? On this problem both networks repeat every sequence of the
# validation set correctly in the end. The decay costs most in long trainings.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## How far, and how to move: RMSProp with Nesterov's momentum
#
# An adaptive method decides *how far* to go along each parameter, and a momentum method decides *how* to move. So one can
# combine them:
#
# $$r \leftarrow \rho r + (1-\rho) g^2, \qquad v \leftarrow \alpha v - \frac{\varepsilon}{\sqrt{r}}\, g, \qquad
# \theta \leftarrow \theta + v, \qquad g \text{ taken at } \theta + \alpha v .$$
#
# That is a chain of three blocks, and the recipe `rmsprop(..., nesterov=True)` is the same chain.

# %% slideshow={"slide_type": "skip"}
composed = optax.chain(gradtx.scale_by_rms(decay=0.9), gradtx.scale_by_learning_rate(0.005), gradtx.nesterov(0.9))
f = landscapes.rosenbrock
paths = {
    "sgd": lab.run(f, gradtx.sgd(0.0015), steps=300, key=key),
    "rmsprop": lab.run(f, gradtx.rmsprop(0.02), steps=300, key=key),
    "rmsprop + nesterov": lab.run(f, composed, steps=300, key=key),
}
recipe = lab.run(f, gradtx.rmsprop(0.005, momentum=0.9, nesterov=True), steps=300, key=key)
print("the recipe takes the same path:", np.allclose(recipe.iterates, paths["rmsprop + nesterov"].iterates))

θ, v, r, slope = jnp.asarray(f.start), jnp.zeros(2), jnp.zeros(2), jax.jit(jax.grad(f))
for _ in range(30):  # the chapter's algorithm, by hand
    g = slope(θ + 0.9 * v)
    r = 0.9 * r + 0.1 * g**2
    v = 0.9 * v - 0.005 / jnp.sqrt(1e-6 + r) * g
    θ = θ + v
thirty = lab.run(f, gradtx.rmsprop(0.005, momentum=0.9, nesterov=True), steps=30, key=key)
ours = gradtx.nesterov_eval_params(thirty.params, thirty.opt_state)
print("after 30 steps by hand:", θ, " gradtx:", ours)

# %% alt="Paths in Rosenbrock's bent valley. Plain descent crawls along the floor, RMSProp comes farther, and RMSProp with Nesterov's momentum arrives at the minimum." slideshow={"slide_type": "subslide"}
lab.plot_trajectories(f, paths)

# %% [markdown] slideshow={"slide_type": "subslide"}
# All three drop into the valley at once. Along its bent floor SGD crawls (the blue path stays near the
# start), RMSProp gets farther, and RMSProp with momentum arrives.


# %% [markdown] slideshow={"slide_type": "slide"}
# ## When it does not help: turn the valley
#
# One rate for each parameter can only stretch the axes. We turn the bowl of the beginning by 45°, so that its valley lies
# diagonally to the axes. Now both parameters get equally large gradients and therefore the same rate, and RMSProp is no
# better than gradient descent. (RMSProp's rate falls to 1 %, because it would hover otherwise.) In a live notebook, move
# the slider.


# %% slideshow={"slide_type": "skip"}
@cache
def turned_bowl(degrees):
    f = landscapes.quadratic(condition_number=100.0, rotation=np.deg2rad(degrees))
    fading = gradtx.linear_decay(0.05, 0.0005, steps=150)
    methods = {"sgd": gradtx.sgd(0.018), "rmsprop": gradtx.rmsprop(fading)}
    return f, {name: lab.run(f, tx, steps=200, key=key) for name, tx in methods.items()}


# %% alt="The bowl turned by 45 degrees: SGD zigzags and RMSProp hardly does, but both crawl along the floor of the valley, and RMSProp ends no nearer to the minimum than SGD." slideshow={"slide_type": "subslide"}
lab.explore(lambda degrees: lab.plot_trajectories(*turned_bowl(degrees), arrows=0), degrees=[0, 15, 45, 75, 90])

# %% slideshow={"slide_type": "skip"}
heights = {degrees: {n: run.metric[-1] for n, run in turned_bowl(degrees)[1].items()} for degrees in (0, 45)}
for degrees, after in heights.items():
    print(f"{degrees}°, after 200 steps:", ", ".join(f"{name} {height:.2g}" for name, height in after.items()))

# %% [markdown] slideshow={"slide_type": "subslide"}
# The turn does not change SGD. RMSProp is far ahead if the valley lies along an axis, and loses its advantage at 45°. For a valley that
# lies diagonally to the axes, use momentum or a method that uses the Hessian.
#
# Rates for each parameter have one more disadvantage: the step does not go along $-g$. On the floor of a valley that is
# turned by 10°, the gradient points along the floor. RMSProp's first step has equal lengths along both axes, so it leaves
# the floor, and the cost *rises*. A plain step of the same length lowers it.

# %% slideshow={"slide_type": "skip"}
slanted = landscapes.quadratic(condition_number=100.0, rotation=np.deg2rad(10))
on_floor = jnp.array([np.cos(np.deg2rad(10)), np.sin(np.deg2rad(10))])
tx, slope = gradtx.rmsprop(0.03), jax.grad(slanted)(on_floor)
scaled, _ = tx.update(slope, tx.init(on_floor))
plain_step = -slope / jnp.linalg.norm(slope) * jnp.linalg.norm(scaled)
levels = {"start": slanted(on_floor), "RMSProp": slanted(on_floor + scaled), "plain": slanted(on_floor + plain_step)}
print({name: f"{height:.3f}" for name, height in levels.items()})

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** Adaptive methods help if the steep and the flat directions lie along single parameters. AdaGrad suits
# convex problems and rare features, but its rate becomes too low in long trainings; RMSProp forgets old gradients and goes
# on. Combine either with momentum.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. What is AdaGrad's step after 400 equal gradients, at ε = 0.1?
# 2. RMSProp has ρ = 0.999. Roughly how many steps does it take to forget a gradient that was 100 times too large?
# 3. Turn the bowl by 90°. Why does RMSProp do as well as at 0°?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. 0.005: ε/√400.
# 2. Its square was 10,000 times too large, so about $\ln(10^4)/(1-\rho) \approx 9{,}200$ steps.
# 3. The two axes have changed places, and each parameter still has its own curvature.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
assert rate_flat > 10 * rate_steep  # 5.0.1: the flat direction got a rate more than ten times as large
assert (
    in_bowl["delta-bar-delta"].metric[-1] < 1e-3 * in_bowl["sgd"].metric[-1]
)  # 5.0.1: which takes it far lower than one rate
assert np.allclose(np.diff(followed[1:10]), 0.05)  # 5.1.1a: while the sign stays, the rate rises by κ at each step
assert np.allclose(followed[10:] / followed[9:-1], 0.8)  # 5.1.1b: when it flips, the rate falls by the factor 1 - φ
spread = {name: rate[0] / rate[-1] for name, rate in rates.items()}
assert spread["whole training set"] > 20 > 5 > spread["minibatches"]  # 5.1.2: with noise all rates become alike
assert 0.5 < np.median(rates["minibatches"]) / (kappa / phi) < 2  # 5.1.2, 3.1.3: near κ/φ, noise taken for oscillation
assert noise_ends["minibatches"] > 1e3 * noise_ends["whole training set"]  # 5.1.2: and the descent is far worse
effective = measured["AdaGrad"] / np.array([0.1, 10.0, 1000.0])  # [step, parameter]: rate = step / gradient
assert np.all(effective[:, 0] > 90 * effective[:, 1])  # 5.2.1: inverse
assert np.all(effective[:, 1] > 90 * effective[:, 2])  # 5.2.1: inverse
assert np.allclose(
    effective * np.sqrt(k)[:, None] * np.array([0.1, 10.0, 1000.0]), 1, rtol=1e-3
)  # 5.2.2: rate ε / √Σg²
assert np.allclose(of_gradtx["AdaGrad"], by_hand["AdaGrad"], rtol=1e-3)  # 5.2.3: the algorithm by hand is the method
assert np.all(np.diff(adagrad_rates, axis=0) < 0)  # 5.2.4a: every rate falls at every step
assert np.all(np.diff(adagrad_rates[-1]) < 0)  # 5.2.4b: the larger the gradients of a parameter, the lower its rate
assert adagrad_rates[-1, 0] > 50 * adagrad_rates[-1, 2]  # 5.2.4b: by about the ratio of the gradients, 100
assert (
    convex_ends["adagrad"][convex_best["adagrad"]].max() < convex_ends["sgd"][convex_best["sgd"]].min()
)  # 5.2.5a: each key
assert all(0 < convex_best[name] < len(grids[name]) - 1 for name in grids)  # 5.2.5a: no best rate at an edge
assert np.all(np.median(given["adagrad"][:, -50:], axis=1) < 0.3 * given["adagrad"][:, 0])  # 5.2.5b: its rate dies
assert ends["adagrad"].min() > 2 * ends["rmsprop"].max()  # 5.2.5b: and it ends higher than RMSProp, for all keys
assert 0 < chosen["adagrad"] < 5  # 5.2.5b: no best rate at an edge
assert 0 < chosen["rmsprop"] < 5  # 5.2.5b: no best rate at an edge
assert all(0.6 < half_life[rho] * (1 - rho) < 0.8 for rho in half_life)  # 5.3.1.1: ρ sets the length of the memory
assert np.allclose(of_gradtx["RMSProp"], by_hand["RMSProp"], rtol=1e-3)  # 5.3.1.2: the algorithm by hand is the method
r_closed = (1 - 0.9**k) * 10.0**2
assert np.allclose(10.0 / np.sqrt(r_closed), measured["RMSProp"][:, 1], rtol=1e-3)  # 5.3.2.1a: r is (1 - ρ^k) c²
assert np.all(np.diff(measured["RMSProp"][:60, 1]) < 0)  # 5.3.2.1a: down to a limit
assert measured["RMSProp"][-1, 1] > 0.99  # 5.3.2.1a: down to a limit
assert np.allclose(measured["RMSProp"], predicted["RMSProp"][:, None], rtol=1e-3)  # 5.3.2.1b: whatever c is
assert np.allclose(settled, sizes / np.sqrt(1e-6 + sizes**2), rtol=1e-3)  # 5.3.2.1c: the settled step, with δ
assert settled[0] < 1e-4 < 0.9 < settled[-1]  # 5.3.2.1c: a tiny gradient makes a tiny step
assert np.allclose(measured["AdaGrad"], predicted["AdaGrad"][:, None], rtol=1e-3)  # 5.3.2.2: ε / √k, whatever c is
assert measured["AdaGrad"][-1].max() < 0.11 < 0.99 < measured["RMSProp"][-1].min()  # 5.3.2.3: one falls, one settles
assert np.allclose(recipe.iterates, paths["rmsprop + nesterov"].iterates)  # 5.3.3.1: the chain of blocks is the recipe
assert paths["rmsprop + nesterov"].metric[-1] < 0.1 * min(
    paths[n].metric[-1] for n in ("sgd", "rmsprop")
)  # 5.3.3.1: farthest
assert np.allclose(θ, ours, atol=1e-3)  # 5.3.3.2: the algorithm by hand is the method
assert heights[0]["rmsprop"] < 0.1 * heights[0]["sgd"]  # 5.0.1: along the axes rates of their own are far ahead
assert heights[45]["rmsprop"] > heights[45]["sgd"]  # beyond the chapter: turned by 45° they are not
assert np.isclose(heights[45]["sgd"], heights[0]["sgd"], rtol=0.01)  # beyond the chapter: SGD does not notice the turn
assert levels["RMSProp"] > levels["start"] > levels["plain"]  # 5.0.2: the scaled step rises, a plain one as long falls
