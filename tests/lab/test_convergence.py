"""The measured order of convergence is right for known powers."""

import jax
import numpy as np
import pytest

import gradtx
from gradtx import lab, landscapes

K = np.arange(2001)


@pytest.mark.parametrize("order", [2.0, 0.5, 0.0, -1.0])
def test_the_order_of_a_power_of_k_is_exact_for_every_sampling(order):
    for steps in (K[1:], K[::50][1:], np.unique(np.geomspace(1, 2000, 40).astype(int))):
        assert lab.convergence_order(steps, 7.0 * steps**-order) == pytest.approx(order, abs=1e-9)


def test_the_order_ignores_an_early_phase():
    excess = np.where(K < 150, 1.0, 150.0 / np.maximum(K, 1))
    assert lab.convergence_order(K, excess) == pytest.approx(1.0, abs=1e-9)
    assert lab.convergence_order(K, excess, last=1000.0) < 0.8


def test_the_order_of_several_runs_is_that_of_their_mean_excess():
    low, high = 1.0 / K[1:], 3.0 / K[1:] - 1.0 / K[1:] ** 0.5
    assert lab.convergence_order(K[1:], np.stack([low, 2.0 / K[1:] ** 0.5 - low])) == pytest.approx(0.5, abs=1e-9)
    assert lab.convergence_order(K[1:], np.stack([low, high + 1.0 / K[1:] ** 0.5])) == pytest.approx(1.0, abs=1e-9)


def test_excesses_that_are_not_positive_are_left_out_and_two_positive_ones_are_needed():
    excess = np.where(K[1:] % 7 == 0, -1e-9, 1.0 / K[1:])
    assert lab.convergence_order(K[1:], excess) == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(ValueError, match="two steps or more with an excess above 0, got 1"):
        lab.convergence_order(K, np.where(K == 2000, 1.0, 0.0))


def test_gradient_descent_converges_as_one_over_k_and_nesterov_as_one_over_k_squared():
    f = landscapes.quadratic(1e6, dim=30)  # curvatures on all scales, so not strongly convex for these steps
    methods = {"plain": gradtx.sgd(1e-6), "Nesterov": gradtx.sgd(1e-6, lambda k: k / (k + 3), nesterov=True)}
    runs = {name: lab.run(f, tx, steps=400, key=jax.random.key(0), eval_every=20) for name, tx in methods.items()}
    order = {name: lab.convergence_order(run.eval_steps, run.train_loss) for name, run in runs.items()}
    assert order["plain"] == pytest.approx(1.0, abs=0.05)
    assert order["Nesterov"] == pytest.approx(2.0, abs=0.15)
    figure = lab.plot_convergence(runs)
    title = figure.get_suptitle().replace("\n", " ")
    assert title.index(f"Nesterov falls as k^-{order['Nesterov']:.2f}") < title.index("plain falls as k^-1.0")
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": K[:-1]}, r"must go together, got \(\d+,\) and"),
        ({"steps": [], "excess": []}, r"must go together, got \(0,\) and \(0,\)"),
        ({"excess": 1.0}, "must go together"),
        ({"last": 1.0}, r"last must be in \(1, inf\), got 1.0"),
        ({"last": float("nan")}, r"last must be in \(1, inf\), got nan"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        lab.convergence_order(**({"steps": K, "excess": 1 / (K + 1.0)} | arguments))
