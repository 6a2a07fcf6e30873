"""A machine's UDP socket: its address, what it sent and received, and what waits to be read.

The kernel below it segments large sends, except for peers for which that was switched off
(`SetOffload`): their datagrams leave one by one.
"""

from __future__ import annotations

from overlay.sim.inbox import Inbox
from overlay.sim.link import cut
from overlay.sim.metrics import Traffic
from overlay.sim.underlay import Receive, Underlay
from overlay.types import Endpoint


class Port:
    """The socket of one machine.

    Args:
        name: of the machine.
        endpoint: its underlay address.
        underlay: the network it is attached to, from here on.
        receive: called with each read.

    Attributes:
        inbox: what waits while the machine does not read.
        singly: whom its kernel segments nothing for.
        traffic: what it sent and received.
    """

    __slots__ = ("_name", "_receive", "_underlay", "endpoint", "inbox", "singly", "traffic")

    def __init__(self, name: str, endpoint: Endpoint, underlay: Underlay, receive: Receive) -> None:
        self._name = name
        self.endpoint = endpoint
        self._underlay = underlay
        self._receive = receive
        self.singly: set[Endpoint] = set()
        self.inbox = Inbox()
        self.traffic = Traffic()
        underlay.attach(name, endpoint, receive)

    def move(self, endpoint: Endpoint) -> None:
        """Have another address from now on."""
        self._underlay.detach(self.endpoint)
        self.endpoint = endpoint
        self._underlay.attach(self._name, endpoint, self._receive)

    def segment(self, endpoint: Endpoint, on: bool) -> None:
        """Whether sends to `endpoint` may leave in segments."""
        (self.singly.discard if on else self.singly.add)(endpoint)

    def send(self, endpoint: Endpoint, datagrams: bytes, segment_size: int) -> None:
        """Send a datagram, or several of `segment_size` bytes each."""
        self.traffic.sent(len(datagrams), segment_size, endpoint.ip_overhead)
        if endpoint in self.singly:
            for datagram in cut(datagrams, segment_size):
                self._underlay.send(self._name, self.endpoint, endpoint, datagram, 0)
        else:
            self._underlay.send(self._name, self.endpoint, endpoint, datagrams, segment_size)
