"""Flows: the two addresses of a packet, and whose they are.

    IPv4 packet   |4.| ... |source|dest.|          flow =  8 bytes
    IPv6 packet   |6.| ... |   source   |   destination   |   flow = 32 bytes

Both directions ask the same of every packet: do its lengths add up, and may it go where it wants
to? The second answer is the same for all packets of a flow. So it is looked up once, in the route
table, and then remembered under the addresses as they lie in the packet: one dictionary hit.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple, Protocol

from overlay.types import NodeId
from overlay.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE

MAX_FLOWS: Final = 4096
"""Flows remembered per direction; forgotten all at once, which a scan cannot exploit for more than
the cost of looking up routes."""

_V4: Final = Struct(">BxH8x8s").unpack_from
_V6: Final = Struct(">4xH2x32s").unpack_from
_V4_FLOW_SIZE: Final = 8


class Routes(Protocol):
    """Longest-prefix match from an address (as int) to the node that owns it."""

    def lookup4(self, address: int, /) -> NodeId | None:
        """Owner of an IPv4 address."""
        ...

    def lookup6(self, address: int, /) -> NodeId | None:
        """Owner of an IPv6 address."""
        ...


class Owners(NamedTuple):
    """Who owns the ends of a flow; None for an address that nobody owns."""

    source: NodeId | None
    destination: NodeId | None


def flow_untrusted(buffer: memoryview, start: int, end: int) -> bytes | None:
    """The flow of the IP packet that fills `buffer[start:end]`.

    Returns:
        None when it is neither IPv4 nor IPv6, or when its own idea of its length is another.
    """
    size = end - start
    if size < IPV4_HEADER_SIZE:
        return None
    first, length, flow = _V4(buffer, start)
    if first >> 4 == 4:
        header_size = (first & 15) << 2
        return flow if length == size and IPV4_HEADER_SIZE <= header_size <= size else None
    if first >> 4 != 6 or size < IPV6_HEADER_SIZE:
        return None
    payload, flow = _V6(buffer, start)
    return flow if payload + IPV6_HEADER_SIZE == size else None


def with_ports(buffer: memoryview, start: int, end: int) -> bytes:
    """Addresses and ports of the TCP or UDP packet in `buffer[start:end]`: what tells its flow.

    With IP options or extension headers it is something that tells it from most others.
    """
    if buffer[start] >> 4 == 4:
        return bytes(buffer[start + 12 : min(start + 24, end)])
    return bytes(buffer[start + 8 : min(start + 44, end)])


def ends(flow: bytes) -> tuple[int, int, int]:
    """IP version, source and destination of a flow.

    >>> ends(bytes([10, 0, 0, 1, 10, 0, 0, 2]))
    (4, 167772161, 167772162)
    """
    half = len(flow) // 2
    version = 4 if len(flow) == _V4_FLOW_SIZE else 6
    return version, int.from_bytes(flow[:half], "big"), int.from_bytes(flow[half:], "big")


def owners(routes: Routes, flow: bytes) -> Owners:
    """Look both ends of a flow up."""
    version, source, destination = ends(flow)
    lookup = routes.lookup4 if version == 4 else routes.lookup6
    return Owners(lookup(source), lookup(destination))
