"""Wall-clock time: one value for the whole node, which follows when the clock is set.

All timers run on the monotonic clock. What is signed or stored has Unix seconds: certificates,
tokens, when a pod was made, until when an address rests. Wall-clock time is `epoch + now`, and all
parts ask the same object, so setting the clock reaches them at once and moves no timer.
"""

from __future__ import annotations

from typing import Final

_DAYS_TO_1970: Final = 719_468
"""From 0000-03-01 to 1970-01-01."""
_DAYS_OF_ERA: Final = 146_097
"""400 years."""


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


def rfc3339(unix: int) -> str:
    """Unix seconds as RFC 3339, in UTC.

    The core has no library that also knows what time it is, so this counts the days itself.

    Args:
        unix: 0 or more, before the year 10000.

    References:
        Hinnant 2013, "chrono-Compatible Low-Level Date Algorithms": civil_from_days. Years begin
        in March there, so that the day that may be missing is the last one.

    >>> rfc3339(1_800_000_000)
    '2027-01-15T08:00:00Z'
    """
    days, second = divmod(unix, 86_400)
    era, day = divmod(days + _DAYS_TO_1970, _DAYS_OF_ERA)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153  # from March on
    day -= (153 * month + 2) // 5
    year += era * 400 + (month >= 10)
    month += -9 if month >= 10 else 3
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{year:04}-{month:02}-{day + 1:02}T{clock}Z"


def remaining(seconds: float) -> str:
    """How much time is left, in the largest unit of which there are two at least.

    >>> [remaining(left) for left in (7_689_600, 90_000.5, 59)]
    ['89 d', '25 h', '59 s']
    """
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} s"
