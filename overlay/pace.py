"""How often a node announces its own record: at once after a pause, together after that.

    changes    x           x xx   x            x
    announced  |-interval->|--------->|        |        all that came meanwhile goes together

A node that gets a hundred pods in a second would else sign, store and send a hundred versions, each
of which every other node checks and passes on. Nobody waits for this: what was asked for is done
when it is stored.
"""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.wire.handed import SECONDS, Handed, maybe

COUNT_WAITS: Final = 2.0
"""Seconds until others learn how many free blocks this node has left, if that is all that changed.
They choose whom to ask by it; whoever gives to many would else announce as often as it gives."""


class Pace:
    """When the next announcement is due.

    Args:
        interval: least seconds between two announcements of changes that may wait.

    Attributes:
        due_at: when to announce what has changed, in monotonic seconds; None: nothing has.
    """

    __slots__ = ("_interval", "_last", "due_at")

    HANDED: ClassVar = Handed(_last=maybe(SECONDS), due_at=maybe(SECONDS))

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._last: float | None = None
        self.due_at: float | None = None

    def on_change(self, now: float, wait: float = 0.0) -> bool:
        """Something changed that can wait: whether to announce it now. If not, `due_at` says when.

        Args:
            now: monotonic seconds.
            wait: how long it may wait even after a pause, for others to go with it.
        """
        due = now + wait
        if self._last is not None:
            due = max(due, self._last + self._interval)
        self.due_at = due if self.due_at is None else min(due, self.due_at)
        return self.is_due(now)

    def is_due(self, now: float) -> bool:
        """Whether there is something to announce that has waited long enough."""
        return self.due_at is not None and now >= self.due_at

    def on_announced(self, now: float) -> None:
        """Everything is told, due or not."""
        self._last, self.due_at = now, None
