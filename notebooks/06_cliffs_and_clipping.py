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
# # 6 · Cliffs and clipping: what can a bound on the gradient repair, and what can it not?
#
# *Chapter §2.4 and §2.5.* You will see that one step at the foot of a cliff throws descent far away, and that clipping
# prevents it. Then you will see gradients explode or vanish on their way back through the steps of a recurrent network,
# and learn why depth alone is not the reason. Clipping repairs exploding gradients, but not vanishing ones.
#
# **New in gradtx:** `gradtx.temporal_gradients` measures how large the gradient of the loss is at each step of a
# sequence, by means of *probes*.

# %% slideshow={"slide_type": "skip"}
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import gradtx
from gradtx import lab, landscapes

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A cliff
#
# Products of many large weights make walls. `landscapes.cliff` is the loss of a recurrent network of a single unit,
# $h_t = w\,\sigma(h_{t-1}) + b$, after twelve steps, over its two parameters $\theta_1 = w$ and $\theta_2 = b$. Here
# $\sigma$ is the logistic function.

# %% alt="The loss of a recurrent network of one unit over its two parameters, as a surface: a low plain, a high plain, and a steep wall between them." slideshow={"slide_type": "subslide"}
cliff = landscapes.cliff
lab.plot_surface(cliff)

# %% [markdown] slideshow={"slide_type": "subslide"}
# The wall comes from the product. On the way back through $t$ steps the gradient is multiplied by $w\,\sigma'(h)$ at each
# step, and $\sigma'$ is at most $\frac14$. So if $w < 4$, all factors are below 1. If $w > 4$, the largest slope grows
# with each further step. Here is the largest slope in $b$, for several $w$ and several numbers of steps:


# %% slideshow={"slide_type": "skip"}
DEPTHS = [2, 4, 8, 12]


@jax.jit
def largest_slopes(w):
    """For each number of steps."""

    def losses(b):
        h, found = jnp.log(0.7 / 0.3), []
        for step in range(1, max(DEPTHS) + 1):
            h = w * jax.nn.sigmoid(h) + b
            if step in DEPTHS:
                found.append(0.5 * (jax.nn.sigmoid(h) - 0.7) ** 2)
        return jnp.stack(found)

    return jnp.abs(jax.vmap(jax.jacfwd(losses))(jnp.linspace(-6, 2, 20_001))).max(axis=0)


steepest = {w: np.asarray(largest_slopes(w)) for w in (3.0, 5.0, 7.0)}
for w, values in steepest.items():
    print(f"w = {w:g}: largest slope after {DEPTHS} steps:", values.round(2))

# %% [markdown] slideshow={"slide_type": "subslide"}
# Descent starts on the low plain, where the gradient norm is about 0.01, and walks until it meets the wall. We put a clip
# before the method: it shortens a gradient $g$ that is longer than $c$ to $g\,c/\lVert g\rVert$.


# %% slideshow={"slide_type": "skip"}
def clipped_descent(max_norm):
    return optax.chain(gradtx.gradient_norm(), gradtx.clip_by_global_norm(max_norm), gradtx.sgd(1.0))


def descend(max_norm):
    return lab.run(cliff, clipped_descent(max_norm), steps=200, key=jax.random.key(0))


# %% alt="Two paths on the cliff. The path without a clip runs up to the wall and is thrown to the other side of the picture. The path clipped at 0.5 stays near the wall." tags=["cover"] slideshow={"slide_type": "subslide"}
plain, clipped = descend(jnp.inf), descend(0.5)
lab.plot_trajectories(cliff, {"not clipped": plain, "clipped at 0.5": clipped})

# %% [markdown] slideshow={"slide_type": "subslide"}
# A single step throws the unclipped path back beyond its start, and it stays there. The clipped path steps over the wall
# too, but never farther than 0.5. `diagnose` finds the cliff in the norms, and prints a remedy.

# %% slideshow={"slide_type": "subslide"}
finding = gradtx.diagnose(plain).findings[0]
print(finding.title, "| chapter", finding.section)
print(finding.evidence)
print(finding.remedy)

# %% [markdown] slideshow={"slide_type": "subslide"}
# We try the remedy, and other limits as well. Where does each path *end*, and what was its largest loss in its last 50
# steps? `lab.sweep` runs all of the limits in one call.

# %% slideshow={"slide_type": "skip"}
usual = float(finding.numbers["usual_norm"])
limits = [usual, 0.03, 0.1, 0.3, 0.5, 1.0, 3.0, jnp.inf]
swept = lab.sweep(cliff, clipped_descent, {"max_norm": limits}, steps=200, keys=jax.random.key(0)[None])
last = {limit: loss[0, -50:] for limit, loss in zip(limits, swept.loss, strict=True)}
for limit, loss in last.items():
    print(f"clipped at {limit:.3g}: ends at a loss of {loss[-1]:.4f}, highest of the last 50 steps {loss.max():.4f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The limit of the remedy is close to the usual norm on the plain. With it the path creeps along the foot of the wall and stays
# low. With a higher limit the path is not thrown far either, but it keeps jumping across the wall, so its height after
# 200 steps is a matter of luck. A limit near the gradient of the wall, or above it, changes nothing.
#
# **Play**: compare the paths at other limits. (A saved notebook shows the middle one.)


# %% alt="Two paths on the cliff: without a clip the path is thrown far away in one step, with a clip at 0.3 it stays near the foot of the wall." slideshow={"slide_type": "subslide"}
def compare(max_norm):
    return lab.plot_trajectories(cliff, {"not clipped": plain, f"clipped at {max_norm:g}": descend(max_norm)})


lab.explore(compare, max_norm=[0.01, 0.03, 0.1, 0.3, 1.0, 3.0])

# %% [markdown] slideshow={"slide_type": "subslide"}
# Clipping *by norm* keeps the direction of the step. Clipping each entry *by value* changes the direction. The state of
# the clip holds the norm, and how often the clip acted.

# %% slideshow={"slide_type": "subslide"}
g = jnp.array([0.3, 4.0])
clipped_by = []
for tx in (gradtx.clip_by_value(1.0), gradtx.clip_by_global_norm(1.0)):
    u, state = tx.update(g, tx.init(g))
    clipped_by.append(u)
    cosine = u @ g / jnp.linalg.norm(u) / jnp.linalg.norm(g)
    print(f"{type(state).__name__}: {u}, cosine with the gradient {cosine:.3f}")

acted = clipped.opt_state[-2].global_clip_count
print(f"on the cliff: {acted} of 200 steps clipped")


# %% [markdown] slideshow={"slide_type": "slide"}
# ## Through time
#
# A recurrent network applies one matrix $W$ at every step. On its way back through $t$ steps a gradient is multiplied by
# it $t$ times, and $W^t = V\,\mathrm{diag}(\lambda)^t\,V^{-1}$. Along an eigenvector with $|\lambda| > 1$ the gradient
# explodes, along one with $|\lambda| < 1$ it vanishes. We check this formula with a random matrix and $t = 30$. We also
# compute the gradient of the shared matrix by hand, which is a sum over the steps:
#
# $$h_t = W h_{t-1}, \qquad \nabla_W L = \sum_{t=1}^{n} (W^\top)^{n-t}\, \nabla_{h_n} L \;\, h_{t-1}^\top .$$

# %% slideshow={"slide_type": "skip"}
rng = np.random.default_rng(0)
W, h0 = rng.standard_normal((6, 6)) / 6**0.5, rng.standard_normal(6)
step_by_step = np.linalg.multi_dot([W] * 30)
eigenvalues, V = np.linalg.eig(W)  # complex: W is not symmetric
by_eigenvalues = (V * eigenvalues**30) @ np.linalg.inv(V)

n, states = 8, [h0]
for _ in range(n):
    states.append(W @ states[-1])
by_hand = sum(np.outer(np.linalg.matrix_power(W.T, n - t) @ states[n], states[t - 1]) for t in range(1, n + 1))


def end_of(W):
    h = jnp.asarray(h0)
    for _ in range(n):
        h = W @ h
    return 0.5 * jnp.sum(h**2)


automatic = jax.grad(end_of)(jnp.asarray(W))
print("largest |λ|:", np.abs(eigenvalues).max().round(3), " ‖W^30‖:", np.linalg.norm(step_by_step).round(3))

# %% [markdown] slideshow={"slide_type": "subslide"}
# Is the depth the reason, then? No, the reason is that the *same* matrix is used at each step. Take 50 layers of 16
# linear units. In a recurrent network all layers share one random matrix. In a feed-forward network each layer has its
# own, of the same scale. How long is a gradient after 50 layers? We measure it in 300 networks of each kind:

# %% slideshow={"slide_type": "skip"}
UNITS, LAYERS = 16, 50


@jax.jit
@jax.vmap
def log_length(key):
    """log10 of the length of a gradient after 50 layers: with one matrix for all, and with 50 matrices."""
    key_g, key_w = jax.random.split(key)
    g = jax.random.normal(key_g, (UNITS,))
    matrices = jax.random.normal(key_w, (LAYERS, UNITS, UNITS)) / UNITS**0.5

    def through(layers):
        def layer(carry, w):
            g, log = carry
            g = w.T @ g
            length = jnp.linalg.norm(g)
            return (g / length, log + jnp.log10(length)), None

        return jax.lax.scan(layer, (g / jnp.linalg.norm(g), 0.0), layers)[0][1]

    return through(jnp.broadcast_to(matrices[0], matrices.shape)), through(matrices)


shared, different = map(np.asarray, log_length(jax.random.split(jax.random.key(0), 300)))

# %% slideshow={"slide_type": "skip"}
bins = np.arange(-9, 10, 0.5)
plt.hist(different, bins, alpha=0.7, label="50 different matrices (feed-forward)")
plt.hist(shared, bins, alpha=0.6, label="one matrix, 50 times (recurrent)")
plt.gca().set(xlabel="log₁₀ of the gradient's length after 50 layers (0: as long as before)", ylabel="networks")
plt.title("It is the repetition that makes gradients explode or vanish")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Two histograms of the length of a gradient after 50 layers. With 50 different matrices nearly all lengths are within a factor of a hundred of 1; with one shared matrix they spread over many powers of ten." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Now we train a network. Its $W$ starts at $\rho$ times the identity, so that all $\lambda = \rho$. (`jax.lax.scan` is
# JAX's compiled loop: it carries $h$ through the steps.)

# %% slideshow={"slide_type": "skip"}
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


# %% [markdown] slideshow={"slide_type": "subslide"}
# The units are rectifiers, $\max(0, h)$; with `leak=1` they become linear. The task is the *adding problem*: the network
# reads ten numbers, two of them marked, and then ten blanks, and the answer is the sum of the marked numbers. All that
# matters comes before the blanks, so the network must remember it.
#
# A *probe* is a zero that the model adds to $h_t$. The gradient of the loss with respect to the probe is
# $\partial L / \partial h_t$. We call it the signal that step $t$ gets from the loss. One backward pass gives all of
# them. `temporal_gradients` returns their lengths, and the slope of the logarithm of the length over $t$.


# %% slideshow={"slide_type": "skip"}
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
norms, slopes = jax.jit(jax.vmap(signal))(rhos, leaks)
print("-log ρ        ", -jnp.log(rhos[:3]), "\nrectifiers    ", slopes[:3], "\nstraight lines", slopes[3:])

# %% slideshow={"slide_type": "skip"}
for rho, norm in zip(rhos[:3], norms, strict=False):
    plt.semilogy(norm / norm[-1], "o-", ms=3, label=f"ρ = {rho:g}")
plt.xticks(range(0, STEPS, 5))
plt.xlabel("step t of the sequence (the loss is at the right end)")
plt.ylabel("‖∂L/∂h_t‖, last step: 1")
plt.legend()
figure = plt.gcf()
plt.close()

# %% alt="Length of the loss's gradient at each of 20 steps of a sequence, relative to the last step. At rho 1.3 it grows towards the start of the sequence, at rho 1 it hardly changes, at rho 0.3 it falls below a billionth." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Read the figure from right to left, as the gradient goes. In a linear network the slope is exactly $-\log\rho$, and
# rectifiers change little. At $\rho = 0.3$ the last number before the blanks (step 9) gets less than a ten thousandth of the signal
# that the last step gets, and the first one less than a hundred millionth.


# %% [markdown] slideshow={"slide_type": "slide"}
# ## What clipping repairs
#
# We train the same network from a start at which gradients explode ($\rho = 1.3$) and from one at which they vanish
# ($\rho = 0.3$), each from five keys and with several limits, from a tight clip to none. `lab.sweep` trains all of them.


# %% slideshow={"slide_type": "skip"}
def make_tx(learning_rate, max_norm):
    return optax.chain(gradtx.clip_by_global_norm(max_norm), gradtx.sgd(learning_rate, momentum=0.9))


def network(rho):
    return lab.problems.regression(f"ρ = {rho}", lambda key: start(key, rho), predict, train, validation)


explodes, vanishes = network(1.3), network(0.3)
settings = {"steps": 600, "keys": jax.random.split(jax.random.key(1), 5), "batch_size": 50}
clips = {"learning_rate": [0.05], "max_norm": [0.03, 0.1, 1.0, 1e6]}
exploding = lab.sweep(explodes, make_tx, clips, **settings)
vanishing = lab.sweep(vanishes, make_tx, clips, **settings)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What clipping cannot repair
#
# Could one scale a vanishing gradient up instead? We train the network from $\rho = 0.3$ again, at rates that are up to a
# thousand times higher, from the same five keys.

# %% slideshow={"slide_type": "subslide"}
rates = {"learning_rate": [0.05, 0.5, 5.0, 50.0], "max_norm": [0.1]}
louder = lab.sweep(vanishes, make_tx, rates, **settings)

# %% slideshow={"slide_type": "skip"}
for name, sweep in (("ρ = 1.3", exploding), ("ρ = 0.3", vanishing)):
    for limit, values in zip(clips["max_norm"], sweep.final("train_loss")[0], strict=True):
        print(f"{name}, limit {limit:g}: final training loss", values.round(3))
_, (left, right) = plt.subplots(1, 2, sharey=True)
left.loglog(clips["max_norm"], np.median(exploding.final("train_loss")[0], -1), "o-", label="ρ = 1.3")
left.loglog(clips["max_norm"], np.median(vanishing.final("train_loss")[0], -1), "s-", label="ρ = 0.3")
left.set(xlabel="max_norm of the clip", ylabel="final training loss")
finals = louder.final("train_loss")[:, 0]  # [rate, key]
right.loglog(rates["learning_rate"], np.median(finals, axis=-1), "s-", color="C1", label="ρ = 0.3, median")
right.loglog(rates["learning_rate"], finals, "k.", ms=4)
right.set(xlabel="learning rate")
for axes in (left, right):
    axes.axhline(0.087, color="k", lw=0.8, ls="--", label="the constant answer 1")
    axes.legend()
figure = plt.gcf()
plt.close()

# %% alt="Final training loss. Left, against the limit of the clip: from rho 1.3 a tight clip trains and a loose one diverges; from rho 0.3 no limit helps. Right, from rho 0.3 against the learning rate: no rate gets below the loss of a constant guess." slideshow={"slide_type": "subslide"}
figure

# %% [markdown] slideshow={"slide_type": "subslide"}
# Left, medians of five keys: a network that always answers 1 has a loss of about 0.087. From $\rho = 1.3$ a clip makes the difference between a
# network that learns and one that diverges (the blue line ends there); a limit of 0.1 is best. From $\rho = 0.3$ the limit
# does not matter, because there is nothing to clip. Right: no learning rate helps either. The dots are the five keys.
# At rate 0.5 a run may get a little below the line by chance, but at no rate do half of the runs get there.
#
# There are two reasons. The first is that the size of a small gradient does not say why it is small. A chain of 10 equal
# weights, $\frac12 (w^{10} - 1)^2$, has the same gradient at $w = 0.4$, where it vanishes, and close to its minimum at 1:


# %% slideshow={"slide_type": "skip"}
def chain(theta):
    return 0.5 * (theta[0] ** 10 - 1) ** 2


far = jnp.array([0.4])
slope_far = jnp.abs(jax.grad(chain)(far))[0]
near = jnp.array([1 - slope_far / 100])  # the curvature at the minimum is 100
tolerance = {"gradient_tolerance": 0.01, "curvature_tolerance": 0.01, "key": jax.random.key(0)}
point_of_chain = jax.jit(lambda theta: gradtx.critical_point(chain, theta, **tolerance))
for name, theta in (("vanished", far), ("at the minimum", near)):
    what = point_of_chain(theta)
    print(f"{name}: w = {theta[0]:.5f}, gradient {jax.grad(chain)(theta)[0]:.2e}, loss {chain(theta):.1e}, {what.kind}")


def through_layers(theta, probes):
    def layer(h, probe):
        return theta[0] * h + probe, None

    return 0.5 * (jax.lax.scan(layer, jnp.ones(()), probes)[0] - 1) ** 2


fall_of = jax.jit(lambda theta: gradtx.temporal_gradients(through_layers, theta, jnp.zeros(10))[1])
fall_far, fall_near = fall_of(far), fall_of(near)
print(f"slope of log ‖∂L/∂h_t‖ over t: vanished {fall_far:.2f} (that is -log 0.4), at the minimum {fall_near:.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The probes and the curvature tell the two apart, but the size of the gradient does not.
#
# The second reason is noise. If the signal has vanished, the gradient of a minibatch is mostly noise, and scaling it up
# scales the noise. If the gradient explodes, its direction is still right, and scaling it down does no harm. We count the
# share of minibatches of 50 whose gradient points downhill for the whole training set, and their mean cosine with the
# whole gradient:

# %% slideshow={"slide_type": "skip"}
stuck = lab.run(vanishes, make_tx(0.05, 0.1), steps=600, batch_size=50, key=jax.random.key(2)).params
places = {"exploded, at its start": explodes.init(jax.random.key(0)), "vanished, after training": stuck}
orders = gradtx.shuffled_epochs(jax.random.key(3), 1000, 50, epochs=10)


@jax.jit
def gradients(params):
    """The gradient of all examples, and [200, parameters] those of minibatches."""

    def gradient(batch):  # both problems have the same examples and the same loss
        return ravel_pytree(jax.grad(explodes.loss)(params, batch))[0]

    return gradient(train), jax.lax.map(lambda i: gradient(jax.tree.map(lambda a: a[i], train)), orders)


cosine = {}
for name, params in places.items():
    whole, some = map(np.asarray, gradients(params))
    cosine[name] = some @ whole / np.linalg.norm(some, axis=1) / np.linalg.norm(whole)
    print(
        f"{name}: whole gradient {np.linalg.norm(whole):.1e}, of a minibatch {np.linalg.norm(some, axis=1).mean():.1e}; "
        f"{np.mean(cosine[name] > 0):.0%} point downhill, mean cosine {cosine[name].mean():.2f}"
    )

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** A clip keeps the direction and bounds the step, which is enough at a cliff or with an exploding
# gradient. Scaling up does not repair a vanished gradient. Change the start, the units or the architecture so that the
# signal reaches the early steps.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. By which factor does a gradient change over 100 steps if all $|\lambda| = 0.95$? And if they are 1.05?
# 2. Clip the gradient $(0.3, 4)$ by value at 5. What is the difference from clipping by norm at 5?
# 3. Which limit would you choose for a run whose gradient norms are around 2 with rare leaps to 300?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. $0.95^{100} \approx 0.006$ and $1.05^{100} \approx 130$.
# 2. None: no entry exceeds 5, and the norm, 4.01, does not either.
# 3. About 2, the usual norm. Then a leap makes a step that is no longer than an ordinary one.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
norm = plain.readings["gradient_norm/global"]
assert norm.max() > 100 * jnp.median(norm)  # 2.4.1: a recurrent network's loss has a wall in a plain
assert np.all(np.diff(steepest[7.0]) > 0)  # 2.4.2: more factors, steeper
assert steepest[7.0][-1] > 20 * steepest[7.0][0]  # 2.4.2: more factors, steeper
assert steepest[3.0][-1] < 2 * steepest[3.0][0] < steepest[7.0][-1]  # 2.4.2: but only with large weights
assert gradtx.diagnose(plain).challenges == {"cliff"}  # beyond the chapter: found by diagnose
longest = {run: jnp.linalg.norm(jnp.diff(run.iterates, axis=0), axis=1).max() for run in (plain, clipped)}
lengths = jnp.linalg.norm(jnp.diff(plain.iterates, axis=0), axis=1)
leap = int(jnp.argmax(lengths))
assert lengths[leap] > jnp.sum(lengths[:leap])  # 2.4.3: one step is longer than the whole way until then
assert plain.loss[-1] > plain.loss[0]  # 2.4.3: and the earlier work is lost, for the end is higher than the start
cosines = [float(u @ g / jnp.linalg.norm(u) / jnp.linalg.norm(g)) for u in clipped_by]
assert longest[clipped] < 0.501  # 2.4.4a: by norm: bounded, direction kept
assert cosines[1] > 0.9999 > cosines[0]  # 2.4.4a: by norm: bounded, direction kept
assert last[usual][-1] < 0.005 < 0.04 < last[jnp.inf][-1]  # 2.4.4b: clipped as the remedy says, the path ends low
assert last[usual].max() == min(loss.max() for loss in last.values())  # 2.4.4b: and stays low, as at no other limit
assert np.allclose(step_by_step, by_eigenvalues.real, atol=1e-8)  # 2.5.1b: the same
assert np.abs(by_eigenvalues.imag).max() < 1e-8  # 2.5.1b: the same
assert np.allclose(by_hand, automatic, rtol=1e-3, atol=1e-5)  # 2.5.1a: the sum over the steps is the gradient
assert jnp.allclose(
    slopes[3:], -jnp.log(rhos[3:]), atol=1e-3
)  # 2.5.1b: in a linear network the slope is -log ρ exactly
assert jnp.allclose(slopes[:3], -jnp.log(rhos[:3]), atol=0.2)  # 2.5.2a: and nearly so in a recurrent net of rectifiers
assert norms[2, 0] > 20 * norms[2, -1]  # 2.5.1c, 2.5.2a: at ρ = 1.3 the gradient explodes on its way back
assert norms[0, 9] < 1e-4 * norms[0, -1]  # 2.5.1d, 2.5.2a: at ρ = 0.3 it vanishes
assert norms[0, 0] < 1e-8 * norms[0, -1]  # 2.5.1d, 2.5.2a: at ρ = 0.3 it vanishes
assert np.mean(np.abs(different) < 2) > 0.9  # 2.5.2b: different matrices avoid it
assert different.std() < 0.5 * shared.std()  # 2.5.2b: different matrices avoid it
assert np.mean(np.abs(shared) < 2) < 0.8  # 2.5.2a: one matrix, 50 times, does not
assert (exploding.diverged_at[0, -1] >= 0).all()  # 2.5.1c: unclipped, the exploding network diverges
assert np.median(exploding.final("train_loss")[0, 1]) < 0.08  # 2.5.3a: clipped at 0.1, it learns from most keys
assert vanishing.final("train_loss").min() > 0.08  # 2.5.1d: no limit repairs the network whose gradients vanish
assert np.median(finals, axis=-1).min() > 0.08  # 2.5.3c: and no higher rate
assert jnp.isclose(jax.grad(chain)(far)[0], jax.grad(chain)(near)[0], rtol=0.02)  # 2.5.3b: equal gradients
assert chain(far) > 0.4  # 2.5.3b: one of them at the minimum, one far away
assert chain(near) < 1e-6  # 2.5.3b: one of them at the minimum, one far away
assert np.mean(cosine["exploded, at its start"] > 0) > 0.95  # 2.5.3c: scaled down, an exploded gradient points downhill
assert np.mean(cosine["vanished, after training"] > 0) < 0.8  # 2.5.3c: scaled up, a vanished one is mostly noise
