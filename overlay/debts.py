"""Allowances that time pays off: one number for each, whoever it is for.

    spend(cost) --> owed until `now + debt + cost` --> more than `ahead` seconds of debt: refused

What somebody may do `rate` times a second costs `1 / rate` seconds each time. Who owes nothing may
spend `ahead` seconds at once.

References:
    ITU-T I.371, the generic cell rate algorithm: a bucket that is one number.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Debts(Generic[Key]):
    """What is owed, by key.

    Args:
        ahead: seconds that may be owed.
    """

    __slots__ = ("_ahead", "_owed_until")

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead
        self._owed_until: dict[Key, float] = {}  # monotonic seconds

    def __len__(self) -> int:
        """Keys of which something is owed, or was at the last `expire`."""
        return len(self._owed_until)

    def spend(self, key: Key, cost: float, now: float) -> bool:
        """Owe `cost` seconds more; False, and nothing changes, when too much is owed already.

        >>> debts = Debts[str](ahead=1.0)
        >>> [debts.spend("a", 0.75, 10.0) for _ in range(3)], debts.spend("a", 0.75, 11.0)
        ([True, True, False], True)
        """
        if self.is_spent(key, now):
            return False
        self._owed_until[key] = max(self._owed_until.get(key, now), now) + cost
        return True

    def repay(self, key: Key, cost: float) -> None:
        """What was owed for `cost` turned out to be worth it; nobody gets ahead by that.

        >>> debts = Debts[str](ahead=1.0)
        >>> debts.spend("a", 3.0, 10.0), debts.repay("a", 2.5), debts.spend("a", 1.0, 10.0)
        (True, None, True)
        """
        if key in self._owed_until:  # what is owed until a moment that has passed is nothing
            self._owed_until[key] -= cost

    def is_spent(self, key: Key, now: float) -> bool:
        """Whether nothing more can be spent at `now`."""
        return self._owed_until.get(key, now) - now >= self._ahead

    def expire(self, now: float) -> None:
        """Forget who owes nothing. To be called now and then."""
        if self._owed_until:
            self._owed_until = {k: until for k, until in self._owed_until.items() if until > now}
