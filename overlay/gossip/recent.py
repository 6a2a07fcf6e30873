"""A bounded memory of ids that are not wanted any more: in two halves, the older one forgotten.

    young   fills up, or grows old --> becomes old; the old one before it is forgotten

An id is remembered for one to two lives after it was added, unless more than `LIMIT` others came.
To forget one too early costs one item that is fetched for nothing; to remember one for ever would
make a refusal final that rested on another item, which came later.
"""

from __future__ import annotations

from typing import Final

# -- implementation --------------------------------------------------------------------------------

LIMIT: Final = 8192
"""Ids in each half."""

LIFE: Final = 60.0
"""Seconds after which the halves change places, for what will never be wanted again."""

SHORT_LIFE: Final = 3.0
"""The same for what was refused: a list of authorities that makes it good may be on its way, or its
owner has written too much for the moment."""


class Recent:
    """The memory.

    Args:
        life: seconds after which the halves change places.
    """

    __slots__ = ("_life", "_old", "_turned_at", "_young")

    def __init__(self, life: float = LIFE) -> None:
        self._life = life
        # Keys of a dict, which grows by doubling: a set grows four times as large at once.
        self._young: dict[bytes, None] = {}
        self._old: dict[bytes, None] = {}
        self._turned_at = float("-inf")

    def __contains__(self, one: bytes) -> bool:
        return one in self._young or one in self._old

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self, one: bytes) -> None:
        """Remember an id."""
        self._young[one] = None
        if len(self._young) >= LIMIT:
            self._turn()

    def on_time(self, now: float) -> None:
        """Forget what is old. To be called now and then."""
        if now - self._turned_at >= self._life:
            self._turned_at = now
            self._turn()

    def _turn(self) -> None:
        self._old, self._young = self._young, {}
