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
# # 14 · Diagnose a sick run: what is wrong, and what cures it?
#
# *Chapter §2.4, §2.5 and §4.1.* You will see five trainings that go wrong, two of a small transformer and three of a
# recurrent network. For each of them you will see the finding of `gradtx.diagnose`, its evidence, the remedy that it
# prints, and the run with that remedy.
#
# **New in gradtx:** `gradtx.diagnose` takes the readings of *your own* training loop. Chain instruments, return
# `gradtx.readings(state)` from each step, and pass the stacked arrays on.

# %% slideshow={"slide_type": "skip"}
from functools import partial, reduce

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The loop
#
# This is your own training loop, as a `scan` over minibatches: it goes from step to step and stacks the results of the
# steps, which are the loss and all readings. `make_tx` makes the chain of instruments and method.


# %% slideshow={"slide_type": "skip"}
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


# %% [markdown] slideshow={"slide_type": "slide"}
# ## A transformer that learns too little
#
# The first sick run is that of a transformer of one layer that guesses the next character of English text. It is trained by plain
# descent. Two instruments measure it: the norm of the gradient, and the curvature ratio $r$ (notebook 3). A model that
# gives all 96 characters the same probability has the loss $\log 96 = 4.56$.


# %% slideshow={"slide_type": "skip"}
def plain(learning_rate):
    look = [gradtx.gradient_norm(), gradtx.curvature_ratio(learning_rate)]
    return optax.chain(*look, gradtx.sgd(learning_rate))


text = lab.problems.characters(context=8, width=16, heads=2, layers=1)
windows = gradtx.shuffled_epochs(jax.random.key(1), text.num_examples, batch_size=32, epochs=1)[:120]
transformer = partial(train, text.losses, plain, text.init(jax.random.key(0)), text.train, windows)
low = transformer(learning_rate=0.01)
gradtx.diagnose(low)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The loss falls, and the loss alone would not show that it could fall faster. The curvature ratio shows it: all steps
# together are shorter than one good step. The remedy makes the steps longer, by the factor that brings $r$ to 0.1.

# %% slideshow={"slide_type": "skip"}
too_low = gradtx.diagnose(low).findings[0]
print(too_low.remedy)
cured_low = transformer(learning_rate=too_low.numbers["factor"] * 0.01)
print("loss, mean of the last 20 steps:", jnp.mean(low["loss"][-20:]), "->", jnp.mean(cured_low["loss"][-20:]))
gradtx.diagnose(cured_low)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A transformer that explodes
#
# Now the rate is 3, which is too high.

# %% alt="The diagnosis page of the transformer at rate 3: the loss rises and ends as NaN, the gradient norm runs away, and the step against curvature is above 1 from the first steps." slideshow={"slide_type": "subslide"}
high = transformer(learning_rate=3.0)
lab.plot_diagnosis({"problem": "transformer at rate 3", **high})

# %% [markdown] slideshow={"slide_type": "subslide"}
# The first finding is the cause: many steps are expected to raise the loss. The NaN at the end is only a consequence, so
# its finding refers to the first one. The remedy makes the steps so short that the first ones have a ratio $r$ of a
# fifth.

# %% slideshow={"slide_type": "skip"}
cause = gradtx.diagnose(high).findings[0]
print(cause.challenge)
print(cause.remedy)
cured_high = transformer(learning_rate=cause.numbers["factor"] * 3.0)
print("loss, mean of the last 20 steps:", jnp.mean(high["loss"][-20:]), "->", jnp.mean(cured_high["loss"][-20:]))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A recurrent network at a cliff
#
# The second model is the network of notebook 6: sixteen rectifiers, a recurrent matrix that starts at $\rho$ times
# the identity. Its task is the *adding problem*: it reads ten numbers, two of them marked, and then ten blanks, and the
# answer is the sum of the two. One instrument measures the norm of the gradient. The clip has no limit yet.

# %% slideshow={"slide_type": "skip"}
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


# %% slideshow={"slide_type": "skip"}
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

# %% [markdown] slideshow={"slide_type": "subslide"}
# One gradient throws the network to a place at which all its rectifiers give 0 for every example, so the parameters no
# longer move. The remedy is a clip near the usual norm, and the finding contains its limit.

# %% slideshow={"slide_type": "skip"}
usual = gradtx.diagnose(thrown).findings[0].numbers["usual_norm"]
cured_thrown = rnn(start(1.1), sums, max_norm=usual)
print("loss, mean of the last 50 steps:", jnp.mean(thrown["loss"][-50:]), "->", jnp.mean(cured_thrown["loss"][-50:]))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A recurrent network whose first inputs get no signal
#
# If it starts at $\rho = 0.3$, the loss stays at 0.087, which is the loss of the constant answer 1. The norm of the
# gradient shows nothing unusual, and the diagnosis names the instrument that would show more:

# %% slideshow={"slide_type": "subslide"}
deaf = rnn(start(0.3), sums, max_norm=0.1)
first_look = gradtx.diagnose(deaf)
print(first_look.headline)
print("vanishing gradients?", first_look.unjudged["vanishing_gradients"])


# %% [markdown] slideshow={"slide_type": "subslide"}
# So we measure the signal at each step of the sequence (notebook 6 explains how), and diagnose again.


# %% slideshow={"slide_type": "skip"}
def value_fn(params, probes):
    return 0.5 * jnp.mean((predict(params, sums[0][:64], probes) - y[:64]) ** 2)


norms, _ = gradtx.temporal_gradients(value_fn, start(0.3), jnp.zeros((STEPS, 64, HIDDEN)))
deaf["temporal_gradients/norms"] = jnp.tile(norms, (len(batches), 1))  # a row for each step; all as at the start
gradtx.diagnose(deaf)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The advice is to change the start, because no rate repairs this. With $\rho = 1$ the gradient reaches the first inputs.

# %% slideshow={"slide_type": "skip"}
cured_deaf = rnn(start(1.0), sums, max_norm=0.1)
print("loss, mean of the last 50 steps:", jnp.mean(deaf["loss"][-50:]), "->", jnp.mean(cured_deaf["loss"][-50:]))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A recurrent network with one bad example
#
# The start is good again, and the data are the same, except that a single number in one of the thousand sequences is NaN
# ("not a number").

# %% slideshow={"slide_type": "subslide"}
spoilt = sums[0].at[7, 0, 0].set(jnp.nan), y
poisoned = rnn(start(1.0), spoilt, max_norm=0.1)
gradtx.diagnose(poisoned)


# %% [markdown] slideshow={"slide_type": "subslide"}
# The remedy leaves out the steps whose gradient is not finite, and the advice is to find the batch. So we look for the
# examples that all the spoilt batches have in common.


# %% slideshow={"slide_type": "skip"}
def guarded(learning_rate, max_norm):
    return gradtx.skip_nonfinite(clipped(learning_rate, max_norm), give_up_after=10)


cured_poisoned = train(squares, guarded, start(1.0), spoilt, batches, learning_rate=0.01, max_norm=0.1)
bad_steps = np.flatnonzero(~np.isfinite(cured_poisoned["loss"]))
culprit = reduce(np.intersect1d, np.asarray(batches)[bad_steps])
print(len(bad_steps), "steps left out of", len(batches), "; the example in all of them:", culprit)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Before and after

# %% slideshow={"slide_type": "skip"}
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
plt.close()

# %% alt="Five panels, each with the loss of a sick run and of the cured one. In all five the cured run ends lower; two of the sick runs end as NaN." tags=["cover"] slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** Chain two or three instruments before you train, not after a failure. Trust the finding whose
# evidence came first, and try its remedy. A diagnosis without a finding means that the instruments saw nothing wrong, and
# training may still be improved.


# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. Train the transformer at rate 1. Which of the findings do you get?
# 2. Why does the norm of the gradient not show that the early inputs get no signal?
# 3. Leave `skip_nonfinite` out of the last cure. At which step does the run end, and why there?


# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. Run it and read the evidence: look at the step at which each finding begins, and try the remedy of the first one.
# 2. The gradient sums over all steps of the sequence, and the last ones still get a strong signal.
# 3. At the first batch that holds example 7: one NaN in the data makes all parameters NaN.
#
# </details>


# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked


# %% slideshow={"slide_type": "skip"}
def end(curves):
    return float(np.nanmean(curves["loss"][-50:]))


found = {name: gradtx.diagnose(sick).challenges for name, (sick, _) in runs.items()}
assert found["rate too low"] == {"learning_rate_too_low"}  # beyond the chapter: found
assert end(cured_low) < end(low) - 0.5  # 4.1.2.4d: at too small a rate it learns less, longer steps learn more
assert gradtx.diagnose(cured_low).challenges == set()  # beyond the chapter: nothing is amiss any more
assert cause.challenge == "learning_rate_too_high"  # beyond the chapter: the first finding is the cause
assert end(cured_high) < 3.7 < 4.5 < high["loss"][0]  # 4.1.2.4c: too large a rate diverges, shorter steps learn
assert found["cliff"] == {"cliff"}  # beyond the chapter: found
assert end(cured_thrown) < 0.1 < 0.4 < end(thrown)  # 2.5.3a: a clip at the usual norm learns
assert first_look.challenges == set()  # 2.5.3b: the norm alone does not show what vanished
assert found["vanishing gradients"] == {"vanishing_gradients"}  # beyond the chapter: found
assert end(cured_deaf) < 0.07 < 0.075 < end(deaf)  # 2.5.1d: another start, from which it learns
assert found["a bad example"] == {"nonfinite"}  # beyond the chapter: found
assert end(cured_poisoned) < 0.07  # beyond the chapter: without the bad steps it learns
assert culprit.tolist() == [7]  # beyond the chapter: and the example is found
