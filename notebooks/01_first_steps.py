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
# # 1 · First steps: how does a network learn, and how can one watch it?
#
# *Chapter §4.1 (the algorithm).* You will take twenty steps downhill by hand, put two transformations in a row, train a
# network on 1,437 real images of digits, and read what instruments say about that run.
#
# **New in gradtx:** a method, a clip and an instrument are all the same kind of thing, a *gradient transformation*.
# Optax is the usual library of optimizers for JAX, and gradtx works with it: `optax.chain` puts transformations of both
# in a row.

# %% slideshow={"slide_type": "skip"}
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gradtx
from gradtx import lab, landscapes

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Downhill in two dimensions
#
# You need to know four things about JAX. `jax.numpy` is NumPy that can be differentiated. `jax.grad(f)` is the function
# that gives the gradient $\nabla f$. `jax.jit(f)` is `f`, compiled. Random numbers come from a key, `jax.random.key(0)`:
# the same key gives the same numbers.
#
# The function to minimise is a bowl whose curvature is ten times as large along $\theta_2$ as along $\theta_1$:
# $f(\theta) = \tfrac12(\theta_1^2 + 10\,\theta_2^2)$.

# %% slideshow={"slide_type": "subslide"}
bowl = landscapes.quadratic(10.0)
start = jnp.array([1.0, 1.0])
print("height", bowl(start), "gradient", jax.grad(bowl)(start))

# %% [markdown] slideshow={"slide_type": "subslide"}
# *Gradient descent* walks against the gradient: $\theta \leftarrow \theta - \varepsilon g$, with $g$ the gradient and
# $\varepsilon$ the learning rate. A transformation is a pair of functions. `init` makes its memory, the *state*. `update`
# takes a gradient and the state, and returns the step to add to the parameters and the new state.


# %% slideshow={"slide_type": "subslide"}
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

# %% [markdown] slideshow={"slide_type": "subslide"}
# Two transformations in a row: the first one shortens a gradient that is longer than 3 (*clipping*, notebook 6), the
# second one takes the step. Any number in a method may be a *schedule*, a function of the step. Here the rate falls in
# a line from 0.18 to 0.06.

# %% alt="Two paths in a bowl that is ten times as steep across as along. Plain descent jumps from wall to wall; the chain of two starts with shorter steps, stops jumping and follows the floor." slideshow={"slide_type": "subslide"}
rate = gradtx.linear_decay(0.18, 0.06, steps=15)
chained, state = descend(optax.chain(gradtx.clip_by_global_norm(3.0), gradtx.sgd(rate)))
print(f"clipped at {state[0].global_clip_count} of 20 steps")
lab.plot_trajectories(bowl, {"plain descent": plain, "chain of two": chained})

# %% [markdown] slideshow={"slide_type": "subslide"}
# Look at the circles: plain descent jumps from wall to wall, because 0.18 is near the largest rate at which the steep
# direction does not diverge (2/10). In the chain the first step is shorter, and the jumps stop as the rate falls. The
# chain's lower rate is slower along the flat direction, though, so after 20 steps its loss is a little higher.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A network on real images
#
# A `lab` problem holds data, a model and its loss. This one is a network of 64 inputs (the pixels), 32 hidden units
# and 10 outputs. Its 2,410 parameters are a dictionary of arrays, and a transformation treats them like one vector.

# %% alt="Ten small grey images of handwritten digits, each with its label above it." slideshow={"slide_type": "subslide"}
problem = lab.digits()
images, labels = problem.train
_, axes = plt.subplots(1, 10, figsize=(8, 1.1))
for panel, image, label in zip(axes, images, labels, strict=False):
    panel.imshow(image.reshape(8, 8), cmap="gray_r")
    panel.set_title(int(label))
    panel.axis("off")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The training loop is the one above. But the gradient of all 1,437 images at each step would be slow, so each step
# looks at a few of them, a *minibatch* of 64 (notebook 8). `shuffled_epochs` chooses them: it shuffles the images and
# deals them out until each was used once. That is an *epoch*. Then it begins again. The method is called *stochastic gradient descent*,
# SGD. The loss is $-\log$ of the probability that the network gives to the right answer (notebook 2). With the natural
# logarithm its unit is called nat.

# %% slideshow={"slide_type": "subslide"}
tx = optax.chain(gradtx.clip_by_global_norm(2.0), gradtx.sgd(0.5))


@jax.jit
def step(params, state, batch):
    grads = jax.grad(problem.loss)(params, (images[batch], labels[batch]))
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


# %% slideshow={"slide_type": "skip"}
params = problem.init(jax.random.key(0))
state = tx.init(params)
batches = gradtx.shuffled_epochs(jax.random.key(1), len(images), batch_size=64, epochs=10)
first = step(params, state, batches[0])[0]
some = jax.grad(problem.loss)(params, (images[batches[0]], labels[batches[0]]))
for batch in np.asarray(batches):  # [steps, 64] indices
    params, state = step(params, state, batch)
by_hand = problem.metric(params, problem.validation)
print(f"{by_hand:.1%} of 360 images it never saw are named right; {state[0].global_clip_count} steps were clipped")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Watching it
#
# An *instrument* is a transformation that measures its input and passes it on unchanged. So its place in the chain
# matters: the first two below measure the gradient, and the last one measures the finished step. `lab.run` is the loop above,
# compiled as a whole. `history.readings` holds the readings of each step.

# %% tags=["cover"] alt="Four panels over 500 steps: the loss falls, the gradient norm falls with it, the step against curvature stays below 1, and the steps become small beside the parameters." slideshow={"slide_type": "subslide"}
watched = optax.chain(gradtx.gradient_norm(), gradtx.curvature_ratio(0.2), gradtx.sgd(0.2), gradtx.update_ratio())
history = lab.run(problem, watched, steps=500, key=jax.random.key(0))
lab.plot_readings(history)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The loss falls, and the gradient norm falls with it. The reading in the panel *Step against curvature* stays below 1, so
# the rate is not too high (notebook 3). In the panel *Size of the update* the steps get small beside the parameters. The
# headline is the conclusion of `gradtx.diagnose` from all readings (notebook 14).
#
# `lab.run` also evaluates the network after every 20 steps. The loss and the share of wrong answers are different
# quantities, so each gets its own axis:

# %% slideshow={"slide_type": "skip"}
_, (left, right) = plt.subplots(1, 2)
left.semilogy(history.eval_steps, history.train_loss)
left.set(xlabel="optimizer step", ylabel="training loss (nats)", title="What is minimised")
right.plot(history.eval_steps, 1 - history.metric, "s-", ms=4, color="C1")
right.set(
    xlabel="optimizer step", ylabel="share of wrong answers", title="What one cares about: new images", ylim=(0, 1)
)
figure = plt.gcf()
plt.close()

# %% alt="Two panels over 500 steps. Left: the training loss keeps falling. Right: the share of wrong answers on new images falls quickly and then hardly moves." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Of the images that the network never saw, these have the largest losses. Above each image are its true label and its loss.

# %% alt="Eight images of digits that the network finds hardest, each with its true label and its loss." slideshow={"slide_type": "subslide"}
new_images, new_labels = problem.validation
losses = problem.losses(history.params, problem.validation)
_, axes = plt.subplots(1, 8, figsize=(8, 1.4))
for panel, i in zip(axes, jnp.argsort(-losses), strict=False):
    panel.imshow(new_images[i].reshape(8, 8), cmap="gray_r")
    panel.set_title(f"{new_labels[i]}: {losses[i]:.1f}")
    panel.axis("off")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Play
#
# In a live notebook the slider trains at other rates. (A saved notebook shows the middle one.) Which rate is best? What
# does the curve look like if the rate is too high?


# %% slideshow={"slide_type": "skip"}
def compare(learning_rate):
    other = lab.run(problem, gradtx.sgd(learning_rate), steps=500, key=jax.random.key(0))
    return lab.plot_curves({f"rate {learning_rate:g}": other, "rate 0.2 (above)": history}, "train_loss")


# %% alt="Training loss over 500 steps at rate 0.1, beside that at rate 0.2." slideshow={"slide_type": "subslide"}
lab.explore(compare, learning_rate=[0.001, 0.01, 0.1, 1.0, 10.0])

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** SGD subtracts the rate times the gradient of a few random examples, over and over. Other methods, clips
# and instruments are transformations too, and you can chain them. Instruments show things that a falling loss does not
# show.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. At which rate does plain descent in the bowl bring $\theta_2$ to 0 in a single step?
# 2. What happens in the bowl at rate 0.21?
# 3. Put `gradtx.update_ratio()` *before* `gradtx.sgd(0.2)` in the chain. What does it read then?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. At 0.1, one over the curvature. A step multiplies $\theta_2$ by $1 - 10\,\varepsilon$, and this is then 0.
# 2. It diverges: a step multiplies $\theta_2$ by $1 - 2.1 = -1.1$, so each jump across is 1.1 times as long as the one
#    before.
# 3. The size of the gradient relative to that of the parameters. That is five times as much as before, because the step
#    is 0.2 times the gradient.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
walls = jnp.sum(plain[1:, 1] * plain[:-1, 1] < 0)
assert jnp.allclose(plain[1], start - 0.18 * jax.grad(bowl)(start))  # 4.1.1.3: one step is θ - ε g
assert all(
    jnp.allclose(first[name], problem.init(jax.random.key(0))[name] - 0.5 * some[name], atol=1e-6) for name in some
)  # 4.1.1.3: on the network too, with the gradient of a minibatch
assert walls == 20  # 4.1.2.4c: at a rate near the limit descent jumps from wall to wall at every step
assert jnp.sum(chained[1:, 1] * chained[:-1, 1] < 0) < 12  # beyond the chapter: the chain stops jumping
assert by_hand > 0.9  # 4.1.1.3: the hand-written loop learns, and so does lab.run
assert history.metric[-1] > 0.9  # 4.1.1.3: the hand-written loop learns, and so does lab.run
assert jnp.nanmax(history.readings["curvature_ratio/ratio"]) < 1  # beyond the chapter: the rate is not too high
norm = history.readings["gradient_norm/global"]
assert np.median(norm[-50:]) < 0.5 * np.median(norm[:50])  # beyond the chapter: the gradient norm falls
