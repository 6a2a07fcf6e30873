"""How long a suspicion waits to be contradicted before it becomes a verdict.

    T = max( least,  most - (most - least) * log(c + 1) / log(k + 1) )

     most |*
          |   *                     c   others that confirm it from their own evidence
          |       *                 k   confirmations to be expected
    least |            *  *  *  *
          +-----------------------> c
           0   1   2   3 = k

One accuser alone may have a bad link, or be slow itself; so it waits longest. Each confirmation
shortens the wait. With nobody there who could confirm (k = 0), waiting for it would gain nothing.

References:
    Lifeguard (Dadgar et al. 2018), section IV.B: dynamic suspicion timeouts; K = 3.
    memberlist, `suspicion.go` and `util.go` (suspicionTimeout): how the least grows with log10 N.
"""

from __future__ import annotations

from math import log, log10
from typing import Final

from overlay.config import Timing

# -- specification ---------------------------------------------------------------------------------

CONFIRMATIONS: Final = 3
"""So many end the wait: the observers of a node in a large cluster, less the one that accuses."""


def least_timeout(members: int, timing: Timing) -> float:
    """The shortest wait in a cluster of so many members, in seconds.

    News, and a contradiction, take a time that grows with the logarithm of the cluster.

    >>> [least_timeout(members, Timing()) for members in (2, 10, 1000)]
    [4.5, 4.5, 13.5]
    """
    return timing.suspicion * timing.probe_interval * max(1.0, log10(max(members, 1)))


def timeout(confirmed: int, expected: int, least: float, most: float) -> float:
    """The wait in seconds from the moment the suspicion arose.

    Args:
        confirmed: others that have confirmed it.
        expected: others that could; `CONFIRMATIONS` of them are enough.
        least: lower bound in seconds.
        most: upper bound in seconds.

    >>> [round(timeout(confirmed, 3, 5.0, 10.0), 2) for confirmed in range(5)]
    [10.0, 7.5, 6.04, 5.0, 5.0]
    """
    enough = min(expected, CONFIRMATIONS)
    if enough <= 0:
        return least
    share = log(confirmed + 1) / log(enough + 1)
    return max(least, most - (most - least) * share)
