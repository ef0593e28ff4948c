"""Floating numbers in fewer bits: bfloat16 by stochastic rounding, 8 bits in blocks with a scale.

Stochastic rounding goes up or down with the probability that makes the mean exact: what is too small for the last bit
is not lost but added now and then. Rounding to the nearest would lose it at every step.

    8 bits: x = ± scale · (1 + m/8) · 2^e, the scale being the largest |x| of 256 neighbours

| a block's entries | sign | exponent e | mantissa m | smallest / largest |
|-------------------|------|------------|------------|--------------------|
| of both signs     | 1    | 4 bits     | 3 bits     | 2⁻¹⁶               |
| none negative     | 0    | 5 bits     | 3 bits     | 2⁻³²               |

Which of the two a block is, its scale says: negative for the second. There a positive entry never becomes 0: a second
moment of 0 below a mean that is not would be a division by `eps`.
"""

import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from .debugging import unbounded

BLOCK = 256
_ONE = 127 << 3  # 1.0 as sign-free float32 bits with a mantissa of 3: the code of the largest entry
_TOP, _TOP_ONE_SIDED = 127, 255  # its code
_STRIDE = 0x9E3779B1  # 2³²/φ, odd


def mixed(x: jax.Array) -> jax.Array:
    """A bijection of uint32 that leaves no pattern between neighbours (the "lowbias32" constants of C. Wellons)."""
    x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> jnp.uint32(15))) * jnp.uint32(0x846CA68B)
    return x ^ (x >> jnp.uint32(16))


def chances(seed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint32 of that shape: multiples of 2³²/φ from a random start.

    Each entry's number is uniform over the seeds, and neighbours fill the range evenly, so that errors cancel sooner
    than those of independent numbers. One product an entry: a real generator would take longer than the step.
    """
    place, stride = jnp.zeros(shape, jnp.uint32), _STRIDE
    for axis in reversed(range(len(shape))):
        place = place + lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride & 0xFFFFFFFF)
        stride *= shape[axis]
    return place + seed


def chances_of_bits(bits: jax.Array, seed: jax.Array) -> jax.Array:
    """uint32 from the numbers to be rounded: uniform over the seeds, even among near numbers, equal for equal ones.

    XLA on the CPU counts an entry's place in 64 bits, and a third of the time to encode went into that. In 8 bits equal
    entries may share their chance: where a whole block is equal, nothing is rounded.
    """
    return bits * jnp.uint32(_STRIDE) + seed


def to_bfloat16(x: jax.Array, seed: jax.Array) -> jax.Array:
    """The array in bfloat16; its mean over the seeds, uint32, is the array."""
    x = x.astype(jnp.float32)
    up = lax.bitcast_convert_type(x, jnp.uint32) + (chances(seed, x.shape) >> jnp.uint32(16))
    # Rounded by hand, the cast is exact. (A uint16 seen as bfloat16 would be the same, and ten times slower on a CPU.)
    rounded = lax.bitcast_convert_type(up & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)


def scales_8bit(x: jax.Array) -> jax.Array:
    """The scale of each block of the flat entries of `x`."""
    flat = lax.reshape(x.astype(jnp.float32), (x.size,))
    if x.size % BLOCK:
        flat = jnp.pad(flat, (0, -x.size % BLOCK))
    largest, smallest = _extremes(lax.reshape(flat, (num_blocks(x.size), BLOCK)), [1])
    return jnp.where(smallest >= 0, -jnp.maximum(largest, -smallest), jnp.maximum(largest, -smallest))


def to_8bit(x: jax.Array, scale: jax.Array, seed: jax.Array) -> jax.Array:
    """Codes, uint8 in the shape of `x`, given `scales_8bit(x)`."""
    # A quotient is computed once a block; XLA on the CPU would compute anything cheaper anew for each of its entries.
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
    """The numbers, in float32."""
    scale, code = _each(scale, code.shape), code.astype(jnp.int32)
    top = jnp.where(jnp.signbit(scale), _TOP_ONE_SIDED, _TOP)
    level = code & top
    magnitude = jnp.where(level > 0, lax.bitcast_convert_type((level + (_ONE - top)) << 20, jnp.float32), 0)
    return jnp.where(level < code, -magnitude, magnitude) * jnp.abs(scale)


def num_blocks(size: int) -> int:
    """Of an array with that many entries."""
    return -(-size // BLOCK)


def _each(scale: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The scale of each entry's block. (What is computed in the shape of the array itself and not in blocks, XLA on the
    CPU fuses as often as it is read.)"""
    entries = lax.reshape(lax.broadcast_in_dim(scale, (scale.size, BLOCK), (0,)), (scale.size * BLOCK,))
    return lax.reshape(entries[: math.prod(shape)], shape)


def _extremes(x: jax.Array, axes: Iterable[int]) -> tuple[jax.Array, jax.Array]:
    """The maximum and the minimum along `axes`. Both are NaN if there is a NaN.

    This is one reduction with two results. XLA on the CPU fuses the computation of `x` into it and does not write `x`,
    as it would for two reductions, or for a maximum of |x|. But along a sharded axis the partitioner gathers the whole
    array.
    """
    beyond = unbounded(x.dtype)
    ends = (jnp.array(-beyond, x.dtype), jnp.array(beyond, x.dtype))

    def wider(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        return lax.max(a[0], b[0]), lax.min(a[1], b[1])

    largest, smallest = lax.reduce((x, x), ends, wider, tuple(axes))
    return largest, smallest
