"""Automatic differentiation confirms every fact that a landscape states, and descent meets the stated difficulty."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab, landscapes
from gradtx.landscapes import LANDSCAPES, Landscape, noisy, quadratic, rastrigin, styblinski_tang

ALL = {name: make() for name, make in LANDSCAPES.items()} | {
    "quadratic, round": quadratic(1.0),
    "quadratic, 1-D": quadratic(10.0, dim=1),
    "quadratic, turned": quadratic(20.0, rotation=0.6),
    "quadratic, 5-D, turned": quadratic(1000.0, dim=5, rotation=0.7),
    "styblinski_tang, 1-D": styblinski_tang(1),
    "styblinski_tang, 3-D": styblinski_tang(3),
    "styblinski_tang, 5-D": styblinski_tang(dim=5),
    "rastrigin, 1-D": rastrigin(1),
    "rastrigin, 3-D": rastrigin(3),
    "rastrigin, 5-D": rastrigin(dim=5),
    "noisy_rosenbrock": noisy(landscapes.rosenbrock, 0.3),
}
every = pytest.mark.parametrize("f", ALL.values(), ids=ALL)
x64 = pytest.mark.usefixtures("x64")


def of_kind(eigenvalues):
    """Returns the kind of a critical point by the signs of the eigenvalues."""
    zero = 1e-9 * max(1.0, np.abs(eigenvalues).max())
    up, down = (eigenvalues > zero).any(), (eigenvalues < -zero).any()
    return {(1, 1): "saddle", (1, 0): "minimum-like", (0, 1): "maximum-like", (0, 0): "plateau"}[up, down]


def points_in_view(f, count, seed=0):
    box = np.array([f.view[0], f.view[1], *[f.view[0]] * f.dim])[: f.dim]
    return np.random.default_rng(seed).uniform(box[:, 0], box[:, 1], (count, f.dim))


def descend(f, steps, tx=None, start=None):
    """Returns the points of a run, [steps + 1, dim]. The default is plain gradient descent."""
    tx = gradtx.sgd(f.learning_rate) if tx is None else tx
    x = jnp.asarray(f.start if start is None else start)

    def step(carry, _):
        x, state = carry
        updates, state = tx.update(jax.grad(f)(x), state, x)
        return (optax.apply_updates(x, updates), state), x

    (last, _), path = jax.lax.scan(step, (x, tx.init(x)), None, length=steps)
    return np.concatenate([path, last[None]])


@every
@x64
def test_the_gradient_vanishes_at_every_critical_point_and_the_hessian_has_its_kind(f):
    gradient, hessian = jax.jit(jax.grad(f)), jax.jit(jax.hessian(f))
    for point, kind in f.critical_points:
        H = np.asarray(hessian(point))
        assert np.abs(gradient(point)).max() <= 1e-12 * max(1.0, np.abs(H).max()) * max(1.0, np.abs(point).max())
        assert of_kind(np.linalg.eigvalsh(H)) == kind, point
    points = [tuple(point) for point, _ in f.critical_points]
    assert len(set(points)) == len(points) > 0


@every
@x64
def test_the_minimum_is_attained_at_the_minimisers_and_is_the_lowest_value(f):
    points = [tuple(point) for point, kind in f.critical_points if kind == "minimum-like"]
    assert f.minimisers.shape == (len(f.minimisers), f.dim)
    for point in f.minimisers:
        assert float(f(point)) == pytest.approx(f.minimum, rel=1e-13, abs=1e-24)
        assert tuple(point) in points
    assert (len(f.minimisers) > 0) == np.isfinite(f.minimum)
    values = np.asarray(jax.jit(jax.vmap(f))(points_in_view(f, 20_000)))
    assert np.isfinite(values).all()
    assert values.min() >= f.minimum


@pytest.mark.parametrize(("f", "direction"), [(landscapes.saddle, (0, 1)), (landscapes.monkey_saddle, (-1, 0))])
def test_landscapes_with_a_minimum_of_minus_infinity_are_unbounded_below(f, direction):
    assert f.minimum == -np.inf
    for below in (-1e3, -1e9, -1e15, -1e30):
        assert float(f(np.abs(2 * below) ** 0.5 * np.array(direction))) < below


def test_only_the_two_saddles_have_a_minimum_of_minus_infinity():
    assert {name for name, make in LANDSCAPES.items() if make().minimum == -np.inf} == {"saddle", "monkey_saddle"}


@every
@x64
def test_constant_hessians_are_stated_and_other_hessians_vary(f):
    hessians = np.asarray(jax.jit(jax.vmap(jax.hessian(f)))(points_in_view(f, 10)))
    if f.hessian_eigenvalues is None:
        assert np.ptp(hessians, axis=0).max() > 1e-3
    else:
        for H in hessians:
            np.testing.assert_allclose(np.linalg.eigvalsh(H), f.hessian_eigenvalues, rtol=1e-11)


@every
@x64
def test_the_condition_number_is_that_of_the_hessian_at_the_minimisers(f):
    conditions = [np.linalg.cond(H) for H in map(jax.jit(jax.hessian(f)), f.minimisers)]
    if f.condition_number is not None:
        np.testing.assert_allclose(conditions, f.condition_number, rtol=1e-9)
    else:
        assert not conditions or max(conditions) > 1e12 or np.ptp(conditions) > 0.1


@every
def test_start_and_critical_points_lie_inside_the_view(f):
    box = np.array(f.view)[: f.dim]
    for point in (f.start, *(point for point, _ in f.critical_points)):
        assert point.shape == (f.dim,)
        seen = point[:2]
        assert (box[: len(seen), 0] < seen).all(), point
        assert (seen < box[: len(seen), 1]).all(), point


# These landscapes list all critical points in their view.
COMPLETE = [
    "quadratic",
    "rosenbrock",
    "beale",
    "double_well",
    "himmelblau",
    "styblinski_tang",
    "saddle",
    "asymptote_hill",
]


@pytest.mark.parametrize("name", COMPLETE)
@x64
def test_newtons_iteration_finds_exactly_the_listed_critical_points(name):
    f = LANDSCAPES[name]()
    (x_low, x_high), (y_low, y_high) = f.view

    @jax.jit
    @jax.vmap
    def solve(x):
        def step(x, _):
            return x - jnp.linalg.solve(jax.hessian(f)(x), jax.grad(f)(x)), None

        x, _ = jax.lax.scan(step, x, None, length=100)
        return x, jnp.linalg.norm(jax.grad(f)(x))

    found, slopes = map(np.asarray, solve(points_in_view(f, 500)))
    found = found[(slopes < 1e-9) & (found > [x_low, y_low]).all(1) & (found < [x_high, y_high]).all(1)]
    listed = np.stack([point for point, _ in f.critical_points])
    distances = np.linalg.norm(found[:, None] - listed, axis=-1)
    assert distances.min(1).max() < 1e-6
    assert distances.min(0).max() < 1e-6  # each listed point is found


@every
def test_landscapes_work_under_jit_and_vmap_and_as_static_arguments(f):
    points = jnp.asarray(points_in_view(f, 3))
    one_by_one = np.array([f(x) for x in points])
    assert f(points[0]).shape == ()
    np.testing.assert_allclose(jax.jit(jax.vmap(f))(points), one_by_one, rtol=1e-5, atol=1e-5)
    static = jax.jit(lambda landscape, x: landscape(x), static_argnums=0)
    np.testing.assert_allclose(static(f, points[0]), one_by_one[0], rtol=1e-5, atol=1e-5)


def test_values_have_the_dtype_of_the_vector_and_integers_become_floats(x64):
    for make in LANDSCAPES.values():
        f = make()
        assert f(jnp.ones(f.dim, jnp.float64)).dtype == jnp.float64
        assert f(jnp.ones(f.dim, jnp.float32)).dtype == jnp.float32
        assert jax.grad(f)(jnp.ones(f.dim, jnp.float32)).dtype == jnp.float32
        assert f(np.ones(f.dim, int)) == f(np.ones(f.dim))


def test_the_catalogue_holds_every_landscape():
    for name, make in LANDSCAPES.items():
        assert getattr(landscapes, name) is make
        assert make().name == name
        assert isinstance(make(), Landscape)
        assert repr(make()) == f"Landscape({name}, dim=2)"
    assert landscapes.saddle() is landscapes.saddle
    public = {name for name, x in vars(landscapes).items() if isinstance(x, Landscape) or inspect.isfunction(x)}
    assert public - {"noisy"} == set(LANDSCAPES)


def test_the_facts_of_a_landscape_are_read_only():
    f = quadratic()
    for array in (f.start, f.minimisers, f.hessian_eigenvalues, f.critical_points[0][0]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1.0
    with pytest.raises(AttributeError):
        f.minimum = 1.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("sigma", [0.0, 0.5, 3.0])
def test_a_noisy_gradient_has_the_true_gradient_as_mean_and_standard_deviation_sigma(sigma):
    f = noisy(landscapes.rosenbrock, sigma)
    x = jnp.array([0.3, -0.4])
    keys = jax.random.split(jax.random.key(1), 40_000)
    noise = np.asarray(jax.vmap(lambda key: jax.grad(f.sample)(x, key))(keys) - jax.grad(f)(x), np.float64)
    np.testing.assert_allclose(noise.mean(0), 0, atol=5 * sigma / 200 + 1e-4)
    np.testing.assert_allclose(noise.std(0), sigma, rtol=0.02, atol=1e-4)
    assert abs((noise[:, 0] * noise[:, 1]).mean()) <= 5 * sigma**2 / 200 + 1e-6  # independent coordinates


def test_noise_changes_neither_the_facts_nor_the_expected_value():
    f, g = landscapes.double_well, noisy(landscapes.double_well, 0.7)
    x, keys = jnp.array([0.3, 0.9]), jax.random.split(jax.random.key(2), 40_000)
    assert (g.name, g.sigma, f.sigma) == ("noisy_double_well", 0.7, 0.0)
    assert g(x) == f(x) == f.sample(x, keys[0])
    samples = np.asarray(jax.vmap(g.sample, (None, 0))(x, keys))
    assert samples.std() == pytest.approx(0.7 * float(jnp.linalg.norm(x)), rel=0.02)
    assert samples.mean() == pytest.approx(float(f(x)), abs=0.02)
    for fact in ("dim", "minimum", "section", "view", "condition_number", "description", "source", "learning_rate"):
        assert getattr(g, fact) == getattr(f, fact)
    np.testing.assert_array_equal(g.start, f.start)
    np.testing.assert_array_equal(g.minimisers, f.minimisers)
    for (p, p_kind), (q, q_kind) in zip(g.critical_points, f.critical_points, strict=True):
        np.testing.assert_array_equal(p, q)
        assert p_kind == q_kind
    assert noisy(g, 0.1).sigma == 0.1


def test_the_rotation_turns_the_axes_of_the_quadratic():
    f, turned = quadratic(10.0), quadratic(10.0, rotation=np.pi / 6)
    axis = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    assert float(turned(axis)) == pytest.approx(float(f([1.0, 0.0])), rel=1e-6)
    full = np.asarray(jax.jit(jax.hessian(quadratic(10.0, dim=4, rotation=0.7)))(np.zeros(4)))
    assert (np.abs(full) > 1e-3).all()


@pytest.mark.parametrize("condition_number", [1.0, 10.0, 1000.0])
@x64
def test_descent_on_the_quadratic_diverges_only_above_two_over_its_condition_number(condition_number):
    f = quadratic(condition_number, rotation=0.4)
    stays = descend(f, 2000, gradtx.sgd(1.99 / condition_number))
    leaves = descend(f, 2000, gradtx.sgd(2.01 / condition_number))
    assert f(stays[-1]) < 0.1 * f(f.start)
    assert f(leaves[-1]) > 1e6 * f(f.start)


def test_gradient_descent_escapes_the_saddles():
    for f in (landscapes.saddle, landscapes.monkey_saddle, landscapes.double_well):
        path = descend(f, 80)
        saddle = f.critical_points[-1][0]
        distance = np.linalg.norm(path - saddle, axis=1)
        closest = int(distance.argmin())
        assert 0 < closest < 80
        assert distance[-1] > 2 * distance[closest]
        assert f(path[-1]) < f(saddle) - 0.2


def test_a_newton_step_leads_to_the_saddle():
    f = landscapes.saddle
    step = jnp.linalg.solve(jax.hessian(f)(f.start), jax.grad(f)(f.start))
    np.testing.assert_allclose(f.start - step, [0, 0], atol=1e-6)


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.2])
def test_one_step_at_the_cliff_throws_descent_far_away(factor):
    f, steps = landscapes.cliff, 1000
    path = descend(f, steps, gradtx.sgd(factor * f.learning_rate))
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    throw = int(lengths.argmax())
    foot = path[throw]
    assert 10 < throw < steps // 2
    assert lengths[throw] > 100 * np.median(lengths[:throw])
    assert np.linalg.norm(path[throw + 1 :] - foot, axis=1).min() > 2  # descent does not come back
    assert np.min(jax.vmap(f)(path[throw + 1 :])) > 0.04


def test_clipping_bounds_the_steps_at_the_cliff_and_reaches_a_low_value():
    f = landscapes.cliff
    path = descend(f, 1000, optax.chain(gradtx.clip_by_global_norm(0.1), gradtx.sgd(f.learning_rate)))
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() < 0.1001
    assert f(path[-1]) < 1e-3
    (low, high), _ = f.view
    assert ((path[:, 0] > low) & (path[:, 0] < high)).all()


def test_descent_on_the_plateau_reaches_the_minimum_after_hundreds_of_tiny_gradients():
    f = landscapes.plateau
    path = descend(f, 1500)
    slopes = np.linalg.norm(jax.jit(jax.vmap(jax.grad(f)))(path), axis=1)
    curvatures = np.abs(jax.jit(jax.vmap(jax.hessian(f)))(path)).max((1, 2))
    assert slopes[:500].max() < 1e-3
    assert curvatures[:500].max() < 1e-2
    np.testing.assert_allclose(path[-1], f.minimisers[0], atol=1e-3)


def test_the_plateau_is_exactly_flat_far_from_its_centre():
    f = landscapes.plateau
    far = np.random.default_rng(0).normal(size=(100, 2))
    far = np.array([3.0, 0.0]) + 6.01 * far / np.linalg.norm(far, axis=1, keepdims=True)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(f)))(far), 0)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.hessian(f)))(far), 0)


@x64
def test_descent_from_the_wrong_side_of_the_hill_follows_the_asymptote():
    f = landscapes.asymptote_hill
    path = descend(f, 20_000)
    assert (np.diff(path[:, 0]) < 0).all()
    assert path[-1, 0] < -15
    values = np.asarray(jax.vmap(f)(path))
    assert (np.diff(values) < 0).all()
    assert 0 < values[-1] < 0.02  # the asymptote
    assert f.minimum == -2
    # From the other side of the hill, descent reaches the minimum.
    np.testing.assert_allclose(descend(f, 500, start=[-0.3, 2.0])[-1], f.minimisers[0], atol=1e-6)


@pytest.mark.parametrize(
    "name", ["quadratic", "rosenbrock", "beale", "double_well", "himmelblau", "scaled_product", "plateau"]
)
@x64
def test_descent_from_the_start_reaches_a_minimum(name):
    f = LANDSCAPES[name]()
    assert f(descend(f, 8000)[-1]) < 2e-5


@pytest.mark.parametrize("f", [styblinski_tang(), rastrigin()], ids=lambda f: f.name)
@x64
def test_descent_from_the_start_ends_in_a_local_minimum_that_is_not_the_best(f):
    last = descend(f, 2000)[-1]
    assert np.linalg.norm(jax.grad(f)(last)) < 1e-6
    assert of_kind(np.linalg.eigvalsh(jax.hessian(f)(last))) == "minimum-like"
    assert f(last) > f.minimum + 1


@x64
def test_rescaled_weights_give_the_same_value():
    f, w = landscapes.scaled_product, np.array([0.7, -1.3])
    for a in (0.1, -2.0, 30.0):
        assert float(f(w * [a, 1 / a])) == pytest.approx(float(f(w)), rel=1e-12)


BAD = [
    (lambda: quadratic(0.5), ValueError, r"quadratic: condition_number must be in \[1, inf\), got 0.5\."),
    (lambda: quadratic(np.nan), ValueError, "quadratic: condition_number must be .* got nan"),
    (lambda: quadratic(np.inf), ValueError, "quadratic: condition_number must be .* got inf"),
    (lambda: quadratic(rotation=np.nan), ValueError, "quadratic: rotation must be .* got nan"),
    (lambda: quadratic("10"), TypeError, r"quadratic: condition_number must be a number, got '10' \(str\)"),
    (lambda: quadratic(dim=0), ValueError, "quadratic: dim must be at least 1, got 0"),
    (lambda: styblinski_tang(-1), ValueError, "styblinski_tang: dim must be at least 1, got -1"),
    (lambda: rastrigin(np.nan), TypeError, "rastrigin: dim must be an integer, got nan"),
    (lambda: rastrigin(2.5), TypeError, "rastrigin: dim must be an integer, got 2.5"),
    (lambda: noisy(landscapes.saddle, -1.0), ValueError, r"noisy: sigma must be in \[0, inf\), got -1.0\."),
    (lambda: noisy(landscapes.saddle, np.nan), ValueError, "noisy: sigma must be .* got nan"),
    (lambda: noisy(landscapes.saddle, True), TypeError, "noisy: sigma must be a number, got True"),
    (lambda: noisy(quadratic, 1.0), TypeError, "noisy: landscape must be a Landscape, as saddle or quadratic"),
    (lambda: landscapes.saddle(jnp.ones(3)), ValueError, r"saddle: the vector must have shape \(2,\), got \(3,\)\."),
    (lambda: rastrigin(5)(jnp.ones((5, 1))), ValueError, r"rastrigin: the vector must have shape \(5,\), got \(5, 1\)"),
    (lambda: landscapes.cliff(1.0), ValueError, r"cliff: the vector must have shape \(2,\), got \(\)"),
    (lambda: landscapes.cliff.sample(jnp.ones(3), jax.random.key(0)), ValueError, r"cliff: the vector must have shape"),
    (lambda: landscapes.saddle(jnp.ones(2) * 1j), TypeError, "saddle: the vector must be real, got dtype complex64"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments_are_refused_with_name_and_value(call, error, message):
    with pytest.raises(error, match=message):
        call()


def bowl(x):
    return jnp.sum((x - 3.0) ** 2)


@pytest.mark.parametrize(
    ("start", "view", "expected"),
    [
        ([1.0, 1.0], None, ((-1.0, 3.0), (-1.0, 3.0))),
        ([5, -1, 9], None, ((0.0, 10.0), (-6.0, 4.0))),
        ([1.0, 1.0], [[0, 4], [2, 4]], ((0.0, 4.0), (2.0, 4.0))),
        ([0.5], (-1, 4), ((-1.0, 4.0), (-1.0, 4.0))),
    ],
)
def test_a_custom_function_can_be_made_a_landscape(start, view, expected):
    f = landscapes.Landscape.of(bowl, start, view=view)
    assert (f.name, f.dim, f.view) == ("bowl", len(start), expected)
    walk = lab.run(f, gradtx.sgd(0.25), steps=20, key=jax.random.key(0))
    np.testing.assert_allclose(walk.params, 3.0, rtol=1e-4)
    assert "Height after 20 steps" in lab.plot_trajectories(f, walk).get_suptitle()
    assert np.isnan(f.minimum)
    assert not f.minimisers.size
    if len(start) > 1:
        assert "its lowest value is not known" in lab.plot_surface(f).get_suptitle()
    noisy = landscapes.noisy(f, 0.1)
    assert noisy.sample(noisy.start, jax.random.key(0)) != f(f.start)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3.0, [1.0]), TypeError, "function must be a function of a vector, got 3.0"),
        ((bowl, 1.0), ValueError, "start must be a vector of finite numbers, like .* got 1.0"),
        ((bowl, []), ValueError, "start must be a vector of finite numbers"),
        ((bowl, [np.nan]), ValueError, "start must be a vector of finite numbers"),
        ((bowl, ["a"]), TypeError, "start must hold numbers, got"),
        ((lambda x: x, [1.0]), ValueError, r"must return a real floating scalar for the start, got shape \(1,\)"),
        ((lambda x: (x @ x, 1), [1.0]), ValueError, "must return a real floating scalar for the start, got tuple"),
        ((lambda x: np.sum(np.array(x) ** 2), [1.0]), TypeError, "must be written with jax.numpy"),
        ((bowl, [1.0], ((1, 0), (0, 1))), ValueError, r"view must be \(\(x_low, x_high\), .* with low < high, got"),
        ((bowl, [1.0], (1, 2, 3)), ValueError, "view must be"),
    ],
)
def test_bad_arguments_of_landscape_of_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=f"Landscape.of: .*{message}"):
        landscapes.Landscape.of(*arguments)


def test_the_lab_refuses_a_plain_function_with_advice_to_make_a_landscape():
    message = r"gradtx.landscapes.Landscape.of\(function, start\)"
    with pytest.raises(TypeError, match=message):
        lab.run(bowl, gradtx.sgd(0.1), steps=1, key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), 1)
    with pytest.raises(TypeError, match=message):
        lab.sweep(bowl, gradtx.sgd, {"learning_rate": [0.1]}, steps=1, keys=keys)
