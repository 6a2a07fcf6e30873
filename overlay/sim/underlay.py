"""The network under the overlay: addresses, the links between them, and what is cut.

    machine --send--> cut? --> pipe (one per direction) --> later: still there? cut? --> receive

Every pair of machines has a link of its own. Randomness is seeded per direction, so a datagram
more between two machines does not change the fate of those between two others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from overlay.config import Settings
from overlay.sim.clock import Clock
from overlay.sim.faults import Cuts
from overlay.sim.link import Fate, Link, Lost, Pipe, Read, cut
from overlay.sim.reader import SharedReader
from overlay.sim.trace import Trace
from overlay.types import Endpoint
from overlay.wire.cluster import Cluster

Receive = Callable[[bytes, int, Endpoint], Lost | None]
"""`receive(buffer, segment_size, source)`: what one read from the socket returned. Says why it was
lost, when it was."""


class _Host(NamedTuple):
    name: str
    receive: Receive


class Underlay:
    """Carries datagrams between the machines of a world.

    Args:
        seed: of all links.
        clock: the world's.
        trace: where every datagram is written down.
        link: what every path is like that `set_link` does not name.
    """

    def __init__(self, *, seed: str, clock: Clock, trace: Trace, link: Link) -> None:
        self._seed = seed
        self._clock = clock
        self._trace = trace
        self._link = link
        self._hosts: dict[Endpoint, _Host] = {}
        self._pipes: dict[tuple[str, str], Pipe] = {}
        self.cuts = Cuts()

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

    def _pipe(self, source: str, destination: str) -> Pipe:
        pipe = self._pipes.get((source, destination))
        if pipe is None:
            rng = random.Random(f"{self._seed}/link/{source}/{destination}")
            pipe = self._pipes[source, destination] = Pipe(self._link, rng)
        return pipe

    def send(
        self, name: str, source: Endpoint, destination: Endpoint, burst: bytes, segment_size: int
    ) -> None:
        """One send of the machine `name`: a datagram, or several of `segment_size` bytes each."""
        host = self._hosts.get(destination)
        if host is None or self.cuts.severed(name, host.name):
            why = Lost.NOWHERE if host is None else Lost.CUT
            far = str(destination) if host is None else host.name
            for datagram in cut(burst, segment_size):
                self._trace.passage(name, far, Fate(datagram, (), why), self._clock.now)
            return
        pipe = self._pipe(name, host.name)
        fates = pipe.carry(burst, segment_size, destination.ip_overhead, self._clock.now)
        for fate in fates:
            self._trace.passage(name, host.name, fate, self._clock.now)
        for read in pipe.reads(fates, segment_size):
            self._clock.at(read.at, partial(self._arrive, name, source, destination, host, read))

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


@dataclass(frozen=True, slots=True)
class Site:
    """What all machines of a world share."""

    clock: Clock
    trace: Trace
    underlay: Underlay
    settings: Settings
    epoch: float
    """Unix seconds at virtual time zero."""
    readers: dict[Cluster, SharedReader] = field(default_factory=dict)

    def reader(self, cluster: Cluster) -> SharedReader:
        """What all nodes of a cluster read items with."""
        reader = self.readers.get(cluster)
        if reader is None:
            reader = self.readers[cluster] = SharedReader(cluster, self.settings.limits)
        return reader
