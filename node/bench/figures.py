"""What a measurement gives: plain values, and the JSON that programs get.

Sizes are bytes, durations seconds, rates bits per second, shares 0.0 to 1.0. What could not be
measured is None, in JSON null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["to", "from"]
"""Seen from here: `to` the peer, or `from` it."""

Json = dict[str, object]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed (nearest rank).

    Args:
        values: at least one.
        share: 0 < share <= 1.

    >>> percentile([5, 1, 4, 2, 3], 0.5), percentile([1, 2], 0.99)
    (3, 2)
    """
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(int(rank), 1) - 1]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy one machine was during a measurement.

    Attributes:
        daemon: processor time of Muslin's daemon, its worker processes included, in cores.
        busiest: that of the busiest of these processes: one cannot use more than one core.
        idle: share of the whole machine that did nothing.
        cores: how many it has.
    """

    daemon: float
    busiest: float
    idle: float
    cores: int

    def json(self) -> Json:
        """For programs."""
        return {
            "daemon": round(self.daemon, 3),
            "busiest": round(self.busiest, 3),
            "idle": round(self.idle, 3),
            "cores": self.cores,
        }


@dataclass(frozen=True, slots=True)
class Stream:
    """TCP in one direction: all streams together.

    Attributes:
        direction: as seen from here.
        size: bytes that arrived.
        seconds: from the first byte to the last.
        segments: that the sender sent; 0 where the kernel does not say.
        again: how many of them were retransmissions.
        here, there: how busy the two machines were; None if that could not be read.
    """

    direction: Direction
    size: int
    seconds: float
    segments: int = 0
    again: int = 0
    here: Load | None = None
    there: Load | None = None

    @property
    def rate(self) -> float:
        """Bits per second."""
        return self.size * 8 / self.seconds if self.seconds > 0 else 0.0

    @property
    def repeated(self) -> float:
        """The share of segments that had to be sent again."""
        return self.again / self.segments if self.segments else 0.0

    def json(self) -> Json:
        """For programs."""
        return {
            "direction": self.direction,
            "bytes": self.size,
            "seconds": round(self.seconds, 6),
            "bits_per_second": round(self.rate),
            "segments": self.segments,
            "retransmits": self.again,
            "here": self.here.json() if self.here else None,
            "there": self.there.json() if self.there else None,
        }


@dataclass(frozen=True, slots=True)
class Datagrams:
    """Paced UDP datagrams that the far end sends back.

    Attributes:
        sent: how many.
        arrived: at the far end.
        rtts: seconds there and back, of those that came back.
    """

    sent: int
    arrived: int
    rtts: Sequence[float] = field(default=(), repr=False)

    @property
    def loss(self) -> float:
        """Share that did not arrive."""
        return max(0.0, 1.0 - self.arrived / self.sent) if self.sent else 0.0

    @property
    def loss_back(self) -> float:
        """Share of the answers that did not come back."""
        return max(0.0, 1.0 - len(self.rtts) / self.arrived) if self.arrived else 0.0

    def percentile(self, share: float) -> float | None:
        """The round trip that `share` of all did not exceed; None if nothing came back.

        >>> Datagrams(4, 4, [0.3, 0.1, 0.2, 0.4]).percentile(0.5)
        0.2
        """
        return percentile(self.rtts, share) if self.rtts else None

    def json(self) -> Json:
        """For programs."""
        p50, p99 = self.percentile(0.5), self.percentile(0.99)
        return {
            "sent": self.sent,
            "arrived": self.arrived,
            "returned": len(self.rtts),
            "loss": round(self.loss, 6),
            "loss_back": round(self.loss_back, 6),
            "rtt_p50": None if p50 is None else round(p50, 6),
            "rtt_p99": None if p99 is None else round(p99, 6),
        }


@dataclass(slots=True)
class Way:
    """One way to the peer: through the overlay, or beside it.

    Attributes:
        address: the peer's on that way; empty: it has none there.
        streams: one per direction that was measured.
        datagrams: None if they were not measured.
        faults: what could not be measured and why, one clause each.
    """

    address: str
    streams: list[Stream] = field(default_factory=list)
    datagrams: Datagrams | None = None
    faults: list[str] = field(default_factory=list)

    def stream(self, direction: Direction) -> Stream | None:
        """What was measured in one direction, if it was."""
        return next((one for one in self.streams if one.direction == direction), None)

    def json(self) -> Json:
        """For programs."""
        return {
            "address": self.address or None,
            "tcp": [stream.json() for stream in self.streams],
            "udp": self.datagrams.json() if self.datagrams else None,
            "faults": self.faults,
        }


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that was measured."""

    overlay: Way
    underlay: Way

    def ratio(self, direction: Direction) -> float | None:
        """Overlay / underlay; None where one of them is missing."""
        through, beside = self.overlay.stream(direction), self.underlay.stream(direction)
        return through.rate / beside.rate if through and beside and beside.rate else None
