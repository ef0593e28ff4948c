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
# *Chapter §5 (the introduction).* SGD, momentum, RMSProp, Adam: which one should you use? The chapter's answer is that no
# single method is best, and that it is a matter of experiment. So let us do the experiment, and do it fairly. You will
# see how a comparison at one learning rate says whatever one likes, and what one finds if all methods have the same
# budget.
#
# **New in gradtx:** `lab.compare` runs the whole experiment, compiled once for each method and problem.

# %% slideshow={"slide_type": "skip"}
import numpy as np

from gradtx import lab

methods = ["sgd", "nesterov", "rmsprop", "adam"]
problems = [lab.problems.diabetes(), lab.problems.breast_cancer(), lab.problems.digits(hidden=16)]
for problem in problems:
    print(f"{problem.name}: {problem.description}. Target: validation {problem.metric_name} {problem.target}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Two of the three problems are convex (a linear and a logistic regression, both of real patients), the third is a small
# neural network that reads digits. "nesterov" is SGD with Nesterov momentum 0.9.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The experiment
#
# Each method gets five learning rates, spaced by √10 around its own middle, three seeds for each and 300 steps with
# minibatches of 64: 180 trainings. The rate with the best final validation metric counts. Methods that need more
# hyper-parameters (momentum, decay) keep the usual ones: tuning these too would be more budget.

# %% slideshow={"slide_type": "skip"}
comparison = lab.compare(problems, methods, steps=300, seeds=3, learning_rates=5, evaluations=30)
print(f"{sum(r.sweep.metric[..., 0].size for r in comparison.results)} trainings done")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## With one learning rate for all one can prove anything
#
# Before the fair result, look at how the accuracy on the digits depends on the learning rate (mean and range of three
# seeds).

# %% alt="Final accuracy on digits against the learning rate for four methods. Each has a hump, at rates that differ by a factor of a hundred." slideshow={"slide_type": "subslide"}
on_digits = {result.method: result for result in comparison.of("digits")}
lab.plot_sensitivity({name: result.sweep for name, result in on_digits.items()}, by="metric")

# %% [markdown] slideshow={"slide_type": "subslide"}
# Draw a vertical line anywhere: the order of the methods along it is the result of a comparison "at the same learning
# rate". At 0.01 RMSProp beats Nesterov momentum, at 0.1 it is the other way round. Both are true, and neither says
# anything about the methods: the same number means something else in each.


# %% slideshow={"slide_type": "skip"}
def accuracy(method, learning_rate):
    sweep = on_digits[method].sweep
    return sweep.final("metric")[np.isclose(sweep.axes["learning_rate"], learning_rate)].mean()


at = {rate: {name: accuracy(name, rate) for name in ("nesterov", "rmsprop")} for rate in (0.01, 0.1)}
for rate, found in at.items():
    print(f"learning rate {rate}:", ", ".join(f"{name} {value:.1%}" for name, value in found.items()))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## With the same budget for all
#
# Now each method at the best of its five rates. Above: steps until the validation metric reaches the problem's target,
# a dot for each seed. Below: for each method, on what fraction of the problems it needs at most τ times the steps of
# the quickest (the *performance profile*), and the area under that curve as its score.

# %% alt="Steps to the target for four methods on three problems, one dot per seed, and the performance profile below. No method is the quickest on all problems." tags=["cover"] slideshow={"slide_type": "subslide"}
lab.plot_comparison(comparison)

# %% [markdown] slideshow={"slide_type": "subslide"}
# On the linear regression SGD and Nesterov momentum are there almost at once; evaluations are ten steps apart, so they
# cannot be told apart there. On the network Adam is quickest by the median, but its dots overlap with those of the
# others, as they do on breast_cancer: three seeds cannot tell these methods apart. And
# where does each end?

# %% slideshow={"slide_type": "skip"}
steps, ends = {}, {}
for result in comparison.results:
    steps[result.problem, result.method] = np.median(result.steps_to(comparison.target(result.problem)))
    ends[result.problem, result.method] = result.metric[:, -1].mean()
for problem in problems:
    row = ", ".join(f"{method} {ends[problem.name, method]:.3f}" for method in methods)
    print(f"{problem.name}, final {problem.metric_name}: {row}")

# %% slideshow={"slide_type": "skip"}
profile = lab.performance_profile(comparison)
print("score:", ", ".join(f"{method} {score:.2f}" for method, score in profile.scores.items()))

# %% [markdown] slideshow={"slide_type": "subslide"}
# They all end at nearly the same place: on these problems tuning matters far more than the choice of the method. RMSProp
# ends last on the digits, by a little, at a constant rate: its steps do not shrink when the gradients do. The scores say
# which method gets there soonest, and no more than that. On other problems it may be another table; each rate was chosen
# for where it ends, not for how soon it gets to the target; and choice and score use the same validation set, which
# flatters all methods alike.

# %% [markdown] slideshow={"slide_type": "slide"}
# **To take away.** Take a method whose learning rate you can afford to tune, and tune it: a wrong rate costs more than
# the wrong method. Compare only what had the same budget, and show every seed. `python -m gradtx compare digits` does it
# for ten methods and seven rates.

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
assert at[0.01]["rmsprop"] > at[0.01]["nesterov"]  # beyond the chapter: with one rate for all the winner depends on it
assert at[0.1]["nesterov"] > at[0.1]["rmsprop"]  # beyond the chapter: and at another rate it is another one
assert {result.sweep.metric.shape[:2] for result in comparison.results} == {(5, 3)}  # beyond the chapter: equal budgets
assert 3 * steps["diabetes", "sgd"] < steps["diabetes", "adam"]  # beyond the chapter: SGD is quickest here
assert steps["digits", "adam"] < steps["digits", "sgd"]  # beyond the chapter: Adam by the median here, seeds overlap
assert not any(np.all(ratios == 1) for ratios in profile.ratios.values())  # beyond the chapter: none is quickest on all
for problem in problems:
    final = [ends[problem.name, method] for method in methods]
    assert max(final) - min(final) < 0.04  # beyond the chapter: tuned, all end at nearly the same place
worst = min(result.sweep.final("metric").mean(axis=1).min() for result in on_digits.values())
assert (
    min(ends["digits", method] for method in methods) - worst > 0.2
)  # 5.0.3c: a wrong rate costs more than the method
