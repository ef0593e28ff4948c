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
# *Chapter §0 and §5 (their introductions).* SGD, momentum, RMSProp, AdaDelta, Adam: which one should you use? The
# chapter's answer is that no single method is best, and that the choice depends on how well one can tune a method. So we
# do the experiment, and we do it fairly. You will see that a comparison at one learning rate can favour any method, and
# which method wins on which problem if all have the same budget.
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
# The first problem is convex, a linear regression on data of real patients. The second is a small network that reads
# digits, and the third a recurrent network that must remember two symbols.
#
# Two methods are new. AdaDelta (Zeiler 2012) is like RMSProp (notebook 12), but it also learns the size of its steps: it
# multiplies them by the root of a running mean of its own squared updates. Adam (Kingma & Ba 2015) is RMSProp with a
# running mean of the gradients in place of the gradient.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The experiment
#
# Each method gets seven learning rates, with a factor of √10 between neighbours, around a rate that is usual for the
# method. Each rate gets three seeds and 240 steps with minibatches of 64. That makes 315 trainings. Of each method we
# keep the rate with the best final validation metric. Methods that need more hyper-parameters (momentum, decay) keep the
# usual ones, because tuning these too would be a larger budget.

# %% slideshow={"slide_type": "skip"}
comparison = lab.compare(problems, methods, steps=240, seeds=3, learning_rates=7, evaluations=40)
print(f"{sum(r.sweep.metric[..., 0].size for r in comparison.results)} trainings done")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## At one learning rate for all, any method can win
#
# Before the fair result, look at how the accuracy on the digits depends on the learning rate. The lines are means over the
# seeds, the bands their ranges. (At low rates the curves of RMSProp and Adam lie on each other.)

# %% alt="Final accuracy on digits against the learning rate for five methods. Each has a hump, at rates that differ by a factor of up to three hundred." slideshow={"slide_type": "subslide"}
on_digits = {result.method: result for result in comparison.of("digits")}
lab.plot_sensitivity({name: result.sweep for name, result in on_digits.items()}, by="metric")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Draw a vertical line anywhere. The order of the methods along it is the result of a comparison "at the same learning
# rate", and it depends on the place of the line. The same learning rate makes steps of different lengths in different
# methods, so such a comparison says nothing about the methods.


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
# Now we compare each method at the best of its seven rates. The upper panels show how many steps it takes until the
# validation metric reaches the problem's target, with a dot for each seed. The lower left panel is the *performance
# profile*: the fraction of the problems on which a method needs at most τ times the steps of the quickest one. The area
# under that curve is the method's score (lower right).

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
# On the linear regression SGD reaches the target after a few steps, and Adam needs about ten times as many, for every
# seed. On the recurrent network Adam needs fewer steps than SGD on average, though not from every seed. So **no single
# method is best**. Look at the dots too: on the digits those of different methods overlap, so three seeds cannot tell the
# methods apart. All five end at nearly the same accuracy.
#
# RMSProp needs a remark. Its steps do not shrink when the gradients do, so at a constant rate ε it hovers around the
# minimum. We let the rate fall to 1 % of its first value, and compare:


# %% slideshow={"slide_type": "skip"}
def rmsprop(learning_rate, end):
    """The rate falls to `end` times its first value. It stays constant if `end` is 1."""
    return gradtx.rmsprop(gradtx.linear_decay(learning_rate, end * learning_rate, steps=240))


grid = {"learning_rate": 0.001 * 10.0 ** (np.arange(6) / 2), "end": [1.0, 0.01]}
rms_keys = jax.random.split(jax.random.key(0), 6)
rms = lab.sweep(problems[1], rmsprop, grid, steps=240, keys=rms_keys, eval_every=240)
rms_loss = dict(zip(("constant", "falling"), rms.final("train_loss").mean(-1).T, strict=True))  # [rate] each
rms_accuracy = dict(zip(("constant", "falling"), rms.final("metric").mean(-1).T.max(-1), strict=True))
for name in rms_loss:
    print(f"RMSProp, {name} rate: training loss {rms_loss[name].min():.4f}, accuracy {rms_accuracy[name]:.1%}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# On the recurrent network, which loss does each method reach within the 240 steps?

# %% slideshow={"slide_type": "skip"}
recurrent_loss = {r.method: r.sweep.final("train_loss").mean(1).min() for r in comparison.of(recurrent.name)}
profile = lab.performance_profile(comparison)
print("training loss on the recurrent network:", ", ".join(f"{m} {v:.1e}" for m, v in recurrent_loss.items()))
print("score:", ", ".join(f"{method} {score:.2f}" for method, score in profile.scores.items()))

# %% [markdown] slideshow={"slide_type": "subslide"}
# The scores say which method reaches the target soonest on these three problems, and no more than that. On other problems
# the scores may be different. Each rate was chosen for its final metric, not for how soon the run reaches the target.
# Finally, choice and score use the same validation set, so all the results are a little too good.

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** Take a method whose learning rate you can afford to tune, and tune it: a wrong rate costs more than
# the wrong method. Compare only methods that had the same budget, and show every seed. If a method hovers, let its rate
# fall.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Exercises
#
# 1. In the figure of the rates, how many times larger is SGD's best rate than Adam's?
# 2. Run `python -m gradtx compare digits` on the command line. Does the order of the methods agree with this page?
# 3. Why may one not choose the rate by the final accuracy and then report that accuracy as the result on new data?

# %% [markdown] slideshow={"slide_type": "notes"}
# <details><summary>Answers</summary>
#
# 1. About thirty times: 1 against 0.03. The humps are flat on top and the rates are a factor of 3 apart, so this is rough.
# 2. That command compares all ten methods of the library, with seven rates each. The best ones are close together, so
#    their order may differ from that on this page.
# 3. The largest of several noisy numbers is too large on average. A third set of examples that is used only once, for the
#    report, gives an honest number.
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
assert 0 < rms_loss["falling"].argmin() < 5  # 5.3.1.3: at a rate that is not at the edge of the grid
