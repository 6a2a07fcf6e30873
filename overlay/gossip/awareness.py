"""Is it them, or is it me? A node that has reason to doubt itself is slower to accuse others.

    score    0 ... 8       all is well ... this node hears little, or late, of anything
    timeout  x 1 ... x 9

The score rises when something happens that a healthy node does not see: its own timers come late,
it has to contradict a suspicion of itself, those it asked for help did not even decline. It falls
with each probe that is answered in time.

References:
    Lifeguard (Dadgar et al. 2018), section IV.A: local health multiplier, and what moves it.
"""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.wire.handed import INT, Handed

# -- specification ---------------------------------------------------------------------------------

HIGHEST: Final = 8
"""Lifeguard's S: a probe of a node at the end of its wits waits nine times as long."""


class Awareness:
    """The local health score of one node: 0 is healthy.

    Attributes:
        score: 0 to `HIGHEST`.
    """

    __slots__ = ("score",)

    HANDED: ClassVar = Handed(score=INT)

    def __init__(self) -> None:
        self.score = 0

    def apply(self, delta: int) -> None:
        """Something good (negative) or bad (positive) was noticed."""
        self.score = min(max(self.score + delta, 0), HIGHEST)

    def scale(self, timeout: float) -> float:
        """`timeout`, as long as this node should wait at present."""
        return timeout * (1 + self.score)
