"""The books of a node: every thing read ends in exactly one counter.

Three things are read: packets from the TUN, datagrams from the underlay, packets (and control
messages) found inside an opened burst. Each is counted once when it is read and once when its fate
is known:

    read            = handed on        + waiting            + lost
    tun_in            sent_out           queued packets       drops[reason]
    datagrams_in      consumed_out       queued segments
    opened_in         tun_out

`consumed_out` is what became something else: segments that made up an opened burst, handshake and
control messages that were understood.
"""

from __future__ import annotations

from typing import ClassVar

from overlay.drops import DropReason
from overlay.views import LedgerView
from overlay.wire.handed import INT, Handed, member, table


class Ledger:
    """Plain counters, incremented by the packet path."""

    __slots__ = (
        "consumed_out",
        "datagrams_in",
        "drops",
        "opened_in",
        "queued_packets",
        "queued_segments",
        "sent_out",
        "tun_in",
        "tun_out",
    )

    HANDED: ClassVar = Handed(
        **dict.fromkeys(("tun_in", "datagrams_in", "opened_in"), INT),
        **dict.fromkeys(("sent_out", "consumed_out", "tun_out"), INT),
        **dict.fromkeys(("queued_packets", "queued_segments"), INT),
        drops=table(member(DropReason), INT),
    )

    def __init__(self) -> None:
        self.tun_in = 0
        self.datagrams_in = 0
        self.opened_in = 0
        self.sent_out = 0
        self.consumed_out = 0
        self.tun_out = 0
        self.queued_packets = 0
        self.queued_segments = 0
        self.drops: dict[DropReason, int] = {}

    def drop(self, reason: DropReason, count: int = 1) -> None:
        """Count `count` things as lost to `reason`."""
        self.drops[reason] = self.drops.get(reason, 0) + count

    def view(self) -> LedgerView:
        """The totals as users see them."""
        return LedgerView(
            received=self.tun_in + self.datagrams_in + self.opened_in,
            sent=self.sent_out + self.consumed_out + self.tun_out,
            queued=self.queued_packets + self.queued_segments,
            drops={str(reason): count for reason, count in sorted(self.drops.items())},
        )

    def check_invariants(self) -> None:
        """Assert that the books balance. Holds whenever no verb is being executed."""
        view = self.view()
        lost = sum(view.drops.values())
        assert view.received == view.sent + view.queued + lost, (view, lost)
        assert self.queued_packets >= 0
        assert self.queued_segments >= 0
