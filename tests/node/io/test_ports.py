"""Every port, real or in memory, has what its protocol says: no driver finds out at run time."""

from __future__ import annotations

import inspect
from typing import Protocol

import pytest

from node.io.memory import MemoryTun, MemoryUdp
from node.io.ports import DatagramPort, Received, TunPort
from node.io.tun import Tun
from node.io.udp import UdpSocket
from overlay.types import Endpoint

PORTS = [
    (TunPort, Tun),
    (TunPort, MemoryTun),
    (DatagramPort, UdpSocket),
    (DatagramPort, MemoryUdp),
]


def verbs(protocol: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(protocol, inspect.isfunction) if name[0] != "_"]


@pytest.mark.parametrize(("port", "implementation"), PORTS)
def test_verbs_take_the_same_arguments(port: type, implementation: type):
    assert Protocol in port.__mro__
    assert verbs(port)
    for verb in verbs(port):
        wanted = inspect.signature(getattr(port, verb)).parameters
        given = inspect.signature(getattr(implementation, verb)).parameters
        assert list(given) == list(wanted), verb


def test_what_was_received_unpacks_in_the_order_the_engine_takes_it():
    source = Endpoint("192.0.2.1", 1)
    received = Received(memoryview(b"x"), 0, source)
    assert [*received] == [b"x", 0, source]
