"""Floating numbers in fewer bits: bfloat16 by stochastic rounding, 8 bits in blocks with a scale.

Stochastic rounding goes up or down with the probability that makes the mean exact: a change too small for the last bit
is added now and then. Rounding to the nearest would lose it at every step.

    8 bits: x = ± scale · (1 + m/8) · 2^e, the scale being the largest |x| of 256 neighbours

| a block's entries | sign | exponent e | mantissa m | smallest / largest |
|-------------------|------|------------|------------|--------------------|
| of both signs     | 1    | 4 bits     | 3 bits     | 2⁻¹⁶               |
| none negative     | 0    | 5 bits     | 3 bits     | 2⁻³²               |

The sign of a block's scale tells its kind: it is negative if no entry is negative. In such a block a positive entry
never becomes 0. Otherwise Adam would divide a first moment that is not 0 by `eps`, if its second moment became 0.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from .debugging import unbounded

BLOCK = 256
_ONE = 127 << 3  # float32 1.0, the largest entry, as bits without sign and with a mantissa of 3 bits
_TOP, _TOP_ONE_SIDED = 127, 255  # the code of the largest entry
_STRIDE = 0x9E3779B1  # 2³²/φ, odd


def mixed(x: jax.Array) -> jax.Array:
    """A bijection of uint32 that leaves no pattern between neighbours (the "lowbias32" constants of C. Wellons)."""
    x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> jnp.uint32(15))) * jnp.uint32(0x846CA68B)
    return x ^ (x >> jnp.uint32(16))


def chances(seed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint32 of that shape: multiples of 2³²/φ from a random start.

    Each entry's number is uniform over the seeds, and neighbours fill the range evenly, so that errors cancel sooner
    than those of independent numbers. This takes one product per entry. A random generator takes longer than a step.
    """
    place, stride = jnp.zeros(shape, jnp.uint32), _STRIDE
    for axis in reversed(range(len(shape))):
        place = place + lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride & 0xFFFFFFFF)
        stride *= shape[axis]
    return place + seed


def chances_of_bits(bits: jax.Array, seed: jax.Array) -> jax.Array:
    """A uint32 for each number to be rounded. Equal numbers get equal values.

    The values are uniform over the seeds, and evenly spread over numbers that are close together. `chances` needs the
    place of an entry. XLA on the CPU counts places in 64 bits, which took a third of the encoding time. In 8 bits equal
    entries may share their chance, because a block of equal entries needs no rounding.
    """
    return bits * jnp.uint32(_STRIDE) + seed


def to_bfloat16(x: jax.Array, seed: jax.Array) -> jax.Array:
    """The array in bfloat16. Its mean over all seeds (uint32) is the array itself."""
    x = x.astype(jnp.float32)
    up = lax.bitcast_convert_type(x, jnp.uint32) + (chances(seed, x.shape) >> jnp.uint32(16))
    # The bits are rounded here, so the cast is exact. (A view of uint16 as bfloat16 is ten times slower on a CPU.)
    rounded = lax.bitcast_convert_type(up & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)


@jax.jit  # so that outside jit the choice of a platform is compiled once
def scales_8bit(x: jax.Array) -> jax.Array:
    """The scale of each block of the flat entries of `x`."""
    tiles = _tiles(x.shape)

    def in_rows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        flat = lax.reshape(x, (x.size,))
        if x.size % BLOCK:
            flat = jnp.pad(flat, (0, -x.size % BLOCK))
        return _extremes(lax.reshape(flat, (num_blocks(x.size), BLOCK)), [1])

    def in_tiles(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        largest, smallest = _extremes(lax.reshape(x, tiles), [3])
        return lax.reshape(largest, (num_blocks(x.size),)), lax.reshape(smallest, (num_blocks(x.size),))

    x = x.astype(jnp.float32)
    largest, smallest = lax.platform_dependent(x, tpu=in_tiles, default=in_rows) if tiles else in_rows(x)
    return jnp.where(smallest >= 0, -jnp.maximum(largest, -smallest), jnp.maximum(largest, -smallest))


def to_8bit(x: jax.Array, scale: jax.Array, seed: jax.Array) -> jax.Array:
    """Codes, uint8 in the shape of `x`, given `scales_8bit(x)`."""
    # This divides once per block. XLA on the CPU would repeat any cheaper operation for each entry.
    inverse = jnp.where(jnp.signbit(scale), -1, 1) / jnp.maximum(jnp.abs(scale), jnp.finfo(jnp.float32).tiny)
    x, inverse = x.astype(jnp.float32), _each(inverse, x.shape)
    one_sided = jnp.signbit(inverse)
    share = jnp.minimum(jnp.abs(x * inverse), 1)
    bits = lax.bitcast_convert_type(share, jnp.uint32)
    up = bits + (chances_of_bits(bits, seed) >> jnp.uint32(12))
    level = (up >> jnp.uint32(20)).astype(jnp.int32) + jnp.where(one_sided, _TOP_ONE_SIDED - _ONE, _TOP - _ONE)
    level = jnp.maximum(level, (one_sided & (x > 0)).astype(jnp.int32))
    return jnp.where(x < 0, level + 128, level).astype(jnp.uint8)


def from_8bit(code: jax.Array, scale: jax.Array) -> jax.Array:
    """Decodes the codes to float32."""
    scale, code = _each(scale, code.shape), code.astype(jnp.int32)
    top = jnp.where(jnp.signbit(scale), _TOP_ONE_SIDED, _TOP)
    level = code & top
    magnitude = jnp.where(level > 0, lax.bitcast_convert_type((level + (_ONE - top)) << 20, jnp.float32), 0)
    return jnp.where(level < code, -magnitude, magnitude) * jnp.abs(scale)


def num_blocks(size: int) -> int:
    """The number of blocks of an array with `size` entries."""
    return -(-size // BLOCK)


@partial(jax.jit, static_argnums=1)
def _each(scale: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The scale of each entry's block, in the shape of the array."""
    tiles = _tiles(shape)

    def in_rows(scale: jax.Array) -> jax.Array:  # XLA on the CPU fuses this into each loop that reads it
        entries = lax.reshape(lax.broadcast_in_dim(scale, (scale.size, BLOCK), (0,)), (scale.size * BLOCK,))
        return lax.reshape(entries[: math.prod(shape)], shape)

    def in_tiles(scale: jax.Array) -> jax.Array:  # without the barrier TPUs would write all that follows from scales
        entries = lax.broadcast_in_dim(lax.reshape(scale, tiles[:-1]), tiles, (0, 1, 2))
        return lax.optimization_barrier(lax.reshape(entries, shape))

    return lax.platform_dependent(scale, tpu=in_tiles, default=in_rows) if tiles else in_rows(scale)


def _tiles(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape whose last axis is a block. TPUs reshape to it without moving entries. Empty if there is no such shape.

    TPUs store matrices in tiles of 8 x 128. A matrix with the blocks as its rows has other tiles.
    """
    if len(shape) < 2 or shape[-1] % BLOCK or shape[-2] % 8:
        return ()
    return math.prod(shape[:-1]) // 8, 8, shape[-1] // BLOCK, BLOCK


def _extremes(x: jax.Array, axes: Iterable[int]) -> tuple[jax.Array, jax.Array]:
    """The maximum and the minimum along `axes`. Both are NaN if there is a NaN.

    This is one reduction with two results. XLA on the CPU fuses the computation of `x` into it and does not write `x`.
    For two reductions, or for a maximum of |x|, it would write `x`. Along a sharded axis the partitioner gathers the
    whole array.
    """
    beyond = unbounded(x.dtype)
    ends = (jnp.array(-beyond, x.dtype), jnp.array(beyond, x.dtype))

    def wider(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        return lax.max(a[0], b[0]), lax.min(a[1], b[1])

    largest, smallest = lax.reduce((x, x), ends, wider, tuple(axes))
    return largest, smallest
