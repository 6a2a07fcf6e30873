"""Longest-prefix match, the obvious way: look at every prefix, keep the longest that contains.

This is the definition; `overlay.routing.lpm` is the same thing made fast, and its tests compare the
two on random tables.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from overlay.types import Prefix

Target = TypeVar("Target")


class SlowMatch(Generic[Target]):
    """Prefixes of one address family and their targets; every lookup looks at all of them."""

    def __init__(self) -> None:
        self._targets: dict[Prefix, Target] = {}

    def insert(self, prefix: Prefix, target: Target) -> None:
        """Add a prefix, or change its target."""
        self._targets[prefix] = target

    def remove(self, prefix: Prefix) -> None:
        """Forget a prefix; nothing happens if it is not there."""
        self._targets.pop(prefix, None)

    def lookup(self, address: int) -> Target | None:
        """The target of the longest prefix that contains `address`; None if none does."""
        best: Prefix | None = None
        for prefix in self._targets:
            first, last = int(prefix.network_address), int(prefix.broadcast_address)
            if first <= address <= last and (best is None or prefix.prefixlen > best.prefixlen):
                best = prefix
        return None if best is None else self._targets[best]
