"""What all machines of a world share, and what makes one of them a member."""

from __future__ import annotations

from dataclasses import dataclass, field

from overlay.config import Settings
from overlay.keys import SigningKey
from overlay.sim.clock import Clock
from overlay.sim.reader import SharedReader
from overlay.sim.trace import Trace
from overlay.sim.underlay import Underlay
from overlay.wire.certificate import Identity
from overlay.wire.cluster import Cluster


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


@dataclass(frozen=True, slots=True)
class Membership:
    """What a machine has from the day it became a member, beside its changing state."""

    identity: Identity
    cluster: Cluster
    psk: bytes
    authorities: tuple[SigningKey, ...] = ()
    """Private keys of authorities, on a machine that admits others."""
