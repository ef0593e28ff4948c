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
# # 13 · Which method? Can a fair comparison tell?
#
# *Chapter §5 (the introduction), and the very beginning.* SGD, momentum, RMSProp, AdaDelta, Adam: which one should you
# use? The chapter's answer is that no single method is best, and that the choice depends on what one can tune. So let
# us do the experiment, and do it fairly. You will see how a comparison at one learning rate says whatever one likes, and
# which method wins where, if all have the same budget.
#
# **New in gradtx:** `lab.compare` runs the whole experiment, compiled once for each method and problem.

# %% slideshow={"slide_type": "skip"}
import jax
import numpy as np

import gradtx
from gradtx import lab

methods = ["sgd", "momentum", "rmsprop", "adadelta", "adam"]
recurrent = lab.problems.copying(delay=4, remember=2, symbols=4, hidden=16, examples=512)
problems = [lab.problems.diabetes(), lab.problems.digits(hidden=16), recurrent]
for problem in problems:
    print(f"{problem.name}: {problem.description}. Target: validation {problem.metric_name} {problem.target}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# The first problem is convex, a linear regression of real patients. The second is a small network that reads digits, the
# third a recurrent network that must remember two symbols. AdaDelta (Zeiler 2012) is
# like RMSProp, but it also learns the size of its steps: it multiplies by the root of a running mean of its own squared
# updates.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The experiment
#
# Each method gets seven learning rates, spaced by √10 around its own middle, three seeds for each and 240 steps with
# minibatches of 64: 315 trainings. The rate with the best final validation metric counts. Methods that need more
# hyper-parameters (momentum, decay) keep the usual ones: tuning these too would be more budget.

# %% slideshow={"slide_type": "skip"}
comparison = lab.compare(problems, methods, steps=240, seeds=3, learning_rates=7, evaluations=40)
print(f"{sum(r.sweep.metric[..., 0].size for r in comparison.results)} trainings done")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## With one learning rate for all one can prove anything
#
# Before the fair result, look at how the accuracy on the digits depends on the learning rate (mean and range of the
# seeds).

# %% alt="Final accuracy on digits against the learning rate for five methods. Each has a hump, at rates that differ by a factor of a hundred." slideshow={"slide_type": "subslide"}
on_digits = {result.method: result for result in comparison.of("digits")}
lab.plot_sensitivity({name: result.sweep for name, result in on_digits.items()}, by="metric")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Draw a vertical line anywhere: the order of the methods along it is the result of a comparison "at the same learning
# rate". The same number means something else in each method, so such a comparison says nothing about the methods.


# %% slideshow={"slide_type": "skip"}
def accuracies(learning_rate):
    """{method: mean accuracy}, of the methods that tried this learning rate."""
    found = {}
    for name, result in on_digits.items():
        at = np.isclose(result.sweep.axes["learning_rate"], learning_rate)
        if at.any():
            found[name] = result.sweep.final("metric")[at].mean()
    return found


untuned = {rate: accuracies(rate) for rate in (10**-1.5, 0.1, 10**-0.5)}
for rate, found in untuned.items():
    print(f"learning rate {rate:.3g}:", ", ".join(f"{name} {value:.1%}" for name, value in found.items()))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## With the same budget for all
#
# Now each method at the best of its seven rates. Above: steps until the validation metric reaches the problem's target,
# a dot for each seed. Below: for each method, on what fraction of the problems it needs at most τ times the steps of
# the quickest (the *performance profile*), and the area under that curve as its score.

# %% tags=["cover"] alt="Steps to the target for five methods on three problems, one dot per seed, and the performance profile below. No method is the quickest on all problems." slideshow={"slide_type": "subslide"}
lab.plot_comparison(comparison)

# %% slideshow={"slide_type": "skip"}
steps, ends = {}, {}
for result in comparison.results:
    steps[result.problem, result.method] = result.steps_to(comparison.target(result.problem))  # a number for each seed
    ends[result.problem, result.method] = result.metric[:, -1]
for problem in problems:
    print(f"{problem.name}, steps to the target: " + ", ".join(f"{m} {steps[problem.name, m]}" for m in methods))
    print(f"{' ' * len(problem.name)}  final {problem.metric_name}: " + ", ".join(f"{m} {ends[problem.name, m].mean():.3f}" for m in methods))  # fmt: skip

# %% [markdown] slideshow={"slide_type": "subslide"}
# On the linear regression SGD is there almost at once, and Adam needs about ten times as many steps, for every seed. On the
# recurrent network it is the other way round. So **no single method is best**. Look at the dots too: on the digits those
# of different methods overlap, so three seeds cannot tell the methods apart. And all five end at nearly the same place.
#
# One thing about RMSProp: its steps do not shrink when the gradients do, so at a constant rate ε it hovers. With a rate
# that falls to 1 % it does not:


# %% slideshow={"slide_type": "skip"}
def constant(learning_rate):
    return gradtx.rmsprop(learning_rate)


def falling(learning_rate):
    return gradtx.rmsprop(gradtx.linear_decay(learning_rate, learning_rate / 100, steps=240))


grid = {"learning_rate": 0.001 * 10.0 ** (np.arange(5) / 2)}
settings = {"steps": 240, "keys": jax.random.split(jax.random.key(0), 4), "eval_every": 240}
rms = {make.__name__: lab.sweep(problems[1], make, grid, **settings) for make in (constant, falling)}
rms_loss = {name: sweep.final("train_loss").mean(1) for name, sweep in rms.items()}
rms_accuracy = {name: sweep.final("metric").mean(1).max() for name, sweep in rms.items()}
for name in rms:
    print(f"RMSProp, {name} rate: training loss {rms_loss[name].min():.4f}, accuracy {rms_accuracy[name]:.1%}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# And on the recurrent network, which loss does each method reach within the 240 steps?

# %% slideshow={"slide_type": "skip"}
recurrent_loss = {r.method: r.sweep.final("train_loss").mean(1).min() for r in comparison.of(recurrent.name)}
profile = lab.performance_profile(comparison)
print("training loss on the recurrent network:", ", ".join(f"{m} {v:.1e}" for m, v in recurrent_loss.items()))
print("score:", ", ".join(f"{method} {score:.2f}" for method, score in profile.scores.items()))

# %% [markdown] slideshow={"slide_type": "subslide"}
# The scores say which method gets there soonest on these three problems, and no more than that. On other problems it may
# be another table; each rate was chosen for where it ends, not for how soon it gets to the target; and choice and score
# use the same validation set, which flatters all methods alike.

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** Take a method whose learning rate you can afford to tune, and tune it: a wrong rate costs more than
# the wrong method. Compare only what had the same budget, and show every seed. If a method hovers, let its rate fall.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. In the figure of the rates, how many times larger is SGD's best rate than Adam's?
# 2. Run `python -m gradtx compare digits` on the command line. Does the order of the methods agree with this page?
# 3. Why may one not choose the rate by the final accuracy and then report that accuracy as the result on new data?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. About a hundred times.
# 2. It compares all ten methods with seven rates. The leaders are close together, so the order may differ.
# 3. The largest of several noisy numbers is too large on average. A third set, used once, gives an honest number.
#
# </details>

# %% [markdown] slideshow={"slide_type": "skip"}
# ## What was claimed, checked

# %% slideshow={"slide_type": "skip"}
tuned = {name: ends["digits", name].mean() for name in methods}
assert max(np.ptp(list(found.values())) for found in untuned.values()) > 0.1  # 0.2a: at one rate they end far apart
assert np.ptp(list(tuned.values())) < 0.03  # beyond the chapter: tuned, on the digits they end close together
shapes = {result.sweep.metric.shape[:2] for result in comparison.results}
assert shapes == {(7, 3)}  # beyond the chapter: the same budget for every method and problem
assert steps["diabetes", "sgd"].max() < steps["diabetes", "adam"].min()  # 5.0.3a: here SGD is quicker, for every seed
assert steps[recurrent.name, "adam"].mean() < steps[recurrent.name, "sgd"].mean()  # 5.0.3a: and here Adam, on average
assert not any(np.all(ratios == 1) for ratios in profile.ratios.values())  # 5.0.3a: no method is the quickest on all
assert min(ends["digits", name].min() for name in methods) > 0.93  # 5.0.3b: each of the five methods trains a network
assert min(ends[recurrent.name, name].min() for name in methods) > 0.95  # 5.0.3b: and the recurrent one
worst = {name: result.sweep.final("metric").mean(1).min() for name, result in on_digits.items()}
assert min(tuned[name] - worst[name] for name in methods) > np.ptp(
    list(tuned.values())
)  # 5.0.3c: the rate matters more
assert recurrent_loss["rmsprop"] < 0.5 * recurrent_loss["sgd"]  # 5.3.1.3: effective on the recurrent network
assert ends["digits", "rmsprop"].mean() > max(tuned.values()) - 0.02  # 5.3.1.3: within two points of the best on digits
assert rms_loss["falling"].min() < 0.8 * rms_loss["constant"].min()  # 5.3.1.3: and better if its rate falls
