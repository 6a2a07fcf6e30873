"""Whether every pod reaches every other, by one datagram in each direction and family."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from node.kernel import netns
from tests.support.traffic import FAMILIES

PORT = 5300
AGAIN = 1.0
"""Seconds until what has not arrived is sent again: a session may have to be made first."""


class Pod(Protocol):
    """What this needs of a pod."""

    @property
    def name(self) -> str: ...
    @property
    def netns(self) -> str: ...
    def at(self, family: int) -> str: ...


def unreached(pods: Sequence[Pod], within: float) -> list[str]:
    """Pairs of pods that nothing passes between, as text; empty if there is none.

    Args:
        pods: all of them.
        within: seconds after which what has not arrived never does.
    """
    with ExitStack() as stack:
        ends: dict[tuple[str, int], socket.socket] = {}
        for pod in pods:
            for family in FAMILIES:
                end = stack.enter_context(
                    netns.run_in(pod.netns, socket.socket, FAMILIES[family], socket.SOCK_DGRAM)
                )
                end.setblocking(False)
                end.bind((pod.at(family), PORT))
                ends[pod.name, family] = end
        missing = {
            (a.name, b.name, family) for a in pods for b in pods for family in FAMILIES if a != b
        }
        where = {(pod.name, family): pod.at(family) for pod in pods for family in FAMILIES}
        whose = {(address, family): name for (name, family), address in where.items()}
        deadline = time.monotonic() + within
        while missing and time.monotonic() < deadline:
            for a, b, family in sorted(missing):
                try:
                    ends[a, family].sendto(b"there?", (where[b, family], PORT))
                except OSError:
                    continue  # no route yet, or an error that came back for an earlier one
            until = time.monotonic() + AGAIN
            while missing and (wait := until - time.monotonic()) > 0:
                ready, _, _ = select.select(list(ends.values()), [], [], wait)
                for (name, family), end in ends.items():
                    if end in ready:
                        for address in _arrived(end):
                            missing.discard((whose.get((address, family), ""), name, family))
    return [f"{a} does not reach {b} by IPv{family}" for a, b, family in sorted(missing)]


def _arrived(end: socket.socket) -> list[str]:
    """Where all that is there came from."""
    came = []
    while True:
        try:
            came.append(str(end.recvfrom(64)[1][0]))
        except OSError:
            return came
