"""What the packet path needs to know of one peer, in one object of plain attributes.

The engine keeps it up to date (session, endpoint, segment size); the packet path only reads those
and keeps its own counters, what is packed for it and the queue of packets that wait for a session.
"""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.drops import DropReason
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import burst_limit, segment_payload
from overlay.wire.handed import (
    BOOL,
    BYTES,
    ENDPOINT,
    INT,
    SECONDS,
    Handed,
    many,
    maybe,
    member,
    table,
)

BASE_PATH_MTU: Final = 1280
"""Assumed until a probe was answered: IPv6's minimum, which every real path carries."""


class PeerPath:
    """One peer, as forwarding sees it.

    Attributes:
        node: whose path this is.
        awaited: whether packets may wait although no endpoint is known: it was asked for.
        endpoint: where its datagrams go; None until one is known.
        keypair: seals for it; None without a session.
        payload: ciphertext bytes per segment on the present path.
        burst: largest plaintext that leaves in one send on that path.
        carried: bursts of packets sent since its segment size was last forgotten.
        spans: where in the arena its packed blocks lie: start, end, start, end, ...
        fill: bytes packed and not yet sealed; `packed` counts those packets.
        queue: blocks waiting for a session.
        heard_at: when a burst of it was last authenticated.
        tx_elsewhere: bytes that other lanes sent to it.
        used: grows with each burst of packets and each message that is not about the path itself.
        drops: why things to or from this peer were lost.
    """

    __slots__ = (
        "awaited",
        "burst",
        "carried",
        "drops",
        "endpoint",
        "fill",
        "heard_at",
        "keypair",
        "node",
        "packed",
        "path_mtu",
        "payload",
        "queue",
        "queued_bytes",
        "rx_bytes",
        "spans",
        "tx_bytes",
        "tx_elsewhere",
        "used",
    )

    HANDED: ClassVar = Handed(
        endpoint=maybe(ENDPOINT),
        awaited=BOOL,
        heard_at=maybe(SECONDS),
        **dict.fromkeys(("carried", "used", "rx_bytes", "tx_bytes", "tx_elsewhere"), INT),
        drops=table(member(DropReason), INT),
        queue=many(BYTES),
        queued_bytes=INT,
    )

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.awaited = False
        self.endpoint: Endpoint | None = None
        self.keypair: Keypair | None = None
        self.path_mtu = BASE_PATH_MTU
        self.payload = segment_payload(BASE_PATH_MTU, 48)
        self.burst = burst_limit(self.payload)
        self.carried = 0
        self.spans: list[int] = []
        self.fill = 0
        self.packed = 0
        self.queue: list[bytes] = []
        self.queued_bytes = 0
        self.heard_at: float | None = None
        self.tx_bytes = 0
        self.rx_bytes = 0
        self.tx_elsewhere = 0
        self.used = 0
        self.drops: dict[DropReason, int] = {}

    def use(self, endpoint: Endpoint | None, path_mtu: int) -> None:
        """Send to `endpoint` from now on, in IP packets of at most `path_mtu` bytes."""
        self.endpoint = endpoint
        self.path_mtu = path_mtu
        self.payload = segment_payload(path_mtu, endpoint.ip_overhead if endpoint else 48)
        self.burst = burst_limit(self.payload)

    def unpack(self) -> int:
        """Forget what is packed; how many packets it was."""
        packets = self.packed
        self.spans = []
        self.fill = self.packed = 0
        return packets
