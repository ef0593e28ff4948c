"""Trees of arrays: constructors that keep dtype and sharding, norms that neither overflow nor underflow."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from .arithmetic import sqrt
from .collectives import AxisName, each_over_shards, total_over_shards
from .debugging import unbounded
from .tracing import is_traced
from .types import FLOAT32, DTypeLike, Params


def leaf_dtype(leaf: Any) -> jnp.dtype:
    """dtype of an array, a `ShapeDtypeStruct` or a Python number; TypeError for anything else."""
    if hasattr(leaf, "dtype") and not isinstance(leaf, type):
        return leaf.dtype
    if isinstance(leaf, bool | int | float | complex):  # JAX would also take a string, for the name of a dtype
        return jnp.result_type(leaf)
    raise TypeError(f"{type(leaf).__name__} has no dtype")


def named_leaves(name: str, argument: str, tree: Any) -> Iterator[tuple[str, Any, jnp.dtype]]:
    """(where, leaf, dtype) for each leaf, `where` as in "params['w']"; raises where a leaf is no array."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        where = f"{argument}{jax.tree_util.keystr(path)}"
        try:
            yield where, leaf, leaf_dtype(leaf)
        except TypeError:
            raise TypeError(f"{name}: {where} must be an array, got {type(leaf).__name__}.") from None


def sparse_leaf(tree: Any) -> str | None:
    """The path and the type of the first sparse array, which JAX flattens into its data and indices."""

    def is_sparse(x: Any) -> bool:
        return type(x).__module__.startswith("jax.experimental.sparse")

    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_sparse)
    return next((f"{jax.tree_util.keystr(p)} ({type(x).__name__})" for p, x in leaves if is_sparse(x)), None)


def check_params(name: str, params: Params, *, allow_complex: bool = True) -> None:
    """Raises where a leaf of `params` is not one that `name` can train, naming the leaf."""
    for where, _, dtype in named_leaves(name, "params", params):
        if not jnp.issubdtype(dtype, jnp.inexact):
            if sparse := sparse_leaf(params):
                raise TypeError(f"{name}: params{sparse} is sparse: make it dense with todense().")
            raise TypeError(
                f"{name}: {where} must be of a floating dtype, got {dtype}: take it out of the trained tree (of an "
                "Equinox model, train eqx.filter(model, eqx.is_inexact_array)), or wrap the transformation in "
                "optax.masked."
            )
        if not allow_complex and jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(f"{name}: {where} must be real, got {dtype}: complex parameters are not defined here.")


def is_sharded(leaf: Any) -> bool:
    """As far as it can be seen: under `jit` only with explicit sharding."""
    spec = getattr(getattr(jax.typeof(leaf), "sharding", None), "spec", ()) if isinstance(leaf, jax.Array) else ()
    if any(axes is not None for axes in spec) or getattr(spec, "unreduced", None):
        return True
    is_concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
    sharding = leaf.sharding if is_concrete else getattr(leaf, "sharding", None)
    return isinstance(sharding, jax.sharding.Sharding) and not sharding.is_fully_replicated


def compute_dtype(*dtypes: jnp.dtype) -> jnp.dtype:
    """The real dtype to compute in: float64 if any of them is that wide, else float32."""
    is_wide = any(jnp.finfo(dtype).bits == 64 for dtype in dtypes)
    return jnp.dtype("float64") if is_wide else jnp.dtype("float32")


def widen(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The array in the real dtype to compute in; a complex one in its complex counterpart."""
    if jnp.iscomplexobj(x):
        return x.astype(jnp.complex128 if dtype == jnp.float64 else jnp.complex64)
    return x.astype(dtype)


def extremes(x: jax.Array, axes: Iterable[int]) -> tuple[jax.Array, jax.Array]:
    """The maximum and the minimum along `axes`, NaN where there is one.

    As one reduction of two: XLA on the CPU fuses what makes `x` into it and does not write `x`, as it would for each of
    two reductions, or for a maximum of |x|. But along an axis that is sharded the partitioner gathers the whole array.
    """
    beyond = unbounded(x.dtype)
    ends = (jnp.array(-beyond, x.dtype), jnp.array(beyond, x.dtype))

    def wider(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        return jax.lax.max(a[0], b[0]), jax.lax.min(a[1], b[1])

    largest, smallest = jax.lax.reduce((x, x), ends, wider, tuple(axes))
    return largest, smallest


def accumulator_like(
    leaf: Any, dtype: DTypeLike | None, *, real: bool = False, fill: jax.Array | None = None
) -> jax.Array:
    """Zeros (or `fill`) in the leaf's shape and sharding.

    `dtype` None follows the leaf; float32 or wider is a lower bound (a float64 leaf keeps float64); narrower ones are
    taken as they are. A complex leaf gets a complex accumulator unless `real`.
    """
    own = leaf_dtype(leaf)
    is_complex = jnp.issubdtype(own, jnp.complexfloating)
    # Under `optax.inject_hyperparams` an explicit `jnp.float32` arrives as an array of that dtype.
    wanted = own if dtype is None else dtype.dtype if isinstance(dtype, jax.Array) else jnp.dtype(dtype)
    if is_complex or jnp.issubdtype(wanted, jnp.complexfloating) or jnp.finfo(wanted).bits >= 32:
        wanted = compute_dtype(own, wanted)
        if is_complex and not real:
            wanted = jnp.dtype("complex128") if wanted == jnp.float64 else jnp.dtype("complex64")
    zeros = jnp.zeros_like(leaf, dtype=wanted)
    return zeros if fill is None else zeros + fill.astype(wanted)


def check_accumulator_dtype(name: str, dtype: Any) -> None:
    """Raises unless it is None, a floating dtype, or an array of one (see `accumulator_like`)."""
    try:
        known = FLOAT32 if dtype is None else dtype.dtype if isinstance(dtype, jax.Array) else jnp.dtype(dtype)
    except TypeError:
        known = jnp.dtype(bool)
    if not jnp.issubdtype(known, jnp.inexact):
        raise TypeError(f"{name}: accumulator_dtype must be a floating dtype or None, got {dtype!r}.")


def accumulators(
    params: Params, dtype: DTypeLike | None, *, real: bool = False, fill: jax.Array | None = None
) -> Params:
    """`accumulator_like` over a tree."""
    return jax.tree.map(lambda leaf: accumulator_like(leaf, dtype, real=real, fill=fill), params)


def restored(state: Any) -> Any:
    """An optimizer state with the state of the wrapped transformation in the place of each wrapper's that keeps it in
    another form (a NamedTuple with a method `restored()`)."""

    def keeps_another_form(x: Any) -> bool:
        return isinstance(x, tuple) and hasattr(x, "restored")

    state = without_variables(state)
    return jax.tree.map(lambda x: x.restored() if keeps_another_form(x) else x, state, is_leaf=keeps_another_form)


def without_variables(tree: Any) -> Any:
    """The tree with the array of each flax.nnx variable in the variable's place, as nnx.Optimizer hands trees to a
    transformation. The state that it keeps has variables around all arrays, of which NumPy and JAX know little.

    Variables are told by their methods: gradtx does not import Flax.
    """
    if not any(map(_is_variable, jax.tree.leaves(tree, is_leaf=_is_variable))):
        return tree

    def array(x: Any) -> Any:
        if not _is_variable(x):
            return x
        return x.get_value() if hasattr(x, "get_value") else x.value  # its name before Flax 0.12

    return jax.tree.map(array, tree, is_leaf=_is_variable)


def _is_variable(x: Any) -> bool:
    return hasattr(type(x), "get_metadata") and (hasattr(type(x), "get_value") or hasattr(type(x), "value"))


def scaled_norm(leaves: Sequence[jax.Array], axis_name: AxisName = None) -> tuple[jax.Array, jax.Array]:
    """Euclidean norm of all entries as a pair (inverse scale, norm * inverse scale), in float32 or wider.

    The pair and its squares stay finite where the norm itself would not. One infinite or NaN entry makes the second
    number NaN, so that nothing downstream mistakes it for a very long vector. With `axis_name`, for leaves that are
    shards inside `shard_map`, the norm is that of the whole: one all-reduce of a scalar.
    """
    return _with_inverse_scale(*factored_norm(leaves, axis_name))


def scaled_norms(leaves: Sequence[jax.Array], axis_name: AxisName = None) -> tuple[jax.Array, jax.Array]:
    """`scaled_norm` of each leaf by itself, as two vectors [leaves]: one choice for all leaves.

    A choice for each leaf would make a program whose time to compile grows as the square of their number.
    """
    return _with_inverse_scale(*_factored(lambda sums: each_over_shards(sums, axis_name), leaves))


def _with_inverse_scale(factor: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    limits = jnp.finfo(length.dtype)
    # The norm or what is nearest to it of which neither 1 / scale nor the square overflows.
    scale = jnp.clip(jax.lax.stop_gradient(length) / factor, limits.tiny**0.5, limits.max / 8)
    is_plain = factor == 1
    return jnp.where(is_plain, 1, 1 / scale), jnp.where(is_plain, length, length / (factor * scale))


def factored_norm(leaves: Sequence[jax.Array], axis_name: AxisName = None) -> tuple[jax.Array, jax.Array]:
    """Euclidean norm of all entries as a pair (f, f * norm), in float32 or wider; f is 1 or a power of two.

    It is 1 unless the sum of the squares over- or underflows. The second number is NaN if an entry is infinite or NaN.
    """
    dtype = compute_dtype(*(x.dtype for x in leaves))
    return _factored(lambda sums: total_over_shards(sums, axis_name, dtype), leaves)


Combine = Callable[[list[jax.Array]], jax.Array]  # from the leaves' sums to their total, or to a vector of them


def _factored(combine: Combine, leaves: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """`factored_norm` of the leaves together, or of each, as `combine` does it.

    The leaves are read once, for three sums of squares: of the entries as they are, scaled up and scaled down. XLA on
    the CPU would read them three times. There the scaled sum is computed only if it is needed.
    """
    if not is_traced(leaves):
        return _read_again(combine, *leaves)
    cpu, default = partial(_read_again, combine), partial(_read_once, combine)
    return jax.lax.platform_dependent(*leaves, cpu=cpu, default=default)


def _read_again(combine: Combine, *leaves: jax.Array) -> tuple[jax.Array, jax.Array]:
    dtype = compute_dtype(*(x.dtype for x in leaves))
    total = combine([_square_sum(x, dtype) for x in leaves])
    is_exact = _is_exact(total)

    def rescaled() -> tuple[jax.Array, jax.Array]:
        factor = jnp.where(is_exact, 1, _factor(total))
        factors = [factor] * len(leaves) if factor.ndim == 0 else list(factor)
        squares = [_square_sum(x, dtype, f) for x, f in zip(leaves, factors, strict=True)]
        return factor, _root(combine(squares))

    return jax.lax.cond(jnp.all(is_exact), lambda: (jnp.ones_like(total), sqrt(total)), rescaled)


def _read_once(combine: Combine, *leaves: jax.Array) -> tuple[jax.Array, jax.Array]:
    dtype = compute_dtype(*(x.dtype for x in leaves))
    sums = [_square_sums(x, dtype) for x in leaves]
    total, up, down = (combine([s[i] for s in sums]) for i in range(3))
    is_exact = _is_exact(total)
    chosen = jnp.where(is_exact, total, jnp.where(total < 1, up, down))
    return jnp.where(is_exact, 1, _factor(total)), _root(chosen)


def _is_exact(total: jax.Array) -> jax.Array:
    """Squares below `tiny` have lost digits: a sum near there may be mostly what underflowed."""
    limits = jnp.finfo(total.dtype)
    return (total < limits.max) & (total > limits.tiny / limits.eps**2)


def _factor(total: jax.Array) -> jax.Array:
    return jnp.where(total < 1, _far(total.dtype), 1 / _far(total.dtype)).astype(total.dtype)


def _far(dtype: jnp.dtype) -> float:
    """Three quarters of the exponents: no square of what made a sum over- or underflow does so again."""
    return 2.0 ** (jnp.finfo(dtype).maxexp * 3 // 4)


def _root(total: jax.Array) -> jax.Array:
    """The length that has this square, NaN if that is not finite."""
    return sqrt(total) + (total - total)  # inf - inf is NaN, and no NaN is made of a total that is finite


@partial(jax.jit, static_argnums=1)
def _square_sum(x: jax.Array, dtype: jnp.dtype, factor: jax.Array | None = None) -> jax.Array:
    """Σ |f x|²; compiled, so that leaves of the same shape are traced once."""
    x = _real_parts(x, dtype)
    if factor is not None:
        # Of a constant x, such as the gradient 0 of a parameter without influence, the compiler would take (f x)² apart
        # into f² x²: a zero that it cannot know, as it does not know f, hinders it.
        x = (x + jnp.where(factor > 0, 0, factor)) * factor
    return jnp.sum(x * x)


@partial(jax.jit, static_argnums=1)
def _square_sums(x: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Σ |x|², Σ |f x|² over the entries below 1, Σ |x / f|² over the others."""
    return _scaled_square_sums(_real_parts(x, dtype))


@jax.custom_jvp
def _scaled_square_sums(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    zero = jnp.zeros((), x.dtype)

    def add(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        return tuple(map(jax.lax.add, a, b))

    # One reduction of three: XLA on GPUs keeps it in one kernel, where it would split three reductions in six.
    squares = tuple(y * y for y in _scaled(x))
    return tuple(jax.lax.reduce(squares, (zero, zero, zero), add, tuple(range(x.ndim))))


@_scaled_square_sums.defjvp
def _scaled_square_sums_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    slopes = tuple(2 * jnp.sum(y * dy) for y, dy in zip(_scaled(x), jax.jvp(_scaled, (x,), (dx,))[1], strict=True))
    return _scaled_square_sums(x), slopes


def _scaled(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    far, is_small = _far(x.dtype), jnp.abs(x) < 1
    return x, jnp.where(is_small, x * far, 0), jnp.where(is_small, 0, x / far)


def tree_norm(tree: Any) -> jax.Array:
    """Euclidean norm of all entries of a tree; inf where it is beyond its dtype."""
    inverse_scale, relative = scaled_norm(jax.tree.leaves(tree))
    return relative / inverse_scale


def tree_inner(a: Any, b: Any) -> jax.Array:
    """Inner product of two real trees, in JAX's default float dtype."""
    dtype = jnp.result_type(float)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((jnp.sum(x.astype(dtype) * y.astype(dtype)) for x, y in pairs), start=jnp.zeros((), dtype))


def _real_parts(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The array in the real dtype to compute in; a complex one as its real and imaginary parts, stacked."""
    if jnp.iscomplexobj(x):
        return jnp.stack([x.real, x.imag]).astype(dtype)
    return x.astype(dtype)
