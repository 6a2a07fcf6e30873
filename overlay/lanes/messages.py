"""What the daemon and the processes of its other lanes say to each other.

Orders go from the daemon to a worker, reports the other way. Each is one msgpack array, its number
first, in one packet of a socket pair: whole, in order, from a process of the same user. Both ends
run the same code, so there is no extension rule; what does not decode is a defect.

    orders     1 Local  2 Routes  3 Peer  4 PeerGone  5 Key  6 KeyGone  7 Use  8 Down  9 Answered
    reports    1 Ready  2 Stats   3 Traffic  4 Wanted  5 Probed  6 TooBig  7 Failed
               8 Worn
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, get_args

from overlay.errors import WireError
from overlay.session.suites import KEY_SIZE
from overlay.session.transport import Keypair
from overlay.types import NodeId, Prefix
from overlay.wire.messages import LANES_LIMIT
from overlay.wire.packing import Fields, pack

MESSAGE_LIMIT: Final = 64_000
"""Bytes of one message: well below what a socket pair takes at once by default (212,992)."""

PER_MESSAGE: Final = 100
"""Prefixes, or peers, in one message; longer lists are several messages."""

LANE_KEYS_SIZE: Final = 2 * KEY_SIZE
"""Of the keys for one lane of the peer: to send, to receive."""


@dataclass(frozen=True, slots=True)
class Local:
    """The node's own addresses in the pod network, as text; empty: none. ICMP errors bear them."""

    address: str
    address6: str


@dataclass(frozen=True, slots=True)
class Routes:
    """Routes that are new or go to another node, and prefixes that are routed no more."""

    added: Sequence[tuple[NodeId, bytes]]
    """(node, prefix), packed by `pack_prefix`."""
    removed: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer is known, or something about it has changed."""

    node: NodeId
    host: str
    """Of its lane 0 in the underlay; empty while no endpoint is known."""
    port: int
    path_mtu: int
    lanes: int
    up: int
    """Bit i: its lane i receives."""
    live: bool
    """Whether the daemon has a session with it."""
    singly: bool
    """Whether the kernel must not cut bursts to it (`overlay.trials`)."""


@dataclass(frozen=True, slots=True)
class PeerGone:
    """The peer is no member any more: forget its keys and all else."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Key:
    """A keypair of a session, as this lane may use it."""

    node: NodeId
    index: int
    remote_index: int
    suite: int
    created_at: float
    """Monotonic seconds: one clock for all processes of a machine."""
    expires_at: float
    keys: bytes = field(repr=False)
    """For lane 0, 1, .. 15 of the peer: `LANE_KEYS_SIZE` bytes each."""


@dataclass(frozen=True, slots=True)
class KeyGone:
    """The daemon no longer uses the keypair; what is on its way under it may still arrive."""

    index: int


@dataclass(frozen=True, slots=True)
class Use:
    """Seal under this keypair as soon as the peer is known to have it; 0: there is none."""

    node: NodeId
    index: int


@dataclass(frozen=True, slots=True)
class Down:
    """No session with the peer will come: what waits for it is lost."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Answered:
    """The peer answered this lane's probe."""

    node: NodeId
    token: int


Order = Local | Routes | Peer | PeerGone | Key | KeyGone | Use | Down | Answered


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has its TUN queue and its port, and no keys: from here on it may get some."""


@dataclass(frozen=True, slots=True)
class Stats:
    """All counters of the worker since it was born; see `overlay.views.LedgerView`."""

    received: int
    sent: int
    queued: int
    drops: Sequence[tuple[str, int]]
    """(reason, count)."""
    cpu: float
    """Seconds of processor time."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counters of peers that have changed since they were last reported."""

    peers: Sequence[tuple[NodeId, int, int, float | None, Sequence[tuple[str, int]]]]
    """(node, tx_bytes, rx_bytes, heard_at or None, drops as in `Stats`)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Packets wait for a session with these nodes."""

    nodes: Sequence[NodeId]


@dataclass(frozen=True, slots=True)
class Probed:
    """A `LaneProbe` of a peer arrived at this lane: answer it."""

    node: NodeId
    lane: int
    token: int


@dataclass(frozen=True, slots=True)
class TooBig:
    """The kernel refused datagrams to this peer as larger than the interface's MTU."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot go on, and ends; `why` is one clause."""

    why: str


@dataclass(frozen=True, slots=True)
class Worn:
    """This lane has used its part of the session's keypairs with these nodes up to the count."""

    nodes: Sequence[NodeId]


LaneReport = Ready | Stats | Traffic | Wanted | Probed | TooBig | Failed | Worn

_ORDERS: Final = get_args(Order)
_REPORTS: Final = get_args(LaneReport)
_NUMBERS: Final = {
    kind: number for kinds in (_ORDERS, _REPORTS) for number, kind in enumerate(kinds, 1)
}
_NAMES: Final = {kind: tuple(one.name for one in fields(kind)) for kind in _NUMBERS}


def encode(message: Order | LaneReport) -> bytes:
    """The msgpack form of an order or report.

    >>> decode_order(encode(Answered(NodeId(b"n"), 7)))
    Answered(node=b'n', token=7)
    """
    kind = type(message)
    return pack([_NUMBERS[kind], *[getattr(message, name) for name in _NAMES[kind]]])


def decode_order(data: bytes) -> Order:
    """Read what `encode` made of an order.

    Raises:
        WireError: it did not. Nothing else.
    """
    order: Order = _decode(data, _ORDERS)
    return order


def decode_report(data: bytes) -> LaneReport:
    """Read what `encode` made of a report.

    Raises:
        WireError: it did not. Nothing else.
    """
    report: LaneReport = _decode(data, _REPORTS)
    return report


def _decode(data: bytes, kinds: tuple[Any, ...]) -> Any:  # noqa: ANN401 - one of `kinds`
    message = Fields.unpack_untrusted(data, MESSAGE_LIMIT, "lane message", count=1)
    kind = kinds[message.integer(0, 1, len(kinds)) - 1]
    names = _NAMES[kind]
    if len(message) != len(names) + 1:
        raise WireError(f"lane message: {len(message) - 1} fields where {len(names)} are needed")
    return kind(*[message.any(place) for place in range(1, len(message))])


def pack_prefix(prefix: Prefix) -> bytes:
    """A prefix as the bytes of its address and its length.

    >>> pack_prefix(IPv4Network("10.1.0.0/16")).hex()
    '0a01000010'
    """
    return prefix.network_address.packed + bytes((prefix.prefixlen,))


def route_changes(was: Mapping[Prefix, NodeId], routes: Mapping[Prefix, NodeId]) -> list[Routes]:
    """What tells a worker that knows the routes `was` to have `routes`; withdrawals first."""
    added = [
        (node, pack_prefix(prefix)) for prefix, node in routes.items() if was.get(prefix) != node
    ]
    removed = [pack_prefix(prefix) for prefix in was if prefix not in routes]
    return [
        *(Routes([], removed[at : at + PER_MESSAGE]) for at in range(0, len(removed), PER_MESSAGE)),
        *(Routes(added[at : at + PER_MESSAGE], []) for at in range(0, len(added), PER_MESSAGE)),
    ]


def unpack_prefix(packed: bytes) -> Prefix:
    """What `pack_prefix` packed."""
    address, length = packed[:-1], packed[-1]
    return IPv4Network((address, length)) if len(address) == 4 else IPv6Network((address, length))


def lane_keys(keys: bytes, lane: int) -> tuple[bytes, bytes]:
    """The keys to send to and to receive from lane `lane` of the peer, out of `Key.keys`."""
    assert 0 <= lane < LANES_LIMIT
    at = lane * LANE_KEYS_SIZE
    return keys[at : at + KEY_SIZE], keys[at + KEY_SIZE : at + LANE_KEYS_SIZE]


def key_of(node: NodeId, keypair: Keypair, lane: int) -> Key:
    """What our lane `lane`, 1 to 15, may have of a keypair of the session with `node`."""
    return Key(
        node=node,
        index=keypair.local_index,
        remote_index=keypair.remote_index,
        suite=int(keypair.suite),
        created_at=keypair.created_at,
        expires_at=keypair.expires_at,
        keys=b"".join(
            part for remote in range(LANES_LIMIT) for part in keypair.lane_split(lane, remote)
        ),
    )
