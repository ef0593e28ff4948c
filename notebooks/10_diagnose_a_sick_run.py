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
# # 10 Diagnose a sick run: what ails it, and what cures it?
#
# *Chapter §2.1 to §2.6 and §4.1.* You will see five trainings that go wrong, two of a small transformer and three of a
# recurrent network; for each, what `gradtx.diagnose` finds, on what evidence, the remedy it prints, and the run after
# it.
#
# **The new idea**: `gradtx.diagnose` takes the readings of *your own* training loop. Chain instruments, return
# `gradtx.readings(state)` from each step, and pass the stacked arrays on.

# %%
from functools import partial, reduce

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab

# %% [markdown]
# ## The loop
#
# A training loop of one's own, as a `scan` over minibatches: it goes from step to step and stacks what each returns,
# the loss and all readings. `make_tx` says which instruments look and which method steps.


# %%
@partial(jax.jit, static_argnames=("losses", "make_tx"))
def train(losses, make_tx, params, data, batches, **hyperparameters):
    tx = make_tx(**hyperparameters)

    def step(carry, batch):
        params, state = carry

        def loss_fn(params):
            return jnp.mean(losses(params, jax.tree.map(lambda a: a[batch], data)))

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = tx.update(grads, state, params, value_fn=loss_fn)
        return (optax.apply_updates(params, updates), state), {"loss": loss, **gradtx.readings(state)}

    return jax.lax.scan(step, (params, tx.init(params)), batches)[1]


# %% [markdown]
# ## A transformer that learns too little
#
# The patient guesses the next character of English text: a transformer of one layer, trained by plain descent. Two
# instruments look: the gradient's norm and the curvature ratio (notebook 2). Always the same guess for all 96
# characters costs $\log 96 = 4.56$.


# %%
def plain(learning_rate):
    look = [gradtx.gradient_norm(), gradtx.curvature_ratio(learning_rate)]
    return optax.chain(*look, gradtx.sgd(learning_rate))


text = lab.problems.characters(context=8, width=16, heads=2, layers=1)
windows = gradtx.shuffled_epochs(jax.random.key(1), text.num_examples, batch_size=32, epochs=1)[:120]
transformer = partial(train, text.losses, plain, text.init(jax.random.key(0)), text.train, windows)
low = transformer(learning_rate=0.01)
gradtx.diagnose(low)

# %% [markdown]
# The loss falls, and a loss alone would not tell that it could fall faster. The curvature ratio does: all steps
# together are less than one good step. The remedy makes the steps longer, by the factor that takes r to 0.1.

# %%
too_low = gradtx.diagnose(low).findings[0]
print(too_low.remedy)
cured_low = transformer(learning_rate=too_low.numbers["factor"] * 0.01)
print("loss, mean of the last 20 steps:", jnp.mean(low["loss"][-20:]), "->", jnp.mean(cured_low["loss"][-20:]))
gradtx.diagnose(cured_low)

# %% [markdown]
# ## A transformer that explodes
#
# The other way: a rate of 3.

# %%
high = transformer(learning_rate=3.0)
lab.plot_diagnosis({"problem": "transformer at rate 3", **high})

# %% [markdown]
# The cause comes first: steps that are expected to raise the loss. That the loss ends as NaN is its consequence, and
# has no remedy of its own. The remedy is the rate's: so short that the first steps have a ratio of a fifth.

# %%
cause = gradtx.diagnose(high).findings[0]
print(cause.challenge)
print(cause.remedy)
cured_high = transformer(learning_rate=cause.numbers["factor"] * 3.0)
print("loss, mean of the last 20 steps:", jnp.mean(high["loss"][-20:]), "->", jnp.mean(cured_high["loss"][-20:]))

# %% [markdown]
# ## A recurrent network at a cliff
#
# The second patient is the network of notebook 4: sixteen rectifiers, a recurrent matrix that starts at $\rho$ times
# the identity, and the *adding problem*: ten numbers, two of them marked, then ten blanks; say the sum of the two. One
# instrument looks; the clip has no limit yet.

# %%
STEPS, HIDDEN = 20, 16
SILENT = jnp.zeros((STEPS, 1, 1))


def predict(params, x, probes=SILENT):
    def step(h, inputs):
        x, probe = inputs
        return jax.nn.relu(x @ params["w_in"] + h @ params["w"] + params["b"]) + probe, None

    h, _ = jax.lax.scan(step, jnp.zeros((len(x), HIDDEN)), (jnp.swapaxes(x, 0, 1), probes))
    return h @ params["w_out"]


def start(rho):
    key_in, key_out = jax.random.split(jax.random.key(0))
    w_in, w_out = jax.random.normal(key_in, (2, HIDDEN)), jax.random.normal(key_out, (HIDDEN,))
    return {"w_in": w_in / 2**0.5, "w": rho * jnp.eye(HIDDEN), "b": jnp.zeros(HIDDEN), "w_out": 0.025 * w_out}


# %%
def squares(params, batch):
    x, y = batch
    return 0.5 * (predict(params, x) - y) ** 2


def clipped(learning_rate, max_norm):
    clip = gradtx.clip_by_global_norm(max_norm)
    return optax.chain(gradtx.gradient_norm(), clip, gradtx.sgd(learning_rate, momentum=0.9))


x, y = lab.problems.adding(length=10, examples=1000).train
sums = jnp.pad(x, ((0, 0), (0, STEPS - 10), (0, 0))), y
batches = gradtx.shuffled_epochs(jax.random.key(1), len(y), batch_size=50, epochs=30)
rnn = partial(train, squares, clipped, batches=batches, learning_rate=0.01)
thrown = rnn(start(1.1), sums, max_norm=jnp.inf)
gradtx.diagnose(thrown)

# %% [markdown]
# One gradient throws the network to where all its rectifiers are dead, and nothing moves any more. The remedy is a clip
# near the usual norm, and the number is in the finding.

# %%
usual = gradtx.diagnose(thrown).findings[0].numbers["usual_norm"]
cured_thrown = rnn(start(1.1), sums, max_norm=usual)
print("loss, mean of the last 50 steps:", jnp.mean(thrown["loss"][-50:]), "->", jnp.mean(cured_thrown["loss"][-50:]))

# %% [markdown]
# ## A recurrent network that hears nothing
#
# From $\rho = 0.3$ the loss stays at 0.087, which is what it costs always to say 1. The gradient's norm shows nothing
# amiss, and the diagnosis says what would tell more:

# %%
deaf = rnn(start(0.3), sums, max_norm=1.0)
first_look = gradtx.diagnose(deaf)
print(first_look.headline)
print("vanishing gradients?", first_look.unjudged["vanishing_gradients"])


# %% [markdown]
# So measure it (notebook 4 says how), and ask again.


# %%
def value_fn(params, probes):
    return 0.5 * jnp.mean((predict(params, sums[0][:64], probes) - y[:64]) ** 2)


norms, _ = gradtx.temporal_gradients(value_fn, start(0.3), jnp.zeros((STEPS, 64, HIDDEN)))
deaf["temporal_gradients/norms"] = jnp.tile(norms, (len(batches), 1))  # a row for each step; all as at the start
gradtx.diagnose(deaf)

# %% [markdown]
# No rate repairs this, says the advice: change the start. With $\rho = 1$ the gradient comes through.

# %%
cured_deaf = rnn(start(1.0), sums, max_norm=1.0)
print("loss, mean of the last 50 steps:", jnp.mean(deaf["loss"][-50:]), "->", jnp.mean(cured_deaf["loss"][-50:]))

# %% [markdown]
# ## A recurrent network with one bad example
#
# In the same data, from the good start, one number of a thousand sequences is not a number.

# %%
spoilt = sums[0].at[7, 0, 0].set(jnp.nan), y
poisoned = rnn(start(1.0), spoilt, max_norm=1.0)
gradtx.diagnose(poisoned)


# %% [markdown]
# The remedy leaves out the steps whose gradient is not finite, and the advice is to find the batch. All batches that
# spoil a step have one example in common.


# %%
def guarded(learning_rate, max_norm):
    return gradtx.skip_nonfinite(clipped(learning_rate, max_norm), give_up_after=10)


cured_poisoned = train(squares, guarded, start(1.0), spoilt, batches, learning_rate=0.01, max_norm=1.0)
bad_steps = np.flatnonzero(~np.isfinite(cured_poisoned["loss"]))
culprit = reduce(np.intersect1d, np.asarray(batches)[bad_steps])
print(len(bad_steps), "steps left out of", len(batches), "; the example in all of them:", culprit)

# %% [markdown]
# ## Before and after

# %%
runs = {
    "rate too low": (low, cured_low), "rate too high": (high, cured_high), "cliff": (thrown, cured_thrown),
    "vanishing gradients": (deaf, cured_deaf), "a bad example": (poisoned, cured_poisoned),
}  # fmt: skip
figure, axes = plt.subplots(2, 3, figsize=(9, 5.2))
for panel, (name, (sick, cured)) in zip(axes.flat, runs.items(), strict=False):
    last = np.flatnonzero(np.isfinite(sick["loss"]))[-1]
    panel.plot(cured["loss"], color="C0", lw=1, label="cured")
    panel.plot(sick["loss"], color="C1", lw=1.5, label="sick")
    if last < len(sick["loss"]) - 1:
        panel.plot(last, sick["loss"][last], "X", color="C1", ms=9, label="then NaN")
    panel.set(title=name, yscale="linear" if "rate" in name else "log")
for panel in axes[0, :2]:
    panel.set_ylim(2.5, 5)
axes[1, 1].legend()
figure.supxlabel("optimizer step", fontsize=10)
figure.supylabel("minibatch loss", fontsize=10)
axes[1, 2].axis("off")
plt.show()

# %% [markdown]
# ## What was claimed, checked


# %%
def end(curves):
    return float(np.nanmean(curves["loss"][-50:]))


found = {name: gradtx.diagnose(sick).challenges for name, (sick, _) in runs.items()}
assert found["rate too low"] == {"learning_rate_too_low"}
assert end(cured_low) < end(low) - 0.5  # longer steps learn more
assert gradtx.diagnose(cured_low).challenges == set()  # and nothing is amiss any more
assert cause.challenge == "learning_rate_too_high"  # the first finding is the cause
assert end(cured_high) < 3.7 < 4.5 < high["loss"][0]  # shorter steps learn
assert found["cliff"] == {"cliff"}
assert end(cured_thrown) < 0.1 < 0.4 < end(thrown)  # a clip at the usual norm learns
assert first_look.challenges == set()  # the norm alone does not show that nothing is heard
assert found["vanishing gradients"] == {"vanishing_gradients"}
assert end(cured_deaf) < 0.07 < 0.075 < end(deaf)  # a start through which the gradient comes learns
assert found["a bad example"] == {"nonfinite"}
assert end(cured_poisoned) < 0.07  # without the bad steps it learns
assert culprit.tolist() == [7]  # and the example is found
