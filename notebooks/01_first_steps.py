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
# # 1 First steps: how does a network learn, and how can one watch it?
#
# *Chapter §1.2, §2.4 and §4.1.* You will take twenty steps downhill by hand, chain three transformations into one
# method, train a network on 1,797 real images of digits with it, and read what instruments say about that run.
#
# **The new idea**: in gradtx a method, a clip and an instrument are all the same kind of thing, a *gradient
# transformation*, and `optax.chain` puts them in a row.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes

# %% [markdown]
# ## Downhill in two dimensions
#
# Three words of JAX are enough. `jax.numpy` is NumPy that can be differentiated; `jax.grad(f)` is the function that
# gives the gradient $\nabla f$; `jax.jit(f)` is `f`, compiled. The function to minimise is a bowl, ten times as steep
# across as along: $f(\theta) = \tfrac12(\theta_1^2 + 10\,\theta_2^2)$.

# %%
bowl = landscapes.quadratic(10.0)
start = jnp.array([1.0, 1.0])
print("height", bowl(start), "gradient", jax.grad(bowl)(start))

# %% [markdown]
# *Gradient descent* (chapter §4.1) walks against the gradient: $\theta \leftarrow \theta - \varepsilon g$, with $g$ the
# gradient and $\varepsilon$ the learning rate. A transformation is a pair of functions. `init` makes its memory,
# `update` turns a gradient into the step to add to the parameters, and hands the memory on.


# %%
def descend(tx, steps=20):
    theta, state = start, tx.init(start)
    path, update = [theta], jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(jax.grad(bowl)(theta), state, theta)
        theta = optax.apply_updates(theta, updates)
        path.append(theta)
    return jnp.stack(path), state


plain, _ = descend(gradtx.sgd(0.18))
print(plain[1], "=", start - 0.18 * jax.grad(bowl)(start))

# %% [markdown]
# Any number in a method may be a *schedule*, a function of the step. Here the rate falls in a line from 0.18 to 0.0018,
# steps remember the ones before (*momentum*, §4.2), and no gradient longer than 3 gets through (*clipping*, §2.4).

# %%
rate = gradtx.linear_decay(0.18, 0.0018, steps=20)
method = optax.chain(gradtx.clip_by_global_norm(3.0), gradtx.sgd(rate, momentum=0.5, nesterov=True))
chained, state = descend(method)
print(f"clipped at {state[0].global_clip_count} of 20 steps")
lab.plot_trajectories(bowl, {"plain descent": plain, "chain of three": chained})

# %% [markdown]
# Look at the circles: plain descent jumps from wall to wall, because 0.18 is near the largest rate that the steep
# direction stands (2/10). The chain turns into the valley and follows its floor.
#
# ## A network on real images
#
# A `lab` problem brings data, a model and its loss. This one is a network of 64 inputs (the pixels), 32 hidden units
# and 10 outputs; its 2,410 parameters are a dictionary of arrays, which to a transformation is as good as one vector.

# %%
problem = lab.digits()
images, labels = problem.train
_, axes = plt.subplots(1, 10, figsize=(8, 1.1))
for panel, image, label in zip(axes, images, labels, strict=False):
    panel.imshow(image.reshape(8, 8), cmap="gray_r")
    panel.set_title(int(label))
    panel.axis("off")

# %% [markdown]
# The training loop is the one above. Each step looks at a *minibatch* of 64 images; `shuffled_epochs` says which
# (§3.2).

# %%
clip = gradtx.clip_by_global_norm(0.5)
method = gradtx.sgd(0.1, momentum=0.9, nesterov=True)
tx = optax.chain(clip, method)


@jax.jit
def step(params, state, batch):
    grads = jax.grad(problem.loss)(params, (images[batch], labels[batch]))
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


# %%
params = problem.init(jax.random.key(0))
state = tx.init(params)
batches = gradtx.shuffled_epochs(jax.random.key(1), len(images), batch_size=64, epochs=5)
for batch in np.asarray(batches):  # [steps, 64] indices
    params, state = step(params, state, batch)
by_hand = problem.metric(gradtx.nesterov_eval_params(params, state), problem.validation)
print(f"{by_hand:.1%} of 360 images it never saw are named right; {state[0].global_clip_count} steps were clipped")

# %% [markdown]
# (Nesterov's momentum trains at a point a little ahead of the parameters; `nesterov_eval_params` steps back.)
#
# ## Watching it
#
# An *instrument* is a transformation that changes nothing and remembers what it saw. Where it stands decides what it
# sees: the first ones below see the gradient, the last one the finished step. `lab.run` is the loop above, compiled as
# a whole; what the instruments said at each step is in `history.readings`.

# %%
looking = [gradtx.gradient_norm(), gradtx.curvature_ratio(0.1), gradtx.clipping_events(max_norm=0.5)]
watched = optax.chain(*looking, clip, method, gradtx.update_ratio())
history = lab.run(problem, watched, steps=500, key=jax.random.key(0))
lab.plot_readings(history)

# %% [markdown]
# Read the panels as a doctor reads a chart. The loss falls. The gradient norm falls with it, so that the clip was busy
# in the first steps only. The step against curvature stays below 1: the rate is not too high (notebook 2). The steps
# get small against the parameters. The headline is what `gradtx.diagnose` concludes from all of it (notebook 10).
#
# ## The loss is a stand-in
#
# What one cares about is the share of wrong answers on new images, but it is a staircase: its derivative is zero nearly
# everywhere. So one descends a *surrogate*, here the cross-entropy, $-\log$ of the probability given to the right
# answer (§1.2). Look at the right half: the error rate hardly moves any more, and the surrogate still falls.

# %%
_, axes = plt.subplots()
axes.semilogy(history.eval_steps, history.train_loss, label="training loss (surrogate, nats)")
axes.semilogy(history.eval_steps, 1 - history.metric, "s-", ms=4, label="validation error (what one cares about)")
axes.set(xlabel="optimizer step")
axes.legend()
plt.show()
# %% [markdown]
# The images that it finds hardest, of those it never saw: each with its true label and its loss.

# %%
images, labels = problem.validation
losses = problem.losses(gradtx.nesterov_eval_params(history.params, history.opt_state), problem.validation)
_, axes = plt.subplots(1, 8, figsize=(8, 1.4))
for panel, i in zip(axes, jnp.argsort(-losses), strict=False):
    panel.imshow(images[i].reshape(8, 8), cmap="gray_r")
    panel.set_title(f"{labels[i]}: {losses[i]:.1f}")
    panel.axis("off")

# %% [markdown]
# ## Play
#
# The slider trains plain descent at other rates (in a live notebook; a saved one shows the middle one). Which rate is
# best, and what does one too high look like?


# %%
def compare(learning_rate):
    plain = lab.run(problem, gradtx.sgd(learning_rate), steps=500, key=jax.random.key(0))
    return lab.plot_curves({f"rate {learning_rate:g}, plain descent": plain, "the chain": history}, "train_loss")


lab.explore(compare, learning_rate=[0.001, 0.01, 0.1, 1.0, 10.0])

# %% [markdown]
# ## What was claimed, checked

# %%
late = history.eval_steps >= 200
assert jnp.allclose(plain[1], start - 0.18 * jax.grad(bowl)(start))  # one step of sgd is θ - ε g
assert bowl(chained[-1]) < bowl(plain[-1])  # the chain ends lower than plain descent
assert jnp.sum(plain[1:, 1] * plain[:-1, 1] < 0) == 20  # plain descent jumps from wall to wall at every step
assert by_hand > 0.9  # the hand-written loop learns
assert history.metric[-1] > 0.93  # so does lab.run
fraction = history.readings["clipping_events/fraction"]  # clipped, of the steps so far
assert fraction[10] > 0.8  # the clip was busy early
assert fraction[-1] < 0.3  # and only early
assert jnp.nanmax(history.readings["curvature_ratio/ratio"]) < 1  # the rate is not too high
assert history.train_loss[-1] < 0.7 * history.train_loss[late][0]  # late in the run the surrogate still falls
assert abs(history.metric[-1] - history.metric[late][0]) < 0.03  # while the accuracy hardly moves
