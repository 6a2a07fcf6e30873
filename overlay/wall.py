"""Wall-clock time: one value for the whole node, which follows when the clock is set.

All timers run on the monotonic clock. What is signed or stored has Unix seconds: certificates,
tokens, when a pod was made, until when an address rests. Wall-clock time is `epoch + now`, and all
parts ask the same object, so setting the clock reaches them at once and moves no timer.
"""

from __future__ import annotations


class Wall:
    """Unix time of one node.

    Args:
        epoch: Unix seconds at monotonic zero.

    Attributes:
        epoch: as given, or as it is since the clock was set.
    """

    __slots__ = ("epoch",)

    def __init__(self, epoch: float) -> None:
        self.epoch = epoch

    def at(self, now: float) -> float:
        """Unix seconds at `now`, in monotonic seconds.

        >>> Wall(1000.0).at(2.5)
        1002.5
        """
        return self.epoch + now
