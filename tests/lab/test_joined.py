"""Several sweeps are ranked together."""

import dataclasses

import numpy as np
import pytest

from gradtx import lab


def swept(loss, grid, **changes):
    """Returns a sweep of one hyper-parameter and one key with these final losses. An infinite loss means divergence."""
    final = np.array(loss, float)[:, None, None]
    fields = {
        "axes": grid, "is_random": False, "loss": final, "readings": {}, "eval_steps": np.array([1]),
        "train_loss": final, "validation_loss": final, "metric": -final,
        "diverged_at": np.where(np.isfinite(final[..., 0]), -1, 0), "finished": np.ones(final.shape[:-1], bool),
        "problem": "p", "metric_name": "accuracy", "higher_is_better": True,
    }  # fmt: skip
    return lab.Sweep(**(fields | changes))


PLAIN = swept([3.0, 1.0, np.inf], {"learning_rate": np.array([0.1, 1.0, 10.0])})
OTHER = swept([2.0, 0.5], {"momentum": np.array([0.5, 0.9])})


def test_the_best_of_all_sweeps_is_named_with_its_sweep():
    joined = lab.join({"plain": PLAIN, "nesterov": OTHER})
    assert joined.best() == {"sweep": "nesterov", "momentum": 0.9}
    assert joined.best("metric") == {"sweep": "nesterov", "momentum": 0.9}
    assert joined.order() == [("nesterov", 1), ("plain", 1), ("nesterov", 0), ("plain", 0), ("plain", 2)]
    assert lab.join([PLAIN, OTHER]).best()["sweep"] == "1"
    assert lab.join([PLAIN]).best() == {"sweep": "0", **PLAIN.best()}


def test_one_table_holds_the_points_of_all_sweeps():
    table = lab.join({"plain": PLAIN, "nesterov": OTHER}).table(rows=4)
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["sweep"] == ["nesterov", "plain", "nesterov", "plain"]
    assert cells["learning_rate"] == ["-", "1", "-", "0.1"]
    assert cells["momentum"] == ["0.9", "-", "0.5", "-"]
    assert table.title == "p: best 4 of 5 points by final loss"


def test_sweeps_that_cannot_be_ranked_together_are_refused():
    longer = dataclasses.replace(OTHER, loss=np.ones((2, 1, 7)))
    for others, message in (
        ({"b": swept([1.0], OTHER.axes, problem="q")}, "join: sweeps must have the same problem, got a: p, b: q"),
        ({"b": longer}, "join: sweeps must have the same number of steps, got a: 1, b: 7"),
    ):
        with pytest.raises(ValueError, match=message):
            lab.join({"a": PLAIN} | others)
    with pytest.raises(ValueError, match="at least one Sweep, got none"):
        lab.join([])
    with pytest.raises(TypeError, match=r"join: each of sweeps must be a Sweep, which lab\.sweep returns, got 3"):
        lab.join([PLAIN, 3])
    gone = swept([np.inf], {"momentum": np.array([0.5])})
    with pytest.raises(ValueError, match=r"JoinedSweeps.best: no member has a finite loss .* \(2 of 2 diverged\)"):
        lab.join([gone, gone]).best()
