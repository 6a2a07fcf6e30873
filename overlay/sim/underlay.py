"""The network under the overlay: addresses, the links between them, and what is cut.

    machine --send--> NAT of the sender --> whose address? cut? --> pipe (one per direction)
            --> later: still theirs? cut? --> receive

Every pair of machines has a link of its own; what it is like is said for two machines, for two
groups, or for all, and what was said last holds. Randomness is seeded per direction, so a datagram
more between two machines does not change the fate of those between two others.

Machines behind one NAT reach each other by their private addresses; from elsewhere those are
nobody's. A datagram to a NAT's public address is for whom the NAT says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Final, NamedTuple

from overlay.sim.clock import Clock
from overlay.sim.faults import Cuts
from overlay.sim.link import Fate, Link, Lost, Pipe, Read, cut
from overlay.sim.lots import Lots
from overlay.sim.nat import Nat
from overlay.sim.trace import Trace
from overlay.types import Endpoint

Receive = Callable[[bytes, int, Endpoint], Lost | None]
"""`receive(buffer, segment_size, source)`: what one read from the socket returned. Says why it was
lost, when it was."""


NOWHERE: Final = Endpoint("", 0)
"""Nobody's address."""

FILTERED: Final = Endpoint("filtered", 0)
"""Where datagrams go that a NAT does not let in."""


class _Host(NamedTuple):
    name: str
    receive: Receive


class _Rule(NamedTuple):
    """The links between two groups, which may grow later."""

    one: Collection[str]
    other: Collection[str]
    link: Link

    def covers(self, source: str, destination: str) -> bool:
        return (source in self.one and destination in self.other) or (
            source in self.other and destination in self.one
        )


class Underlay:
    """Carries datagrams between the machines of a world.

    Args:
        seed: of all links.
        clock: the world's.
        trace: where every datagram is written down.
        link: what every path is like of which nothing else is said.
    """

    def __init__(self, *, seed: str, clock: Clock, trace: Trace, link: Link) -> None:
        self._seed = seed
        self._clock = clock
        self._trace = trace
        self._link = link
        self._rules: list[_Rule] = []
        self._behind: dict[Endpoint, Nat] = {}
        self._nats: dict[str, Nat] = {}  # by public address
        self._hosts: dict[Endpoint, _Host] = {}
        self._pipes: dict[tuple[str, str], Pipe] = {}
        self.cuts = Cuts()

    def put_behind(self, endpoint: Endpoint, nat: Nat) -> None:
        """Whoever has this address, which nobody has yet, is behind a NAT."""
        self._behind[endpoint] = self._nats[nat.host] = nat

    def attach(self, name: str, endpoint: Endpoint, receive: Receive) -> None:
        """A machine has this address from now on."""
        self._hosts[endpoint] = _Host(name, receive)

    def detach(self, endpoint: Endpoint) -> None:
        """No machine has this address any more; what is under way to it arrives nowhere."""
        del self._hosts[endpoint]

    def set_link(self, source: str, destination: str, link: Link) -> None:
        """Replace the link between two machines, both ways."""
        self._pipe(source, destination).link = link
        self._pipe(destination, source).link = link

    def set_links(self, one: Collection[str], other: Collection[str], link: Link) -> None:
        """Replace the links between two groups, both ways; who joins a group later, included."""
        self._rules.append(_Rule(one, other, link))
        self._apply(self._rules[-1].covers, link)

    def set_all_links(self, link: Link) -> None:
        """Replace every link there is and will be."""
        self._link = link
        self._rules.clear()
        self._apply(lambda _source, _destination: True, link)

    def _apply(self, covers: Callable[[str, str], bool], link: Link) -> None:
        for (source, destination), pipe in self._pipes.items():
            if covers(source, destination):
                pipe.link = link

    def _pipe(self, source: str, destination: str) -> Pipe:
        pipe = self._pipes.get((source, destination))
        if pipe is None:
            lots = Lots(f"{self._seed}/link/{source}/{destination}")
            said = [rule.link for rule in self._rules if rule.covers(source, destination)]
            link = said[-1] if said else self._link
            pipe = self._pipes[source, destination] = Pipe(link, lots)
        return pipe

    def send(
        self, name: str, source: Endpoint, destination: Endpoint, burst: bytes, segment_size: int
    ) -> None:
        """One send of the machine `name`: a datagram, or several of `segment_size` bytes each."""
        now = self._clock.now
        inside, seen = destination, source
        if self._nats:
            inside, seen = self._translate(source, destination)
        host = self._hosts.get(inside)
        if host is None or self.cuts.severed(name, host.name):
            why = Lost.CUT if host else Lost.FILTERED if inside is FILTERED else Lost.NOWHERE
            far = str(destination) if host is None else host.name
            for datagram in cut(burst, segment_size):
                self._trace.passage(name, far, Fate(datagram, (), why), now)
            return
        pipe = self._pipe(name, host.name)
        fates = pipe.carry(burst, segment_size, destination.ip_overhead, now)
        for fate in fates:
            self._trace.passage(name, host.name, fate, now)
        for read in pipe.reads(fates, segment_size):
            self._clock.at(read.at, partial(self._arrive, name, seen, inside, host, read))

    def _translate(self, source: Endpoint, destination: Endpoint) -> tuple[Endpoint, Endpoint]:
        """Whom a datagram is for in the end, and whom it seems to be from there."""
        now = self._clock.now
        near, far = self._behind.get(source), self._nats.get(destination.host)
        private = self._behind.get(destination)
        if private is not None:
            return (destination if private is near else NOWHERE), source
        seen = source if near is None else near.outbound(source, destination, now)
        if far is None:
            return destination, seen
        inside = None if far is near else far.inbound(destination.port, seen, now)
        return inside or FILTERED, seen

    def _arrive(
        self, name: str, source: Endpoint, destination: Endpoint, host: _Host, read: Read
    ) -> None:
        lost: Lost | None
        if self.cuts.severed(name, host.name):
            lost = Lost.CUT
        elif self._hosts.get(destination) is not host:
            lost = Lost.NOWHERE
        else:
            lost = host.receive(read.buffer, read.segment_size, source)
        if lost is not None:
            self._trace.lost(name, host.name, lost, self._clock.now)
