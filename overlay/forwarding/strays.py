"""Packets of members whose ends are not where they should be: who sent them, if that is a lie.

    from an address of another node  --> looked at again `PATIENCE` later: still another's?
    from an address of nobody        --> the same, but only if it goes on that long
    to an address that is not here   --> if it goes on for `PATIENCE`

An honest node sends nothing of the kind for long. It may for a moment: its new block, or the one
that this node gave up, is known to one of the two and not yet to the other.

Only what is dropped anyway comes here, and of each member one packet of each kind is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from overlay.faults import Fault
from overlay.forwarding.flow import Routes, ends, owners
from overlay.types import NodeId

# -- implementation --------------------------------------------------------------------------------

PATIENCE: Final = 2.0
"""Seconds that routes may take to be the same at both ends. News takes a round trip per hop."""

FORGET_AFTER: Final = 10.0
"""Seconds without another packet after which what was remembered is dropped."""

MOST: Final = 1024
"""Packets remembered, one of each member and fault. A member more is not judged until one goes."""


class _Stray:
    """The first packet of its kind from a member, and what came since."""

    __slots__ = ("count", "first", "flow", "last")

    def __init__(self, flow: bytes, now: float) -> None:
        self.flow = flow
        self.first = self.last = now
        self.count = 0


class Named(NamedTuple):
    """Who sent packets that no honest node sends, how many, and where one of them was from."""

    node: NodeId
    fault: Fault
    packets: int
    evidence: str


class Strays:
    """What is remembered of stray packets."""

    __slots__ = ("_strays",)

    def __init__(self) -> None:
        self._strays: dict[tuple[NodeId, Fault], _Stray] = {}

    def note(self, node: NodeId, fault: Fault, flow: bytes, packets: int, now: float) -> None:
        """`packets` of this flow came from `node` and were dropped."""
        stray = self._strays.get((node, fault))
        if stray is None:
            if len(self._strays) >= MOST:
                return
            stray = self._strays[node, fault] = _Stray(flow, now)
        stray.last = now
        stray.count += packets

    def judge(
        self,
        routes: Routes,
        local: NodeId,
        now: float,
        *,
        offered: Callable[[NodeId, int, int], bool] = lambda _node, _version, _address: False,
    ) -> list[Named]:
        """Who must have lied. To be called about once a second.

        Args:
            routes: whose which address is now.
            local: this node.
            now: monotonic seconds.
            offered: whether a node may take an address (of an IP version) for its own although it
                is not routed to it here: it advertises it with consent.
        """
        named: list[Named] = []
        for (node, fault), stray in list(self._strays.items()):
            if now - stray.first < PATIENCE:
                continue
            source, destination = owners(routes, stray.flow)
            lasts = stray.last - stray.first >= PATIENCE
            if fault is Fault.FOREIGN_SOURCE:
                settled = source == node or offered(node, *ends(stray.flow)[:2])
                lies = not settled and (source is not None or lasts)
            else:
                lies = destination != local and lasts
                settled = destination == local
            if lies:
                named.append(Named(node, fault, stray.count, _evidence(stray.flow)))
            if lies or settled or now - stray.last >= FORGET_AFTER:
                del self._strays[node, fault]
        return named


def _evidence(flow: bytes) -> str:
    version, source, destination = ends(flow)
    kind = IPv4Address if version == 4 else IPv6Address
    return f"a packet from {kind(source)} to {kind(destination)}"
