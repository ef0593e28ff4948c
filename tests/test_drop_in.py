"""gradtx can replace Optax: it passes tests like Optax's, and it works with the libraries that use Optax."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .comparing import arrays_of
from .zoo import ROWS, bowl

RECIPES = {
    "sgd": lambda: gradtx.sgd(1e-2),
    "sgd momentum": lambda: gradtx.sgd(1e-3, momentum=0.9),
    "sgd nesterov": lambda: gradtx.sgd(1e-3, momentum=0.9, nesterov=True),
    "delta_bar_delta": lambda: gradtx.delta_bar_delta(1e-3, increase=1e-4, decrease=0.5),
    "adagrad": lambda: gradtx.adagrad(0.5),
    "rmsprop": lambda: gradtx.rmsprop(gradtx.linear_decay(5e-2, 1e-4, 1500)),
    "rmsprop momentum": lambda: gradtx.rmsprop(gradtx.linear_decay(5e-3, 1e-5, 1500), momentum=0.9),
    "adadelta": lambda: gradtx.adadelta(gradtx.linear_decay(10.0, 0.01, 1500)),
    "adam": lambda: gradtx.adam(1e-1),
}


def parabola(dtype):
    goal = jnp.array([-1.0, 1.0], dtype)
    return jnp.array([1.0, -1.0], dtype), goal, lambda x: jnp.sum(jnp.abs(x - goal) ** 2)


def rosenbrock(dtype):
    return jnp.zeros(2, dtype), jnp.ones(2, dtype), lambda x: (1 - x[0]) ** 2 + 5 * (x[1] - x[0] ** 2) ** 2


def matrix_parabola(dtype):
    goal = jnp.array([[1.0, -2.0], [0.5, 3.0]], dtype)
    return jnp.zeros((2, 2), dtype), goal, lambda x: jnp.sum(jnp.abs(x - goal) ** 2)


PROBLEMS = {"parabola": parabola, "rosenbrock": rosenbrock, "matrix parabola": matrix_parabola}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_converges(recipe, problem, dtype):
    if dtype == jnp.complex64 and (recipe == "delta_bar_delta" or problem == "rosenbrock"):
        pytest.skip("needs the sign of a gradient, or a real-valued cost")
    start, goal, cost = PROBLEMS[problem](dtype)
    tx = RECIPES[recipe]()

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jnp.conj(jax.grad(cost)(params)), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=4000)
    np.testing.assert_allclose(params, goal, atol=3e-2)


def test_a_chain_trains_a_flax_nnx_module():
    nnx = pytest.importorskip("flax.nnx", reason="Flax comes with the test extra")
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    tx = optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.rmsprop(1e-2, momentum=0.9, nesterov=True))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(0), (64, 3))
    y = x @ jnp.array([[1.0], [-2.0], [0.5]])

    def cost(model):
        return jnp.mean((model(x) - y) ** 2)

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(cost)(model)
        optimizer.update(model, grads)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(300)]
    assert losses[-1] < 1e-2 * losses[0]


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.sampled(10)
def test_a_flax_nnx_optimizer_gives_the_same_parameters_and_readings(row):
    """The optimizer keeps parameters and state in variables. Parameters and readings are the same as without it."""
    nnx = pytest.importorskip("flax.nnx", reason="Flax comes with the test extra")
    model, tx = nnx.Linear(2, 1, rngs=nnx.Rngs(0)), row.make()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = arrays_of(nnx.state(model, nnx.Param))
    state = tx.init(params)
    for _ in range(2):
        grads = jax.grad(bowl)(params)
        updates, state = tx.update(grads, state, params, **row.extra())
        params = optax.apply_updates(params, updates)
        optimizer.update(model, nnx.grad(lambda model: bowl(nnx.state(model, nnx.Param)))(model), **row.extra())
    found = arrays_of(nnx.state(model, nnx.Param))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), dict(found), dict(params))
    readings, expected = gradtx.readings(optimizer.opt_state), gradtx.readings(state)
    assert list(readings) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(readings[name], value, rtol=1e-6, err_msg=name)


def test_an_instrument_in_a_flax_nnx_optimizer_calls_the_loss_of_the_module():
    nnx = pytest.importorskip("flax.nnx", reason="Flax comes with the test extra")
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    graph = nnx.split(model)[0]
    x = jnp.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]])

    def losses(params):
        return jnp.sum(nnx.merge(graph, params)(x) ** 2, axis=1)

    optimizer = nnx.Optimizer(model, optax.chain(gradtx.gradient_tests(), gradtx.sgd(0.1)), wrt=nnx.Param)
    grads = nnx.grad(lambda model: jnp.mean(jnp.sum(model(x) ** 2, axis=1)))(model)
    optimizer.update(model, grads, losses_fn=losses)
    assert all(bool(jnp.isfinite(value)) for value in gradtx.readings(optimizer.opt_state).values())


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.sampled(10)
def test_states_survive_flax_msgpack(row):
    serialization = pytest.importorskip("flax.serialization", reason="Flax comes with the test extra")
    params, tx = {"w": jnp.ones((2, 3)), "b": jnp.full(3, 0.5)}, row.make()
    _, state = tx.update(params, tx.init(params), params, **row.extra())
    restored = serialization.from_bytes(tx.init(params), serialization.to_bytes(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for x, y in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


@pytest.mark.parametrize("pass_model_as_params", [False, True])
def test_an_equinox_module_with_leaves_that_are_not_arrays_can_be_trained(pass_model_as_params):
    eqx = pytest.importorskip("equinox", reason="Equinox comes with the test extra")
    model = eqx.nn.MLP(2, "scalar", 8, 1, activation=jax.nn.tanh, key=jax.random.key(0))
    tx = optax.chain(gradtx.clip_by_norm(1.0), gradtx.sgd(0.1, momentum=0.9, nesterov=True))
    state = tx.init(eqx.filter(model, eqx.is_array))
    x = jax.random.normal(jax.random.key(1), (64, 2))
    y = x[:, 0] * 0.5 - x[:, 1]

    @eqx.filter_jit
    def step(model, state):
        loss, grads = eqx.filter_value_and_grad(lambda m: jnp.mean((jax.vmap(m)(x) - y) ** 2))(model)
        params = model if pass_model_as_params else eqx.filter(model, eqx.is_array)
        updates, state = tx.update(grads, state, params)
        return eqx.apply_updates(model, updates), state, loss

    losses = []
    for _ in range(200):
        model, state, loss = step(model, state)
        losses.append(float(loss))
    assert losses[-1] < 0.05 * losses[0]


def test_bfloat16_parameters_can_be_trained_with_injected_hyperparameters():
    """`inject_hyperparams` casts 0.999 to bfloat16, which gives 1, so that `optax.adam` is NaN from the first step."""
    params = jnp.ones(4, jnp.bfloat16)
    tx = optax.inject_hyperparams(gradtx.adam)(learning_rate=0.1)
    state = tx.init(params)
    for _ in range(30):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert float(jnp.max(jnp.abs(params))) < 0.3


@pytest.mark.usefixtures("x64")  # rounding in float32 reaches 3e-6 after 50 steps
@pytest.mark.parametrize("is_scheduled", [False, True])
def test_a_chain_with_decoupled_weight_decay_equals_optax_adamw(is_scheduled):
    """The decay comes after Adam, which does not scale it, and before the learning rate, which does."""
    rate = optax.linear_schedule(1e-2, 1e-3, 20) if is_scheduled else 1e-2
    mine = optax.chain(gradtx.scale_by_adam(), optax.add_decayed_weights(0.1), gradtx.scale_by_learning_rate(rate))
    start = {"w": jax.random.normal(jax.random.key(0), (4, 3)), "b": jnp.ones(3)}
    target = jax.random.normal(jax.random.key(1), (4, 3))

    def trained(tx):
        def step(carry, _):
            params, state = carry
            grads = jax.grad(lambda p: jnp.sum((p["w"] - target) ** 2) + jnp.sum(p["b"] ** 4))(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=50)[0][0])(start)

    found, expected = trained(mine), trained(optax.adamw(rate, weight_decay=0.1))
    for name in start:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6)
    without = trained(optax.adamw(rate, weight_decay=0.0))
    assert np.abs(found["w"] - without["w"]).max() > 1e-3


OTHER_NAMES = {  # what Optax has under another name
    "accumulate": "MultiSteps",
    "clip_by_value": "clip",
    "heavy_ball": "trace",
    "linear_decay": "linear_schedule",
    "nesterov": "trace",
    "packed": "flatten",
    "scale_by_adagrad": "scale_by_rss",
    "skip_nonfinite": "apply_if_finite",
}
SAME_NAMES = [n for n, f in vars(gradtx).items() if inspect.isfunction(f) and callable(getattr(optax, n, None))]
TWINS = {**{name: name for name in SAME_NAMES}, **OTHER_NAMES}
DIFFER_IN_PLACE = {  # arguments of one name at another place, where a positional call means something else
    ("adagrad", "eps"),
    ("rmsprop", "momentum"),
    ("rmsprop", "nesterov"),
    ("scale_by_adagrad", "eps"),
}


POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def arguments(function, kinds=POSITIONAL):
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def test_optax_has_twins_by_name():
    assert {"adam", "adagrad", "rmsprop", "adadelta", "sgd", "chain", "clip_by_global_norm"} <= set(SAME_NAMES)


@pytest.mark.parametrize("name", TWINS)
def test_an_argument_that_only_optax_has_is_named_in_the_docstring(name):
    mine, theirs = getattr(gradtx, name), getattr(optax, TWINS[name])
    keyword = (*POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
    lacking = set(arguments(theirs, keyword)) - set(arguments(mine, keyword))
    differs = (inspect.getdoc(mine) or "").partition("**Differs from**")[2].partition("\n\n")[0]
    missing = {argument for argument in lacking if f"`{argument}`" not in differs}
    assert missing == set(), f"name these arguments of optax.{TWINS[name]} in its paragraph '**Differs from**'"


@pytest.mark.parametrize("name", TWINS)
def test_a_positional_call_means_the_same_or_the_docstring_says_to_pass_by_name(name):
    mine, theirs = arguments(getattr(gradtx, name)), arguments(getattr(optax, TWINS[name]))
    moved = {(name, a) for a in theirs if a in mine and mine.index(a) != theirs.index(a)}
    assert moved <= DIFFER_IN_PLACE, "Optax has these at another place: move them, or add them to DIFFER_IN_PLACE"
    if moved:
        assert "by name" in (inspect.getdoc(getattr(gradtx, name)) or "")


def test_the_weight_decay_of_optax_adadelta_is_a_chain():
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array([3.0])}
    mask = {"w": True, "b": False}
    theirs = optax.adadelta(1.0, rho=0.95, weight_decay=0.1, weight_decay_mask=mask)
    mine = optax.chain(optax.add_decayed_weights(0.1, mask), gradtx.adadelta())
    expected, _ = theirs.update(params, theirs.init(params), params)
    found, _ = mine.update(params, mine.init(params), params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), found, expected)


OWN_LOOP = Path(__file__).parents[1] / "notebooks" / "15_your_own_loop.py"
SCRIPTS = [cell.partition("\n")[2] for cell in OWN_LOOP.read_text(encoding="utf-8").split("# %%") if '"script"' in cell]


def test_four_libraries_have_a_script():
    assert ["equinox" in s for s in SCRIPTS] == [False, True, False, False]
    assert ["flax.linen" in s for s in SCRIPTS] == [False, False, True, False]
    assert ["import nnx" in s for s in SCRIPTS] == [False, False, False, True]


@pytest.mark.parametrize("script", SCRIPTS, ids=["jax", "equinox", "linen", "nnx"])
def test_a_script_of_ones_own_loop_needs_nothing_from_elsewhere(script):
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_table_of_lines_is_true():
    rows = re.findall(r"^# \| [\w ]+ \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", OWN_LOOP.read_text(), re.MULTILINE)
    found = []
    for script in SCRIPTS:
        lines = [line for line in script.splitlines() if line.strip() and not line.startswith("#")]
        added, changed = (sum(f"# {mark}" in line for line in lines) for mark in ("added", "changed"))
        assert added <= 5
        found.append((len(lines) - added, len(lines), added, changed))
    assert [tuple(map(int, row)) for row in rows] == found
