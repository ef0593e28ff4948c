"""Asynchronous workers act like momentum, so the best explicit momentum is smaller."""

import numpy as np
import pytest

from gradtx.lab.staleness import implied_momentum, staleness, worker_delays


def test_the_best_momentum_falls_with_the_number_of_workers():
    found = staleness((1, 2, 4), np.linspace(0, 0.8, 5), np.geomspace(0.1, 3.0, 8), steps=80, seeds=16)
    assert found.loss.shape == (3, 5, 8)
    alone, two, four = found.best_momentum
    assert alone >= 0.6
    assert two <= alone - 0.3
    assert four <= two
    assert "implied" in str(found)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_mean_delay_is_the_number_of_workers_minus_one(workers):
    probabilities = worker_delays(workers, 200)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities @ np.arange(201) == pytest.approx(workers - 1, abs=1e-6)
    assert implied_momentum(workers) == pytest.approx((workers - 1) / workers)


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(TypeError, match=r"worker_delays: workers must be a whole number, got 0\.5"):
        worker_delays(0.5, 3)
    with pytest.raises(ValueError, match="implied_momentum: workers must be at least 1, got 0"):
        implied_momentum(0)
    with pytest.raises(ValueError, match="worker_delays: longest must be at least 0, got -1"):
        worker_delays(2, -1)
