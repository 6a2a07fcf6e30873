"""The route table: which node a packet goes to, and since when.

It is derived, never edited: whoever knows the cluster computes all announcements and calls
`replace`; the table finds out what changed. The packet path asks `lookup4` and `lookup6`.

    announcements --replace--> entries (for people) + one LongestPrefixMatch per family

Two nodes that announce one prefix would be a defect elsewhere (a block has one owner). Should it
happen, the lower node id wins on every node, so that at least all agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from overlay.routing.lpm import IPV4_BITS, IPV6_BITS, LongestPrefixMatch
from overlay.types import NodeId, Prefix


class Announcement(NamedTuple):
    """A node takes packets to a prefix."""

    prefix: Prefix
    node: NodeId
    origin: str
    """Where this is known from; `block`: the node owns and uses the address block."""


class Entry(NamedTuple):
    """One route in use."""

    prefix: Prefix
    node: NodeId
    origin: str
    since: float
    """Monotonic seconds when it appeared in this form."""


class Changes(NamedTuple):
    """What a `replace` changed. A route whose node changed is in both."""

    added: tuple[Entry, ...]
    removed: tuple[Entry, ...]


class RouteTable:
    """All routes of one node, its own blocks included."""

    __slots__ = ("_entries", "_ipv4", "_ipv6", "generation", "lookup4", "lookup6")

    def __init__(self) -> None:
        self.generation = 0
        """Grows whenever a route changes."""
        self._entries: dict[Prefix, Entry] = {}
        self._ipv4: LongestPrefixMatch[NodeId] = LongestPrefixMatch(IPV4_BITS)
        self._ipv6: LongestPrefixMatch[NodeId] = LongestPrefixMatch(IPV6_BITS)
        # Bound once: a method in between would double the cost of a cached lookup.
        self.lookup4 = self._ipv4.lookup
        """The node that takes packets to an IPv4 address (as an integer); None if nobody does."""
        self.lookup6 = self._ipv6.lookup
        """The same for IPv6."""

    def replace(self, announcements: Iterable[Announcement], now: float) -> Changes:
        """Hold exactly these routes. Those that were there before keep their `since`."""
        chosen: dict[Prefix, Announcement] = {}
        for one in announcements:
            other = chosen.get(one.prefix)
            if other is None or (one.node, one.origin) < (other.node, other.origin):
                chosen[one.prefix] = one
        before = self._entries
        self._entries = {}
        for prefix in sorted(chosen, key=_order):
            fresh = Entry(*chosen[prefix], now)
            old = before.get(prefix)
            self._entries[prefix] = old if old is not None and old[:-1] == fresh[:-1] else fresh
        added = tuple(e for e in self._entries.values() if before.get(e.prefix) is not e)
        removed = tuple(e for e in before.values() if self._entries.get(e.prefix) is not e)
        if added or removed:
            self.generation += 1
            self._rebuild()
        return Changes(added, removed)

    def _rebuild(self) -> None:
        entries = self._entries.values()
        self._ipv4.replace_all((e.prefix, e.node) for e in entries if e.prefix.version == 4)
        self._ipv6.replace_all((e.prefix, e.node) for e in entries if e.prefix.version == 6)

    def entries(self) -> tuple[Entry, ...]:
        """All routes: IPv4 before IPv6, then by address, shorter prefixes first."""
        return tuple(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        self._ipv4.check_invariants()
        self._ipv6.check_invariants()
        matched = dict([*self._ipv4.items(), *self._ipv6.items()])
        assert matched == {prefix: entry.node for prefix, entry in self._entries.items()}
        assert all(prefix == entry.prefix for prefix, entry in self._entries.items())


def _order(prefix: IPv4Network | IPv6Network) -> tuple[int, int, int]:
    return prefix.version, int(prefix.network_address), prefix.prefixlen
