"""Random numbers for many at once: a seeded stream whose whole state is one 64-bit integer.

A world has two pipes for each pair of machines that ever talked, and each pipe draws from a stream
of its own. `random.Random` holds 2.5 kB, a stream of this kind a fortieth of it.

    seed --hash--> state --+ GAMMA--> state --+ GAMMA--> state ...
                             |                  |
                            mix                mix           each result shows nothing of the state
                             v                  v            next to it

References:
    Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators": SplitMix64.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import Final

# -- specification ---------------------------------------------------------------------------------

GAMMA: Final = 0x9E37_79B9_7F4A_7C15
"""What the state grows by: odd, so that it takes every value before one comes again."""

_MASK: Final = (1 << 64) - 1
_FLOAT_BITS: Final = 53
"""Of a float between 0 and 1."""


class Lots:
    """One stream.

    Args:
        seed: equal seeds make equal streams.
    """

    __slots__ = ("_state",)

    def __init__(self, seed: str) -> None:
        digest = blake2s(seed.encode(), digest_size=8).digest()
        self._state = int.from_bytes(digest, "big")

    def random(self) -> float:
        """The next number, 0.0 <= number < 1.0."""
        self._state = state = (self._state + GAMMA) & _MASK
        return (mix(state) >> 64 - _FLOAT_BITS) / (1 << _FLOAT_BITS)


def mix(state: int) -> int:
    """Sixty-four bits that all depend on all bits of `state`.

    >>> hex(mix(GAMMA))
    '0xe220a8397b1dcdaf'
    """
    state = (state ^ state >> 30) * 0xBF58_476D_1CE4_E5B9 & _MASK
    state = (state ^ state >> 27) * 0x94D0_49BB_1331_11EB & _MASK
    return state ^ state >> 31
