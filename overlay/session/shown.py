"""What sessions show of themselves: all state without keys, comparable with `==`."""

from __future__ import annotations

from dataclasses import dataclass

from overlay.types import Endpoint, NodeId


@dataclass(frozen=True, slots=True)
class PeerSnapshot:
    """All state of one peer, without its keys."""

    node: NodeId
    static: bytes
    valid_until: float
    endpoint: Endpoint | None
    observed: Endpoint | None
    stamp: int
    keypairs: tuple[tuple[int, bool, int] | None, ...]
    """Previous, current, next, then what is leaving: local index, confirmed, bursts sent."""
    attempt: int | None
    tries: int
    cookie_until: float
    established_at: float | None
    deadlines: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class SessionsSnapshot:
    """All state of a node's sessions, without keys. Equal before and after a refused datagram."""

    peers: tuple[PeerSnapshot, ...]
    indexes: tuple[tuple[int, ...], ...]
    """Of keypairs, of pending handshakes, of half-open keypairs."""
    joiners: tuple[tuple[int, bytes, bool], ...]
    """Of half-open keypairs that belong to joiners: index, token id, confirmed."""
    next_deadline: float | None
