"""The route table: which node a packet goes to, and since when.

Whoever knows the cluster announces; the table finds out what changed. The packet path asks
`lookup4` and `lookup6`.

    all announcements --replace--+
                                 +--> one LongestPrefixMatch per family --> entries (for people)
    what has changed --update----+

Two nodes that announce one prefix would be a defect elsewhere (a block has one owner). Should it
happen, the lower node id wins on every node, so that at least all agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from overlay.routing.lpm import IPV4_BITS, IPV6_BITS, LongestPrefixMatch, Place
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


class Route(NamedTuple):
    """What is kept of a route beside its prefix.

    Routes that appeared together have one: as a rule both families of a node's block.
    """

    node: NodeId
    origin: str
    since: float


class Changes(NamedTuple):
    """What an update changed. A route whose node changed is in both."""

    added: tuple[Entry, ...]
    removed: tuple[Entry, ...]


class RouteTable:
    """All routes of one node, its own blocks included."""

    __slots__ = ("_entries", "_ipv4", "_ipv6", "generation", "lookup4", "lookup6")

    def __init__(self) -> None:
        self.generation = 0
        """Grows whenever a route changes."""
        self._ipv4: LongestPrefixMatch[Route, NodeId] = LongestPrefixMatch(IPV4_BITS, _node_of)
        self._ipv6: LongestPrefixMatch[Route, NodeId] = LongestPrefixMatch(IPV6_BITS, _node_of)
        self._entries: tuple[Entry, ...] | None = ()  # made when somebody asks
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
        gone = [entry.prefix for entry in self.entries() if entry.prefix not in chosen]
        return self.update(chosen.values(), gone, now)

    def update(
        self, added: Iterable[Announcement], removed: Iterable[Prefix], now: float
    ) -> Changes:
        """Change these routes and no others; costs what they are, not what the table holds.

        Args:
            added: take the place of whatever has their prefix; each prefix once.
            removed: prefixes nobody takes packets to any more. Unknown ones do not matter, and one
                that is added as well is there afterwards.
            now: monotonic seconds.
        """
        lost = {prefix: old for prefix in removed if (old := self._get(prefix)) is not None}
        new: list[tuple[Prefix, Route]] = []
        route: Route | None = None
        for prefix, node, origin in added:
            # Hashing a prefix takes longer than all else here.
            old = lost.pop(prefix, None) if lost else None
            if old is None:
                old = self._get(prefix)
            if old is not None:
                if (old.node, old.origin) == (node, origin):
                    continue
                lost[prefix] = old
            if route is None or (route.node, route.origin) != (node, origin):
                route = Route(node, origin, now)
            new.append((prefix, route))
        if new or lost:
            self.generation += 1
            self._entries = None
            for matching, version in ((self._ipv4, 4), (self._ipv6, 6)):
                matching.update(
                    [one for one in new if one[0].version == version],
                    [prefix for prefix in lost if prefix.version == version],
                )
        return Changes(
            tuple(Entry(prefix, *route) for prefix, route in new),
            tuple(Entry(prefix, *route) for prefix, route in lost.items()),
        )

    def entries(self) -> tuple[Entry, ...]:
        """All routes: IPv4 before IPv6, then by address, shorter prefixes first."""
        if self._entries is None:
            held = [*self._ipv4.items(), *self._ipv6.items()]
            self._entries = tuple(sorted((Entry(one, *route) for one, route in held), key=_order))
        return self._entries

    def places(self) -> list[tuple[int, Place]]:
        """Where all routes are, in any order, for `at`: who looks at a few need not sort them."""
        families = (4, self._ipv4), (6, self._ipv6)
        return [(version, place) for version, family in families for place in family.places()]

    def at(self, version: int, place: Place) -> Entry:
        """The route at one of the `places`."""
        prefix, route = (self._ipv4 if version == 4 else self._ipv6).at(place)
        return Entry(prefix, *route)

    def first_at(self, version: int, place: Place) -> tuple[int, NodeId]:
        """The first address of such a route, as an integer, and its node; much cheaper."""
        first, route = (self._ipv4 if version == 4 else self._ipv6).first_at(place)
        return first, route.node

    def home(self, prefix: Prefix) -> NodeId | None:
        """The node of the route to exactly this prefix."""
        route = self._get(prefix)
        return None if route is None else route.node

    def get(self, prefix: Prefix) -> Entry | None:
        """The route to exactly this prefix."""
        route = self._get(prefix)
        return None if route is None else Entry(prefix, *route)

    def __len__(self) -> int:
        return len(self._ipv4) + len(self._ipv6)

    def _get(self, prefix: Prefix) -> Route | None:
        return (self._ipv4 if prefix.version == 4 else self._ipv6).get(prefix)

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        self._ipv4.check_invariants()
        self._ipv6.check_invariants()
        held = dict([*self._ipv4.items(), *self._ipv6.items()])
        assert {entry.prefix: entry[1:] for entry in self.entries()} == held
        assert self.entries() == tuple(sorted(self.entries(), key=_order))


def _node_of(route: Route) -> NodeId:
    return route.node


def _order(entry: Entry) -> tuple[int, int, int]:
    prefix = entry.prefix
    return prefix.version, int(prefix.network_address), prefix.prefixlen
