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
# # 4 Cliffs and clipping: what can a bound on the gradient repair, and what can it not?
#
# *Chapter §2.4 and §2.5.* You will see one step at the foot of a cliff throw descent away, and clipping prevent it; then
# gradients that explode and gradients that vanish on their way back through thirty steps of a recurrent network. Clipping
# repairs the first and is helpless against the second.
#
# **The new idea**: `gradtx.temporal_gradients` reads how much of the loss's signal reaches each step of time, by *probes*.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import gradtx
from gradtx import lab, landscapes

# %% [markdown]
# ## A cliff
#
# Products of many large weights make walls. `landscapes.cliff` is the loss of a recurrent network of a single unit,
# $h_t = w\,\sigma(h_{t-1}) + b$, after twelve steps, over its two parameters $\theta_1 = w$ and $\theta_2 = b$.

# %%
cliff = landscapes.cliff
lab.plot_surface(cliff)


# %% [markdown]
# Descent starts on the plain to the right, where the gradient norm is about 0.01, and walks until it meets the wall. A
# clip stands before the method: a gradient $g$ longer than $c$ becomes $g\,c/\lVert g\rVert$.

# %%
def descend(max_norm):
    look = [gradtx.gradient_norm(), gradtx.curvature_ratio(1.0)]
    tx = optax.chain(*look, gradtx.clip_by_global_norm(max_norm), gradtx.sgd(1.0))
    return lab.run(cliff, tx, steps=200, key=jax.random.key(0))


plain, clipped = descend(jnp.inf), descend(0.5)
lab.plot_trajectories(cliff, {"not clipped": plain, "clipped at 0.5": clipped})

# %% [markdown]
# The unclipped path is thrown back, beyond where it came from, in a single step; the clipped one goes over the edge and
# on to the foot of the wall, where the loss is near 0. `diagnose` finds the cliff in the norms, and says what to do.

# %%
finding = gradtx.diagnose(plain).findings[0]
print(finding.title, "| chapter", finding.section)
print(finding.evidence)
print(finding.remedy)

# %% [markdown]
# **Play**: which thresholds arrive? (A saved notebook shows the middle one.) Too low a threshold crawls; one above the
# wall's gradient does nothing.


# %%
def compare(max_norm):
    return lab.plot_trajectories(cliff, {"not clipped": plain, f"clipped at {max_norm:g}": descend(max_norm)})


lab.explore(compare, max_norm=[0.01, 0.03, 0.1, 0.3, 1.0, 3.0])

# %% [markdown]
# Clipping *by norm* keeps the direction of the step. Clipping each entry *by value* turns it. The clip's memory tells
# what the norm was, and how often it acted.

# %%
g = jnp.array([0.3, 4.0])
for tx in (gradtx.clip_by_value(1.0), gradtx.clip_by_global_norm(1.0)):
    u, state = tx.update(g, tx.init(g))
    cosine = u @ g / jnp.linalg.norm(u) / jnp.linalg.norm(g)
    print(f"{type(state).__name__}: {u}, cosine with the gradient {cosine:.3f}")

acted = clipped.opt_state[-2].global_clip_count
print(f"on the cliff: {acted} of 200 steps clipped")


# %% [markdown]
# ## Through time
#
# A recurrent network applies one matrix $W$ at every step. Back through $t$ steps a gradient meets it $t$ times, and
# $W^t = V\,\mathrm{diag}(\lambda)^t\,V^{-1}$: it explodes where $|\lambda| > 1$ and vanishes where $|\lambda| < 1$. Here
# $W$ starts at $\rho$ times the identity, so that all $\lambda = \rho$. (`scan` is JAX's loop: it carries $h$ through
# the steps.)

# %%
STEPS, HIDDEN = 30, 16


def predict(params, x, probes=jnp.zeros((STEPS, 1, 1)), unit=jax.nn.relu):
    def step(h, inputs):
        x, probe = inputs
        return unit(x @ params["w_in"] + h @ params["w"] + params["b"]) + probe, None

    h, _ = jax.lax.scan(step, jnp.zeros((len(x), HIDDEN)), (jnp.swapaxes(x, 0, 1), probes))
    return h @ params["w_out"]


def start(key, rho):
    key_in, key_out = jax.random.split(key)
    w_in, w_out = jax.random.normal(key_in, (2, HIDDEN)), jax.random.normal(key_out, (HIDDEN,))
    return {"w_in": w_in / 2**0.5, "w": rho * jnp.eye(HIDDEN), "b": jnp.zeros(HIDDEN), "w_out": 0.025 * w_out}


# %% [markdown]
# The task is the *adding problem*: a sequence of thirty numbers, two of them marked; say the sum of the marked ones. One
# mark is in the first half, so the network must remember.
#
# A *probe* is a zero that the model adds to $h_t$; the loss's gradient with respect to it is $\partial L / \partial h_t$,
# what step $t$ hears of the loss. One backward pass gives all of them.

# %%
data = lab.problems.adding(STEPS, examples=1000)
x, y = jax.tree.map(lambda a: a[:64], data.train)


def signal(rho, unit):
    def loss(params, probes):
        return 0.5 * jnp.mean((predict(params, x, probes, unit) - y) ** 2)

    return gradtx.temporal_gradients(loss, start(jax.random.key(0), rho), jnp.zeros((STEPS, 64, HIDDEN)))


rhos = jnp.array([0.3, 1.0, 1.3])
_, linear_slopes = jax.vmap(lambda rho: signal(rho, lambda h: h))(rhos)
norms, slopes = jax.vmap(lambda rho: signal(rho, jax.nn.relu))(rhos)
print("slope of log norm: -log ρ", -jnp.log(rhos), "linear", linear_slopes, "relu", slopes)

# %%
for rho, norm in zip(rhos, norms, strict=True):
    plt.semilogy(norm / norm[-1], "o-", ms=3, label=f"ρ = {rho:g}")
plt.axhline(1, color="k", lw=0.8)
plt.xlabel("step t of the sequence (the loss is at the right end)")
plt.ylabel("‖∂L/∂h_t‖, last step: 1")
plt.legend()
plt.show()

# %% [markdown]
# Read it from right to left, as the gradient goes. Without the units' kinks the slope would be $-\log\rho$ exactly; the
# rectifiers change little. At $\rho = 0.3$ the first step hears less than a billionth of what the last one does.
#
# ## What clipping repairs
#
# The same network from the three starts, each with clips from tight to none. `lab.sweep` trains all of them.


# %%
def make_tx(learning_rate, max_norm):
    return optax.chain(gradtx.clip_by_global_norm(max_norm), gradtx.sgd(learning_rate, momentum=0.9))


def network(rho):
    return lab.problems.regression(f"ρ = {rho}", lambda key: start(key, rho), predict, data.train, data.validation)


keys = jax.random.split(jax.random.key(1), 2)
grid = {"learning_rate": [0.1], "max_norm": [0.01, 0.1, 1.0, 100.0, 1e6]}
networks = {rho: network(rho) for rho in (0.3, 1.0, 1.3)}
sweeps = {rho: lab.sweep(net, make_tx, grid, steps=400, keys=keys, batch_size=50) for rho, net in networks.items()}
lab.plot_sensitivity({f"ρ = {rho}": sweep for rho, sweep in sweeps.items()}, "max_norm", by="train_loss")

# %% [markdown]
# Always to say 1 costs 1/12 = 0.083. From $\rho = 1$ and $\rho = 1.3$ a clip at 0.1 or so is the difference between a
# network that learns and one that is thrown off its cliffs (the line ends where numbers became infinite). From
# $\rho = 0.3$ no threshold matters: there is nothing to clip, and the loss stays where forgetting leaves it.
#
# ## What it cannot
#
# Could one not scale a vanishing gradient up? A rate a hundred times as high amplifies what step 29 says along with
# what step 0 cannot be heard to say.

# %%
scaled_up = {"learning_rate": [0.1, 0.3, 1.0, 3.0, 10.0], "max_norm": [1.0]}
louder = lab.sweep(networks[0.3], make_tx, scaled_up, steps=400, keys=keys, batch_size=50)
lab.plot_sensitivity(louder, "learning_rate", by="train_loss")

# %% [markdown]
# What does help is a start, a unit or an architecture through which the gradient comes: here, $\rho = 1$ instead of 0.3.
#
# ## What was claimed, checked

# %%
best = {rho: sweep.final("train_loss").mean(-1).min() for rho, sweep in sweeps.items()}
norm = plain.readings["gradient_norm/global"]
assert norm.max() > 100 * jnp.median(norm)  # a wall in a plain
assert gradtx.diagnose(plain).challenges == {"cliff"}  # found by diagnose
assert clipped.loss[-1] < 0.01 < plain.loss[-1]  # clipping arrives, plain descent is thrown away
assert jnp.allclose(linear_slopes, -jnp.log(rhos), atol=1e-3)  # in a linear net the slope is -log ρ exactly
assert jnp.allclose(slopes, -jnp.log(rhos), atol=0.2)  # and nearly so with rectifiers
assert norms[0, 0] < 1e-9 * norms[0, -1]  # at ρ = 0.3 the first step hears nothing
assert best[1.0] < 0.06  # clipping repairs what explodes
assert best[1.3] < 0.06
assert (sweeps[1.3].diverged_at[0, -1] >= 0).all()  # which unclipped diverges
assert best[0.3] > 0.065  # no threshold repairs what vanished
assert louder.final("train_loss").min() > 0.065  # and no rate
