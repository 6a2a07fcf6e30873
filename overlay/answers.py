"""ICMP errors to pods whose packets cannot be routed: an answer now beats a time-out later.

Only packets that came from our own TUN are answered, at a bounded rate, so nobody outside can make
a node send anything. The errors carry the node's own pod-network address, as a router's would.

References:
    RFC 1812, section 4.3.2.8 and RFC 4443, section 2.4 (f): rate limits for ICMP errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overlay.drops import DropReason
from overlay.types import Address
from overlay.wire.icmp import IcmpError, error_reply
from overlay.wire.virtio import NO_OFFLOAD

RATE: Final = 100.0
"""Errors per second."""

BURST: Final = 20.0
"""Errors at once, after a quiet while: a traceroute needs some."""


class IcmpAnswers:
    """Writes ICMP errors to the TUN.

    Args:
        deliver: the engine's way to the TUN.
    """

    def __init__(self, deliver: Callable[[memoryview], bool]) -> None:
        self._deliver = deliver
        self._tokens = BURST
        self._filled_at = 0.0

    def answer(
        self,
        rejected: list[tuple[DropReason, bytes]],
        address: Address | None,
        address6: Address | None,
        now: float,
    ) -> int:
        """Answer the senders of `rejected` packets.

        Args:
            rejected: why, and the packet's first bytes.
            address: what to answer IPv4 from; None: IPv4 is not answered.
            address6: the same for IPv6.
            now: monotonic seconds.

        Returns:
            How many errors were written.
        """
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) * RATE)
        self._filled_at = now
        written = 0
        for _, packet in rejected:
            source = address if packet[0] >> 4 == 4 else address6
            if self._tokens < 1.0 or source is None:
                continue
            error = error_reply(IcmpError.NO_ROUTE, packet, int(source))
            if error is not None and self._deliver(memoryview(NO_OFFLOAD + error)):
                self._tokens -= 1.0
                written += 1
        return written
