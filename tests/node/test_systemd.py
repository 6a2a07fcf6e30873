"""Notifications as the service manager receives them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from node.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's end: what NOTIFY_SOCKET says, and the socket."""
    if request.param == "path":
        monkeypatch.chdir(tmp_path)
        address = bound = "notify"
    else:
        address, bound = f"@muslin-test-{os.getpid()}", f"\0muslin-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as handle:
        handle.bind(bound)
        yield address, handle


def test_each_state_is_one_datagram(manager) -> None:
    address, handle = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("node vm1")
    notifier.watchdog()
    notifier.reloading()
    notifier.ready()
    notifier.stopping()
    received = [handle.recv(1000).decode() for _ in range(5)]
    assert received[0] == "READY=1\nSTATUS=node vm1"
    assert received[1] == "WATCHDOG=1"
    assert received[2].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert received[3:] == ["READY=1", "STOPPING=1"]


def test_without_a_manager_nothing_happens() -> None:
    Notifier({}).ready()


def test_a_manager_that_is_gone_or_full_hurts_nobody(manager) -> None:
    address, handle = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    for _ in range(5000):
        notifier.watchdog()
    handle.close()
    notifier.stopping()


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_asked(environment, interval) -> None:
    assert Notifier(environment).watchdog_interval == interval
