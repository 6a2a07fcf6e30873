"""Address translation between a group of machines and the rest of the underlay.

    192.168.0.2:6875 --+                     +-- 198.18.0.9:6875
    192.168.0.3:6875 --+-- NAT 198.18.0.1 ---+
                           :1024, :1025 ..   +-- 198.18.0.12:6875

A machine behind it reaches everybody; a mapping from its address to a public port is made when it
sends. What may come back in through that port is the kind:

    full-cone            anything                              one port for all destinations
    address-restricted   from addresses it has sent to         one port for all destinations
    port-restricted      from endpoints it has sent to         one port for all destinations
    symmetric            from the one endpoint it is for       a port for each destination

A mapping that nothing was sent over for `timeout` seconds is gone; the next one gets another port.
Sending renews it, receiving does not. There is no hairpin: machines behind one NAT reach each
other by their private addresses only.

References:
    RFC 3489, section 5: the four kinds. RFC 4787: mapping and filtering as separate behaviours;
    REQ-5 (timeouts: two minutes or more; many devices take 30 s), REQ-6 (outbound traffic renews).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from overlay.types import Endpoint

FIRST_PORT: Final = 1024
LAST_PORT: Final = 65535

TIMEOUT: Final = 120.0
"""Seconds (RFC 4787, REQ-5)."""


class NatKind(StrEnum):
    """What a NAT lets in (RFC 3489, section 5)."""

    FULL_CONE = "full-cone"
    ADDRESS_RESTRICTED = "address-restricted"
    PORT_RESTRICTED = "port-restricted"
    SYMMETRIC = "symmetric"


@dataclass(slots=True)
class _Mapping:
    port: int
    inside: Endpoint
    sent: dict[Endpoint, float] = field(default_factory=dict)
    """Where to, and when last."""
    used_at: float = 0.0


class Nat:
    """One device that translates.

    Args:
        name: of the device, for the trace and for links.
        host: its public address.
        kind: what it lets in.
        timeout: seconds after which an unused mapping is gone.
    """

    __slots__ = ("_by_port", "_by_source", "_next_port", "host", "kind", "name", "timeout")

    def __init__(
        self, name: str, host: str, kind: NatKind = NatKind.SYMMETRIC, timeout: float = TIMEOUT
    ) -> None:
        self.name = name
        self.host = host
        self.kind = kind
        self.timeout = timeout
        self._by_source: dict[tuple[Endpoint, Endpoint | None], _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}
        self._next_port = FIRST_PORT

    def outbound(self, inside: Endpoint, destination: Endpoint, now: float) -> Endpoint:
        """What `destination` sees as the source of a datagram that `inside` sends it."""
        key = (inside, destination if self.kind is NatKind.SYMMETRIC else None)
        mapping = self._by_source.get(key)
        if mapping is None or self._expired(mapping, now):
            mapping = self._by_source[key] = _Mapping(self._free_port(now), inside)
            self._by_port[mapping.port] = mapping
        mapping.sent[destination] = mapping.used_at = now
        return Endpoint(self.host, mapping.port)

    def inbound(self, port: int, source: Endpoint, now: float) -> Endpoint | None:
        """Whom a datagram from `source` to the public `port` is for; None if it is not let in."""
        mapping = self._by_port.get(port)
        if mapping is None or self._expired(mapping, now):
            return None
        match self.kind:
            case NatKind.FULL_CONE:
                let_in = True
            case NatKind.ADDRESS_RESTRICTED:
                let_in = any(self._fresh(mapping, to, now, host=source.host) for to in mapping.sent)
            case _:
                let_in = self._fresh(mapping, source, now, host=source.host)
        return mapping.inside if let_in else None

    def _fresh(self, mapping: _Mapping, to: Endpoint, now: float, host: str) -> bool:
        sent_at = mapping.sent.get(to)
        return to.host == host and sent_at is not None and now - sent_at < self.timeout

    def _expired(self, mapping: _Mapping, now: float) -> bool:
        return now - mapping.used_at >= self.timeout

    def _free_port(self, now: float) -> int:
        """The next port in turn that no living mapping has; the oldest living one gives way."""
        for _ in range(FIRST_PORT, LAST_PORT + 1):
            port = self._next_port
            self._next_port = port + 1 if port < LAST_PORT else FIRST_PORT
            mapping = self._by_port.get(port)
            if mapping is None or self._expired(mapping, now):
                return port
        return min(self._by_port.values(), key=lambda mapping: mapping.used_at).port
