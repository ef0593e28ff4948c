"""torch gives the same numbers if the mathematics is the same."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracles import START, gradient, train

torch = pytest.importorskip("torch", reason="torch (540 MB) is not installed: pip install 'gradtx[peers]'")


def torch_path(make):
    θ = torch.nn.Parameter(torch.tensor(START))
    optimizer = make([θ])
    path = []
    for k in range(25):
        θ.grad = torch.tensor(gradient(θ.detach().numpy(), k))
        optimizer.step()
        path.append(θ.detach().numpy().copy())
    return np.stack(path)


PAIRS = {
    "sgd": (gradtx.sgd(0.05), lambda p: torch.optim.SGD(p, 0.05)),
    "momentum": (gradtx.sgd(0.05, 0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
    "nesterov": (gradtx.sgd(0.05, 0.9, True), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True)),
    "adagrad": (gradtx.adagrad(0.1), lambda p: torch.optim.Adagrad(p, 0.1, eps=1e-7)),
    "rmsprop": (gradtx.rmsprop(0.01, eps=0.0), lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.9, eps=0.0)),
    "adadelta": (gradtx.adadelta(), lambda p: torch.optim.Adadelta(p, 1.0, rho=0.95)),
    "adam": (gradtx.adam(0.1), lambda p: torch.optim.Adam(p, 0.1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_torch_takes_the_same_steps(name, x64):
    tx, make = PAIRS[name]
    np.testing.assert_allclose(train(tx)[0], torch_path(make), rtol=1e-9, atol=1e-12)


def test_torch_clips_to_the_same_norm():
    g = np.array([3.0, -4.0, 12.0], np.float32)
    θ = torch.nn.Parameter(torch.zeros(3))
    θ.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_([θ], 1.0)
    updates, state = gradtx.clip_by_global_norm(1.0).update(
        jnp.asarray(g), gradtx.clip_by_global_norm(1.0).init(jnp.zeros(3))
    )
    np.testing.assert_allclose(updates, θ.grad.numpy(), rtol=1e-5)
    assert float(state.global_norm) == pytest.approx(float(norm), rel=1e-6)
