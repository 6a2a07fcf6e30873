"""Who is answered while more initiations arrive than a node wants to look at.

Whoever knows a node's public key can make initiations with a valid mac1, and each costs the node an
X25519 operation before it is found out. So a node that gets too many of them is *under load*. Then
an initiation costs a few hashes, and every turn that costs more is counted:

    mac1 valid --+-- mac2 valid: its source is real ----> a turn at the handshake?   X25519
                 +-- no mac2: from anywhere, or forged -> a turn at a cookie?        sealing

Turns are for one second, and there are separate heaps of them (`Share`), so that no crowd can take
all:

    members    addresses at which a member has proved itself    handshakes only
    fair       anybody, but only so many per source and network
    any        whoever comes when there is one left

A flood from one address takes its few fair turns and the last heap; others still have the fair
one. A flood from 10,000 addresses of one network takes at most half of it. Whoever comes first gets
a turn, which among datagrams in random order is a fair lot: nobody can choose to be first, only to
send more, and that is what source and network are counted for.

An initiation for which no turn is left is dropped before anything is hashed, as is most of a flood.
Only a valid mac1 takes a turn at a cookie, only a valid mac2 one at a handshake.

    a handshake that fails, from a source that has shown mac2 -> no fair turns for that source, 60 s

So 10,000 real addresses with garbage get one look each per minute. A forged source cannot be
punished: without mac2 it is not known whose it is. Nor can it starve a victim by name, for the last
heap asks nobody.

All of this counts datagrams that have proved nothing, hence it is part of no snapshot: all that an
outsider can do with it is to make everybody show cookies and take turns. Every table here is
bounded by the number of turns, or by a constant.

References:
    WireGuard paper (Donenfeld 2017), section 5.3; WireGuard for Linux, ratelimiter.c: 20 packets a
    second per /32 or /64, after mac2. Differs from it: networks are counted, members are preferred,
    failures remembered, and so is the load, for some seconds.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address
from typing import ClassVar, Final

from overlay.types import NodeId
from overlay.wire.handed import BYTES, INT, TEXT, Handed, table

# -- implementation --------------------------------------------------------------------------------

CALM: Final = 5
"""Whole seconds, each with at most half as many initiations as begin a load, that end it."""

MEMBER_TURNS: Final = 200
"""Handshakes a second for addresses of members."""

FAIR_TURNS: Final = 400
"""Handshakes a second for all others. With garbage a turn costs less than 0.1 ms: 4 % of a core."""

ANY_TURNS: Final = 100

FAIR_COOKIES: Final = 600
"""Cookies a second; one costs some 50 microseconds with what sending takes: 4 % of a core."""

ANY_COOKIES: Final = 200

OWN_RESPONSES: Final = 4
"""Responses to one initiation that are looked at in a second whatever else comes. Each costs two
X25519 operations, and whoever sees an initiation can make them, from any address."""

ANY_RESPONSES: Final = 400
"""Further ones a second, to whichever initiations: 4 % of a core."""

PER_SOURCE: Final = 10
"""Turns a second of one IPv4 address or IPv6 /64."""

FAILED_FOR: Final = 60.0
"""Seconds without fair turns after a handshake that proved nothing."""

FAILED_LIMIT: Final = 16_384
"""Sources that are remembered to have failed, some 150 bytes each. Then the oldest is forgotten."""

MEMBERS_LIMIT: Final = 4096
"""Members whose last address is remembered. Then that of who was silent longest is forgotten."""

_SOURCE_BITS: Final = 128 - 64
_NETWORK_BITS: Final = 128 - 48

Place = str | int


def source_of(host: str) -> Place:
    """What counts as one source: an IPv4 address, or an IPv6 /64.

    >>> source_of("192.0.2.7")
    '192.0.2.7'
    >>> source_of("2001:db8::1") == source_of("2001:db8::2:2")
    True
    """
    return int(IPv6Address(host)) >> _SOURCE_BITS if ":" in host else host


def network_of(host: str) -> Place:
    """What counts as one network: an IPv4 /16, or an IPv6 /48.

    >>> network_of("192.0.2.7")
    '192.0'
    """
    if ":" in host:
        return int(IPv6Address(host)) >> _NETWORK_BITS
    return host[: host.find(".", host.find(".") + 1)]


class LoadMeter:
    """Whether more initiations arrive than this node wants to answer unasked.

    It begins at once, and ends after some calm seconds, so that it does not flap.

    Args:
        limit: initiations per second that are answered without a cookie.

    Attributes:
        loaded: whether it is so.
        rate: initiations in the last whole second in which any came.
    """

    __slots__ = ("_busy", "_count", "_limit", "_second", "loaded", "rate")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._second = 0
        self._busy = 0  # the last second that was not calm
        self._count = 0
        self.loaded = False
        self.rate = 0

    def arrived(self, now: float) -> bool:
        """Count one initiation; whether there is a load."""
        self.look(now)
        self._count += 1
        if self._count > self._limit // 2:
            self._busy = self._second
            self.loaded = self.loaded or self._count > self._limit
        return self.loaded

    def look(self, now: float) -> bool:
        """Whether there is a load at `now`."""
        if int(now) != self._second:
            self._second, self.rate, self._count = int(now), self._count, 0
            self.loaded = self.loaded and self._second - self._busy <= CALM
        return self.loaded


class Share:
    """So many turns a second, of which one source and one network get only a part.

    Args:
        total: turns a second.
        per_source: of one source (`source_of`).
        per_network: of one network (`network_of`).
    """

    __slots__ = (
        "_left",
        "_networks",
        "_per_network",
        "_per_source",
        "_second",
        "_sources",
        "total",
    )

    def __init__(self, total: int, *, per_source: int, per_network: int) -> None:
        self.total = total
        self._per_source = per_source
        self._per_network = per_network
        self._second = -1
        self._left = total
        self._sources: dict[Place, int] = {}
        self._networks: dict[Place, int] = {}

    def has_one(self, host: str, now: float) -> bool:
        """Whether there is a turn for `host`."""
        if int(now) != self._second:
            self._second, self._left = int(now), self.total
            self._sources.clear()
            self._networks.clear()
        return bool(
            self._left
            and self._sources.get(source_of(host), 0) < self._per_source
            and self._networks.get(network_of(host), 0) < self._per_network
        )

    def take(self, host: str, now: float) -> bool:
        """Take a turn, if there is one for `host`."""
        if not self.has_one(host, now):
            return False
        source, network = source_of(host), network_of(host)
        self._sources[source] = self._sources.get(source, 0) + 1
        self._networks[network] = self._networks.get(network, 0) + 1
        self._left -= 1
        return True

    def check_invariants(self) -> None:
        """Raise `AssertionError` if the tables hold more than turns were taken."""
        taken = self.total - self._left
        assert sum(self._sources.values()) == sum(self._networks.values()) == taken
        assert 0 <= taken <= self.total


class Responses:
    """Whether a response is looked at: to each initiation a few, then as long as any may be.

    It counts by initiation, not by source, for there an address is not proved; and all of them, not
    only wrong ones, for one that is authentic need not make a session. An honest member sends one.
    """

    __slots__ = ("_left", "_looks", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._left = ANY_RESPONSES
        self._looks: dict[int, int] = {}  # at most those initiations that wait

    def take(self, index: int, now: float) -> bool:
        """Look at one more response to the initiation with this index, if it may be."""
        if int(now) != self._second:
            self._second, self._left = int(now), ANY_RESPONSES
            self._looks.clear()
        looks = self._looks[index] = self._looks.get(index, 0) + 1
        if looks <= OWN_RESPONSES:
            return True
        self._left -= 1
        return self._left >= 0


def _anybody(total: int) -> Share:
    return Share(total, per_source=total, per_network=total)


def _fair(total: int) -> Share:
    return Share(total, per_source=PER_SOURCE, per_network=total // 2)


class RateLimit:
    """The turns of one node, and what it remembers of sources.

    Args:
        limit: initiations per second that are answered without a cookie.

    Attributes:
        meter: whether there is a load; turns are asked for only then.
        responses: which are looked at, load or not.
    """

    __slots__ = (
        "_any_cookies",
        "_any_turns",
        "_failed",
        "_fair_cookies",
        "_fair_turns",
        "_homes",
        "_member_turns",
        "_members",
        "meter",
        "responses",
    )

    HANDED: ClassVar = Handed(_homes=table(BYTES, TEXT), _members=table(TEXT, INT))

    def __init__(self, limit: int) -> None:
        self.meter = LoadMeter(limit)
        self._fair_cookies, self._any_cookies = _fair(FAIR_COOKIES), _anybody(ANY_COOKIES)
        self._fair_turns, self._any_turns = _fair(FAIR_TURNS), _anybody(ANY_TURNS)
        self._member_turns = Share(MEMBER_TURNS, per_source=PER_SOURCE, per_network=MEMBER_TURNS)
        self.responses = Responses()
        # Insertion order is age: both are put at the end anew.
        self._homes: dict[NodeId, str] = {}
        self._members: dict[str, int] = {}  # how many of them are there
        self._failed: dict[Place, float] = {}

    def cookie(self, host: str, now: float) -> bool:
        """Whether an initiation that does not show that it is from `host` gets a cookie."""
        return self._fair_cookies.take(host, now) or self._any_cookies.take(host, now)

    def handshake(self, host: str, now: float) -> bool:
        """Whether an initiation that shows that it is from `host` is looked at."""
        if host in self._members and self._member_turns.take(host, now):
            return True
        if not self._has_failed(host, now) and self._fair_turns.take(host, now):
            return True
        return self._any_turns.take(host, now)

    def _has_failed(self, host: str, now: float) -> bool:
        until = self._failed.get(source_of(host))
        return until is not None and now < until

    def failed(self, host: str, now: float) -> None:
        """A handshake from `host`, which was shown to be from there, proved nothing."""
        source = source_of(host)
        self._failed.pop(source, None)
        if len(self._failed) >= FAILED_LIMIT:
            del self._failed[next(iter(self._failed))]
        self._failed[source] = now + FAILED_FOR

    def is_hopeless(self, host: str, now: float, *, shows: bool) -> bool:
        """Whether there is no turn for an initiation from `host`, whatever it can prove.

        Args:
            host: where it seems to come from.
            now: monotonic seconds.
            shows: whether it has a mac2, right or wrong.
        """
        if not self.meter.loaded:
            return False
        if not shows:
            return not (
                self._any_cookies.has_one(host, now) or self._fair_cookies.has_one(host, now)
            )
        if self._any_turns.has_one(host, now):
            return False
        if self._fair_turns.has_one(host, now) and not self._has_failed(host, now):
            return False
        return not (host in self._members and self._member_turns.has_one(host, now))

    def remember(self, node: NodeId, host: str) -> None:
        """A member has proved itself at `host`. Where it was before is forgotten.

        One address for each: who has many, such as an IPv6 network, pushes no other member out.
        """
        if node not in self._homes and len(self._homes) >= MEMBERS_LIMIT:
            self._forget(next(iter(self._homes)))
        self._forget(node)
        self._homes[node] = host
        self._members[host] = self._members.get(host, 0) + 1

    def _forget(self, node: NodeId) -> None:
        host = self._homes.pop(node, None)
        if host is not None:
            self._members[host] -= 1
            if not self._members[host]:
                del self._members[host]

    def look(self, now: float) -> bool:
        """Whether there is a load at `now`; forgets what is of no use without one."""
        if not self.meter.look(now):
            self._failed.clear()
        while self._failed and (oldest := next(iter(self._failed.items())))[1] <= now:
            del self._failed[oldest[0]]
        return self.meter.loaded

    def check_invariants(self) -> None:
        """Raise `AssertionError` if a table is larger than its bound."""
        assert len(self._failed) <= FAILED_LIMIT
        assert len(self._homes) <= MEMBERS_LIMIT
        assert Counter(self._homes.values()) == self._members
        for share in (self._fair_cookies, self._any_cookies, self._fair_turns, self._any_turns):
            share.check_invariants()
        self._member_turns.check_invariants()
