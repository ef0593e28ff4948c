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
# *Chapter §2.4 and §2.5.* You will see one step at the foot of a cliff throw descent away, and clipping prevent it;
# then gradients that explode and gradients that vanish on their way back through the steps of a recurrent network.
# Clipping repairs the first and is helpless against the second.
#
# **The new idea**: `gradtx.temporal_gradients` reads how much of the loss's signal reaches each step of time, by
# *probes*.

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
    tx = optax.chain(gradtx.gradient_norm(), gradtx.clip_by_global_norm(max_norm), gradtx.sgd(1.0))
    return lab.run(cliff, tx, steps=200, key=jax.random.key(0))


plain, clipped = descend(jnp.inf), descend(0.5)
lab.plot_trajectories(cliff, {"not clipped": plain, "clipped at 0.5": clipped})

# %% [markdown]
# The unclipped path is thrown back, beyond where it came from, in a single step, and stays there. The clipped one steps
# over the wall too, but never farther than 0.5: it works its way along the foot, where the loss is near 0. `diagnose`
# finds the cliff in the norms, and says what to do.

# %%
finding = gradtx.diagnose(plain).findings[0]
print(finding.title, "| chapter", finding.section)
print(finding.evidence)
print(finding.remedy)

# %% [markdown]
# **Play**: which thresholds keep to the foot of the wall? (A saved notebook shows the middle one.) Too low a threshold
# crawls; one above the wall's gradient does nothing.


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
# $W^t = V\,\mathrm{diag}(\lambda)^t\,V^{-1}$: it explodes where $|\lambda| > 1$ and vanishes where $|\lambda| < 1$.
# Here $W$ starts at $\rho$ times the identity, so that all $\lambda = \rho$. (`scan` is JAX's loop: it carries $h$
# through the steps.)

# %%
STEPS, HIDDEN = 20, 16
SILENT = jnp.zeros((STEPS, 1, 1))


def predict(params, x, probes=SILENT, leak=0.0):
    def step(h, inputs):
        x, probe = inputs
        h = x @ params["w_in"] + h @ params["w"] + params["b"]
        return jnp.where(h > 0, h, leak * h) + probe, None

    h, _ = jax.lax.scan(step, jnp.zeros((len(x), HIDDEN)), (jnp.swapaxes(x, 0, 1), probes))
    return h @ params["w_out"]


def start(key, rho):
    key_in, key_out = jax.random.split(key)
    w_in, w_out = jax.random.normal(key_in, (2, HIDDEN)), jax.random.normal(key_out, (HIDDEN,))
    return {"w_in": w_in / 2**0.5, "w": rho * jnp.eye(HIDDEN), "b": jnp.zeros(HIDDEN), "w_out": 0.025 * w_out}


# %% [markdown]
# The units are rectifiers, $\max(0, h)$; with `leak=1` they would be straight lines. The task is the *adding problem*:
# a sequence of ten numbers, two of them marked, and then ten blanks; say the sum of the marked ones. All that matters
# was said before the blanks, so the network must remember.
#
# A *probe* is a zero that the model adds to $h_t$; the loss's gradient with respect to it is $\partial L / \partial
# h_t$, what step $t$ hears of the loss. One backward pass gives all of them.


# %%
def then_wait(batch):
    x, y = batch
    return jnp.pad(x, ((0, 0), (0, STEPS - 10), (0, 0))), y


adding = lab.problems.adding(length=10, examples=1000)
train, validation = then_wait(adding.train), then_wait(adding.validation)
x, y = train[0][:64], train[1][:64]


def signal(rho, leak):
    def loss(params, probes):
        return 0.5 * jnp.mean((predict(params, x, probes, leak) - y) ** 2)

    return gradtx.temporal_gradients(loss, start(jax.random.key(0), rho), jnp.zeros((STEPS, 64, HIDDEN)))


rhos, leaks = jnp.array([0.3, 1.0, 1.3] * 2), jnp.array([0.0] * 3 + [1.0] * 3)
norms, slopes = jax.vmap(signal)(rhos, leaks)
print("-log ρ        ", -jnp.log(rhos[:3]), "\nrectifiers    ", slopes[:3], "\nstraight lines", slopes[3:])

# %%
for rho, norm in zip(rhos[:3], norms, strict=False):
    plt.semilogy(norm / norm[-1], "o-", ms=3, label=f"ρ = {rho:g}")
plt.xticks(range(0, STEPS, 5))
plt.xlabel("step t of the sequence (the loss is at the right end)")
plt.ylabel("‖∂L/∂h_t‖, last step: 1")
plt.legend()
plt.show()

# %% [markdown]
# Read it from right to left, as the gradient goes. In a linear network the slope is $-\log\rho$ exactly; the rectifiers
# change little. At $\rho = 0.3$ the last number before the blanks (step 9) hears less than a ten thousandth of what the
# last step hears, the first one less than a billionth.
#
# ## What clipping repairs
#
# The same network from a start that explodes and from one that vanishes, each with clips from tight to none.
# `lab.sweep` trains all of them.


# %%
def make_tx(learning_rate, max_norm):
    return optax.chain(gradtx.clip_by_global_norm(max_norm), gradtx.sgd(learning_rate, momentum=0.9))


def network(rho):
    return lab.problems.regression(f"ρ = {rho}", lambda key: start(key, rho), predict, train, validation)


explodes, vanishes = network(1.3), network(0.3)
settings = {"steps": 600, "keys": jax.random.split(jax.random.key(1), 2), "batch_size": 50}
clips = {"learning_rate": [0.05], "max_norm": [0.03, 0.1, 1.0, 1e6]}
exploding = lab.sweep(explodes, make_tx, clips, **settings)
vanishing = lab.sweep(vanishes, make_tx, clips, **settings)

# %% [markdown]
# ## What it cannot
#
# Could one not scale a vanishing gradient up? The same network from $\rho = 0.3$, at rates up to a thousand times as
# high.

# %%
rates = {"learning_rate": [0.05, 0.5, 5.0, 50.0], "max_norm": [0.1]}
louder = lab.sweep(vanishes, make_tx, rates, **settings)

_, (left, right) = plt.subplots(1, 2, sharey=True)
left.loglog(clips["max_norm"], exploding.final("train_loss")[0].mean(-1), "o-", label="ρ = 1.3")
left.loglog(clips["max_norm"], vanishing.final("train_loss")[0].mean(-1), "s-", label="ρ = 0.3")
left.set(xlabel="max_norm of the clip", ylabel="final training loss")
right.loglog(rates["learning_rate"], louder.final("train_loss")[:, 0].mean(-1), "s-", color="C1", label="ρ = 0.3")
right.set(xlabel="learning rate")
for axes in (left, right):
    axes.axhline(0.087, color="k", lw=0.8, ls="--", label="always to say 1")
    axes.legend()

# %% [markdown]
# Left: always to say 1 costs about 0.087. From $\rho = 1.3$ a tight clip is the difference between a network that
# learns and one that is thrown away: the blue line ends where the numbers became infinite, at a limit of a million that
# clips next to nothing. From $\rho = 0.3$ no threshold matters: there is nothing to clip.
#
# Right: no rate gets below the loss of forgetting either. A high one amplifies what the last steps say along with what
# the first cannot be heard to say, until the units die. What does help is a start, a unit or an architecture through
# which the gradient comes.
#
# ## What was claimed, checked

# %%
norm = plain.readings["gradient_norm/global"]
assert norm.max() > 100 * jnp.median(norm)  # a wall in a plain
assert gradtx.diagnose(plain).challenges == {"cliff"}  # found by diagnose
longest = {run: jnp.linalg.norm(jnp.diff(run.iterates, axis=0), axis=1).max() for run in (plain, clipped)}
assert longest[plain] > 2.5  # plain descent is thrown away in a single step
assert longest[clipped] < 0.501  # a clipped step is never longer than the rate times the limit
assert clipped.loss.min() < 0.01 < 0.04 < plain.loss[-1]  # and it gets to the foot of the wall
assert jnp.allclose(slopes[3:], -jnp.log(rhos[3:]), atol=1e-3)  # in a linear net the slope is -log ρ exactly
assert jnp.allclose(slopes[:3], -jnp.log(rhos[:3]), atol=0.2)  # and nearly so with rectifiers
assert norms[0, 9] < 1e-4 * norms[0, -1]  # at ρ = 0.3 the last number is hardly heard
assert norms[0, 0] < 1e-8 * norms[0, -1]  # and the first not at all
assert exploding.final("train_loss")[0, 0].mean() < 0.075  # clipped, the exploding network learns
assert (exploding.diverged_at[0, -1] >= 0).all()  # unclipped, it diverges
assert vanishing.final("train_loss").min() > 0.08  # no threshold repairs what vanished
assert louder.final("train_loss").min() > 0.08  # and no rate
