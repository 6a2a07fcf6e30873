"""A path between two machines that may lose, repeat, delay and reorder what it carries.

A `Link` says what a path is like; a `Pipe` is one direction of it and decides the fate of each
datagram, with seeded randomness:

    sent ---> larger than the MTU? ---> lost? ---> delay ---> held back? ---> repeated? ---> arrives
                    | lost silently      |          latency + jitter,   later ones      a second
                    v (a black hole)     v          never overtaking    overtake it     time, later

Jitter alone keeps the order, as one queue does; `reordering` says how many datagrams fall behind.
With `coalesce`, the datagrams of one segmented send that arrive together are read together, as
the kernel's receive offload does it.

References:
    Linux tc-netem(8): the same knobs, and the warning that jitter there reorders.
    Linux Documentation/networking/segmentation-offloads.rst: what UDP_GRO joins.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from overlay.errors import ConfigError

MIN_MTU = 576
"""The smallest packet every IPv4 host must take (RFC 1122, section 3.3.2)."""


class Lost(StrEnum):
    """Why a datagram did not arrive."""

    CHANCE = "chance"  #: the link's loss
    TOO_BIG = "too_big"  #: larger than the link's MTU, and nobody says so
    CUT = "cut"  #: the two machines are partitioned
    NOWHERE = "nowhere"  #: no machine has this address
    DOWN = "down"  #: the machine there does not run
    FULL = "full"  #: the machine there is paused and its socket buffer is full


@dataclass(frozen=True, slots=True)
class Link:
    """What one path is like, the same in both directions. Durations are seconds."""

    latency: float = 0.01
    """One way."""
    jitter: float = 0.0
    """Each send takes up to this much longer, but overtakes none."""
    loss: float = 0.0
    """Share of datagrams that vanish, 0.0 to 1.0."""
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
        for key in ("loss", "duplication", "reordering"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise ConfigError(f"a link's {key} is a share between 0.0 and 1.0", key)
        for key in ("latency", "jitter", "held_back"):
            if getattr(self, key) < 0.0:
                raise ConfigError(f"a link's {key} cannot be negative", key)
        if self.mtu < MIN_MTU:
            raise ConfigError(f"a link's mtu is at least {MIN_MTU}", "mtu")

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
        rng: decides all fates.
    """

    __slots__ = ("_last_at", "_rng", "link")

    def __init__(self, link: Link, rng: random.Random) -> None:
        self.link = link
        self._rng = rng
        self._last_at = 0.0

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
        delay = link.latency + (link.jitter * self._rng.random() if link.jitter else 0.0)
        at = self._last_at = max(now + delay, self._last_at)
        return [self._fate(datagram, room, at) for datagram in cut(burst, segment_size)]

    def _fate(self, datagram: bytes, room: int, at: float) -> Fate:
        link, rng = self.link, self._rng
        if len(datagram) > room:
            return Fate(datagram, (), Lost.TOO_BIG)
        if link.loss and rng.random() < link.loss:
            return Fate(datagram, (), Lost.CHANCE)
        if link.reordering and rng.random() < link.reordering:
            return Fate(datagram, (at + link.held_back * rng.random(),), None)
        if link.duplication and rng.random() < link.duplication:
            return Fate(datagram, (at, at + link.held_back * rng.random()), None)
        return Fate(datagram, (at,), None)

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
