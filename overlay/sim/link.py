"""A path between two machines that may lose, repeat, delay and reorder what it carries.

A `Link` says what a path is like; a `Pipe` is one direction of it and decides the fate of each
datagram, with seeded randomness:

    sent ---> larger than the MTU? ---> room in the queue? ---> lost? ---> delay ---> held back?
                    | lost silently           |                   |     latency + jitter,  |
                    v (a black hole)          v dropped           v     never overtaking   v
                                                                           repeated? ---> arrives

A link with a `rate` sends one datagram after the other and drops what its queue has no room for.
Loss comes evenly (`loss`), in bursts (the `bad_` settings), or both. Jitter alone keeps the order,
as one queue does; `reordering` says how many datagrams fall behind. With `coalesce`, the datagrams
of one segmented send that arrive together are read together, as the kernel's receive offload does.

    burst loss      GOOD --bad_enter--> BAD        a datagram in BAD is lost with `bad_loss`;
                         <--bad_leave--            each datagram may change the state

References:
    Linux tc-netem(8): the same knobs, and the warning that jitter there reorders.
    Gilbert 1960, "Capacity of a burst-noise channel"; Elliott 1963: loss with two states.
    Bolot 1993, "End-to-end packet delay and loss behavior in the Internet": delays have a floor
    and a long tail, hence `exponential`.
    Linux Documentation/networking/segmentation-offloads.rst: what UDP_GRO joins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from overlay.errors import ConfigError
from overlay.sim.lots import Lots

MIN_MTU = 576
"""The smallest packet every IPv4 host must take (RFC 1122, section 3.3.2)."""


class Lost(StrEnum):
    """Why a datagram did not arrive."""

    CHANCE = "chance"  #: the link's loss
    QUEUE = "queue"  #: the link's queue was full
    TOO_BIG = "too_big"  #: larger than the link's MTU, and nobody says so
    CUT = "cut"  #: the two machines are partitioned
    NOWHERE = "nowhere"  #: no machine has this address
    DOWN = "down"  #: the machine there does not run
    FULL = "full"  #: the machine there does not read and its socket buffer is full
    FILTERED = "filtered"  #: the NAT there does not let it in


class Spread(StrEnum):
    """How the extra delay of a send is distributed; `Link.jitter` is its size."""

    UNIFORM = "uniform"  #: evenly between zero and `jitter`
    NORMAL = "normal"  #: the absolute value of a normal distribution, `jitter` its deviation
    EXPONENTIAL = "exponential"  #: mostly little, sometimes much; `jitter` is the mean


@dataclass(frozen=True, slots=True)
class Link:
    """What one path is like, the same in both directions. Durations are seconds."""

    latency: float = 0.01
    """One way."""
    jitter: float = 0.0
    """Each send takes up to this much longer (see `spread`), but overtakes none."""
    spread: Spread = Spread.UNIFORM
    """How the extra delay is distributed."""
    rate: float = 0.0
    """Bits per second in each direction, IP and UDP headers included; 0 is no limit."""
    queue: int = 262_144
    """Bytes that wait in front of a link with a rate; what comes on top is dropped."""
    loss: float = 0.0
    """Share of datagrams that vanish, 0.0 to 1.0."""
    bad_enter: float = 0.0
    """Chance per datagram that a bad time begins."""
    bad_leave: float = 0.2
    """Chance per datagram that it ends: 0.2 makes it five datagrams long on average."""
    bad_loss: float = 1.0
    """Share of datagrams that vanish in a bad time."""
    duplication: float = 0.0
    """Share of datagrams that arrive twice."""
    reordering: float = 0.0
    """Share of datagrams that are held back so that later ones overtake them."""
    held_back: float = 0.02
    """How long at most a datagram is held back, or its duplicate comes late."""
    mtu: int = 1500
    """Largest IP packet; a larger one is lost without a word."""
    coalesce: bool = False
    """Whether the receiver reads datagrams of one send that arrive together as one buffer."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a value is out of its range. Nothing else.
        """
        for key in ("loss", "duplication", "reordering", "bad_enter", "bad_leave", "bad_loss"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise ConfigError(f"a link's {key} is a share between 0.0 and 1.0", key)
        for key in ("latency", "jitter", "held_back", "rate", "queue"):
            if getattr(self, key) < 0.0:
                raise ConfigError(f"a link's {key} cannot be negative", key)
        if self.mtu < MIN_MTU:
            raise ConfigError(f"a link's mtu is at least {MIN_MTU}", "mtu")

    @classmethod
    def lan(cls) -> Self:
        """One switch: a quarter of a millisecond, nothing lost."""
        return cls(latency=0.00025, jitter=0.00005)

    @classmethod
    def wan(cls) -> Self:
        """Across a continent: 40 ms, a long tail of delays, 100 Mbit/s, losses in bursts."""
        return cls(
            latency=0.04,
            jitter=0.003,
            spread=Spread.EXPONENTIAL,
            rate=100e6,
            loss=0.0005,
            bad_enter=0.0005,
            bad_leave=0.25,
            bad_loss=0.5,
            reordering=0.001,
            held_back=0.005,
        )

    @classmethod
    def satellite(cls) -> Self:
        """A geostationary hop: 280 ms, 20 Mbit/s, rain."""
        return cls(
            latency=0.28, jitter=0.01, rate=20e6, bad_enter=0.001, bad_leave=0.1, bad_loss=0.7
        )

    @classmethod
    def terrible(cls) -> Self:
        """Everything goes wrong, and often: a bad wireless uplink."""
        return cls(
            latency=0.05, jitter=0.03, loss=0.1, duplication=0.05, reordering=0.1, held_back=0.1
        )


class Fate(NamedTuple):
    """What becomes of one datagram.

    Attributes:
        datagram: it.
        arrivals: when it arrives; two times when it is duplicated, none when it is lost.
        lost: why it is lost, None when it is not.
    """

    datagram: bytes
    arrivals: tuple[float, ...]
    lost: Lost | None


class Read(NamedTuple):
    """What one read from the receiving socket returns.

    Attributes:
        at: when.
        buffer: a datagram, or several back to back.
        segment_size: size of each but the last; 0 when there is one.
    """

    at: float
    buffer: bytes
    segment_size: int


class Pipe:
    """One direction of a link.

    Args:
        link: what the path is like; may be replaced at any time.
        lots: decide all fates.
    """

    __slots__ = ("_bad", "_free_at", "_last_at", "_lots", "link")

    def __init__(self, link: Link, lots: Lots) -> None:
        self.link = link
        self._lots = lots
        self._last_at = 0.0
        self._free_at = 0.0
        self._bad = False

    def carry(self, burst: bytes, segment_size: int, overhead: int, now: float) -> list[Fate]:
        """Decide the fate of each datagram of one send.

        Args:
            burst: what the sender handed to its kernel.
            segment_size: size of each datagram but the last; 0 when there is one.
            overhead: bytes of IP and UDP header in front of each datagram.
            now: seconds of virtual time.
        """
        link = self.link
        room = link.mtu - overhead
        # One delay for all: they leave back to back, and without a rate there is no spacing.
        delay = link.latency + (self._extra(link) if link.jitter else 0.0)
        if link.rate:
            return [
                self._queued(datagram, room, overhead, delay, now=now)
                for datagram in cut(burst, segment_size)
            ]
        at = self._last_at = max(now + delay, self._last_at)
        return [self._fate(datagram, room, at) for datagram in cut(burst, segment_size)]

    def _extra(self, link: Link) -> float:
        draw = self._lots.random
        match link.spread:
            case Spread.UNIFORM:
                return link.jitter * draw()
            case Spread.NORMAL:  # Box and Muller 1958, of which it takes one half
                radius = math.sqrt(-2.0 * math.log(1.0 - draw()))
                return link.jitter * radius * abs(math.cos(math.tau * draw()))
            case Spread.EXPONENTIAL:
                return link.jitter * -math.log(1.0 - draw())

    def _queued(
        self, datagram: bytes, room: int, overhead: int, delay: float, *, now: float
    ) -> Fate:
        """The fate of a datagram that has to wait for those in front of it."""
        link = self.link
        if len(datagram) > room:
            return Fate(datagram, (), Lost.TOO_BIG)
        size = len(datagram) + overhead
        begins = max(now, self._free_at)
        waiting = (begins - now) * link.rate / 8
        if waiting and waiting + size > link.queue:
            return Fate(datagram, (), Lost.QUEUE)
        self._free_at = begins + size * 8 / link.rate
        at = self._last_at = max(self._free_at + delay, self._last_at)
        return self._fate(datagram, room, at)

    def _fate(self, datagram: bytes, room: int, at: float) -> Fate:
        link, lots = self.link, self._lots
        if len(datagram) > room:
            return Fate(datagram, (), Lost.TOO_BIG)
        if link.loss and lots.random() < link.loss:
            return Fate(datagram, (), Lost.CHANCE)
        if link.bad_enter and self._is_lost_in_bad_time():
            return Fate(datagram, (), Lost.CHANCE)
        if link.reordering and lots.random() < link.reordering:
            return Fate(datagram, (at + link.held_back * lots.random(),), None)
        if link.duplication and lots.random() < link.duplication:
            return Fate(datagram, (at, at + link.held_back * lots.random()), None)
        return Fate(datagram, (at,), None)

    def _is_lost_in_bad_time(self) -> bool:
        link, lots = self.link, self._lots
        change = link.bad_leave if self._bad else link.bad_enter
        if lots.random() < change:
            self._bad = not self._bad
        return self._bad and lots.random() < link.bad_loss

    def reads(self, fates: list[Fate], segment_size: int) -> list[Read]:
        """What the receiver's socket returns for the datagrams of one send, in order of sending."""
        if not self.link.coalesce or not segment_size:
            return [Read(at, fate.datagram, 0) for fate in fates for at in fate.arrivals]
        return _coalesced(fates, segment_size)


def cut(burst: bytes, segment_size: int) -> list[bytes]:
    """The datagrams that the kernel makes of one send.

    >>> cut(b"abcde", 2), cut(b"abcde", 0)
    ([b'ab', b'cd', b'e'], [b'abcde'])
    """
    if not segment_size or len(burst) <= segment_size:
        return [burst]
    return [burst[at : at + segment_size] for at in range(0, len(burst), segment_size)]


def _coalesced(fates: list[Fate], segment_size: int) -> list[Read]:
    """Join what arrives at one time; duplicates come by themselves.

    Only the last datagram of a send may be short, so only the last of a run is.
    """
    runs: dict[float, list[bytes]] = {}
    late: list[Read] = []
    for fate in fates:
        for at in fate.arrivals[:1]:
            runs.setdefault(at, []).append(fate.datagram)
        late += [Read(at, fate.datagram, 0) for at in fate.arrivals[1:]]
    reads = [
        Read(at, b"".join(run), segment_size if len(run) > 1 else 0) for at, run in runs.items()
    ]
    return reads + late
