"""The highest rate that gets through nearly whole, in few tries.

From a rate that is known to be too much, go down in equal ratios until one gets through; then halve
the gap between that one and the lowest that did not. Each try costs a second, and what is tried is
noisy, so the answer is the best that was seen to get through, not the end of a bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from bench.parse import Datagrams

MOST_LOSS: Final = 0.01
"""Share of datagrams that may be lost."""

STEP: Final = 0.7
"""Ratio of one try to the next on the way down."""

TRIES: Final = 6


def highest_rate(
    attempt: Callable[[float], Datagrams], start: float, *, tries: int = TRIES
) -> float:
    """The highest delivered rate at a loss of at most `MOST_LOSS`.

    Args:
        attempt: sends at a rate, in datagrams per second, and says what arrived.
        start: the first rate to try.
        tries: how often `attempt` may be called.

    Returns:
        Datagrams per second; 0 when nothing that was tried got through.
    """
    best, passed, failed = 0.0, 0.0, math.inf
    rate = start
    for _ in range(tries):
        seen = attempt(rate)
        if seen.loss <= MOST_LOSS:
            best, passed = max(best, seen.delivered), rate
        else:
            failed = rate
        rate = _next(passed, failed)
    return best


def _next(passed: float, failed: float) -> float:
    if not passed:
        return failed * STEP
    if failed == math.inf:
        return passed / STEP
    return math.sqrt(passed * failed)
