# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---
# %% [markdown]
# # 9 · Which method? A fair comparison
#
# SGD, momentum, RMSProp, Adam: which one should you use? The chapter's answer is that no single method is best, and
# that it is a matter of experiment (chapter §5). So let us do the experiment, and do it fairly.
#
# You will see
# 1. how a comparison at **one learning rate** says whatever you like;
# 2. four methods on three problems, each with the **same tuning budget**: as many learning rates, seeds and steps;
# 3. which method wins where, **how sure** that is, and how much a wrong learning rate costs;
# 4. one number for each method over all problems, the **performance profile**, and what it does not say.
#
# *New in gradtx here*: `lab.compare` runs the whole experiment, compiled once for each method and problem.

# %%
import numpy as np

from gradtx import lab

methods = ["sgd", "nesterov", "rmsprop", "adam"]
problems = [lab.problems.diabetes(), lab.problems.breast_cancer(), lab.problems.digits(hidden=16)]
for problem in problems:
    print(f"{problem.name}: {problem.description}. Target: validation {problem.metric_name} {problem.target}")

# %% [markdown]
# Two of the three problems are convex (a linear and a logistic regression, both of real patients), the third is a small
# neural network that reads digits. "nesterov" is SGD with Nesterov momentum 0.9.
#
# ## 1 · The experiment
#
# Each method gets five learning rates, spaced by √10 around its own middle, three seeds for each and 300 steps with
# minibatches of 64: 180 trainings. The rate with the best final validation metric counts. Methods that need more
# hyper-parameters (momentum, decay) keep the usual ones: tuning these too would be more budget.

# %%
comparison = lab.compare(problems, methods, steps=300, seeds=3, learning_rates=5, evaluations=30)
print(f"{sum(r.sweep.metric[..., 0].size for r in comparison.results)} trainings done")

# %% [markdown]
# ## 2 · With one learning rate for all you can prove anything
#
# Before the fair result, look at how the accuracy on the digits depends on the learning rate (mean and range of three
# seeds).

# %%
on_digits = {result.method: result for result in comparison.of("digits")}
lab.plot_sensitivity({name: result.sweep for name, result in on_digits.items()}, by="metric")

# %% [markdown]
# Draw a vertical line anywhere: the order of the methods along it is the result of a comparison "at the same learning
# rate". At 0.01 RMSProp beats Nesterov momentum, at 0.1 it is the other way round. Both are true, and neither says
# anything about the methods: the same number means something else in each.


# %%
def accuracy(method, learning_rate):
    sweep = on_digits[method].sweep
    return sweep.final("metric")[np.isclose(sweep.axes["learning_rate"], learning_rate)].mean()


at = {rate: {name: accuracy(name, rate) for name in ("nesterov", "rmsprop")} for rate in (0.01, 0.1)}
for rate, found in at.items():
    print(f"learning rate {rate}:", ", ".join(f"{name} {value:.1%}" for name, value in found.items()))

# %% [markdown]
# ## 3 · With the same budget for all
#
# Now each method at the best of its five rates. Above: steps until the validation metric reaches the problem's target,
# a dot for each seed. Below: for each method, on what fraction of the problems it needs at most τ times the steps of
# the quickest (the *performance profile*), and the area under that curve as its score.

# %%
lab.plot_comparison(comparison)

# %% [markdown]
# On the linear regression SGD and Nesterov momentum are there almost at once, on the network Adam is quickest. **No
# single method is best.** Look at the dots too: where those of two methods overlap, as on breast_cancer, three seeds
# cannot tell them apart. And where does each end?

# %%
steps, ends = {}, {}
for result in comparison.results:
    steps[result.problem, result.method] = np.median(result.steps_to(comparison.target(result.problem)))
    ends[result.problem, result.method] = result.metric[:, -1].mean()
for problem in problems:
    row = ", ".join(f"{method} {ends[problem.name, method]:.3f}" for method in methods)
    print(f"{problem.name}, final {problem.metric_name}: {row}")

# %%
profile = lab.performance_profile(comparison)
print("score:", ", ".join(f"{method} {score:.2f}" for method, score in profile.scores.items()))

# %% [markdown]
# They all end at nearly the same place: on these problems tuning matters far more than the choice of the method. The
# scores say which one gets there soonest, and no more than that:
#
# - they are about these three problems, two of them convex and small; on three recurrent networks it may be another
#   table;
# - each rate was chosen for where it ends, not for how soon it gets to the target;
# - choice and score use the same validation set, which flatters every method alike.
#
# So: take a method whose learning rate you can afford to tune, tune it, and compare only what had the same budget.
# `python -m gradtx compare digits` does it for all ten methods and seven rates.
#
# ## What was claimed, checked

# %%
# With one learning rate for all, the winner depends on the rate.
assert at[0.01]["rmsprop"] > at[0.01]["nesterov"]
assert at[0.1]["nesterov"] > at[0.1]["rmsprop"]
# Same budget: as many learning rates, seeds and evaluations for every method and problem.
assert {result.sweep.metric.shape[:2] for result in comparison.results} == {(5, 3)}
# SGD is quickest by far on the linear regression, Adam on the network: no single method is best.
assert 3 * steps["diabetes", "sgd"] < steps["diabetes", "adam"]
assert steps["digits", "adam"] < steps["digits", "sgd"]
assert not any(np.all(ratios == 1) for ratios in profile.ratios.values())
# Tuned, all end at nearly the same place.
for problem in problems:
    final = [ends[problem.name, method] for method in methods]
    assert max(final) - min(final) < 0.04
# A wrong learning rate costs more than the wrong method.
worst = min(result.sweep.final("metric").mean(axis=1).min() for result in on_digits.values())
assert min(ends["digits", method] for method in methods) - worst > 0.2
