"""Notifications as the service manager receives them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from node.systemd import Notifier, take_descriptors
from tests.support.manager import Manager


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


# -- the descriptor store --------------------------------------------------------------------------


def test_a_descriptor_is_stored_under_its_name_and_forgotten(tmp_path) -> None:
    reading, writing = os.pipe()
    with Manager(tmp_path / "notify") as manager:
        notifier = Notifier(manager.variables)
        assert notifier.stores
        assert notifier.store("tun", writing)
        os.close(writing)
        assert notifier.barrier(20.0)
        assert manager.said("FDSTORE") == {"FDSTORE": "1", "FDNAME": "tun", "FDPOLL": "0"}
        os.write(manager.store["tun"][0], b"there")
        assert os.read(reading, 10) == b"there"
        assert notifier.forget("tun")
        assert notifier.barrier(20.0)
        assert os.read(reading, 10) == b""  # nobody has the other end any more
    os.close(reading)


def test_a_barrier_that_is_not_answered_is_not_passed(manager) -> None:
    address, handle = manager
    assert not Notifier({"NOTIFY_SOCKET": address}).barrier(0.05)  # nobody reads
    handle.close()
    assert not Notifier({"NOTIFY_SOCKET": address}).barrier(20.0)  # nobody is there
    assert not Notifier({}).barrier(20.0)


@pytest.mark.parametrize(
    ("environment", "stores"),
    [
        ({}, False),
        ({"FDSTORE": "8"}, False),
        ({"NOTIFY_SOCKET": "/x"}, False),
        ({"NOTIFY_SOCKET": "/x", "FDSTORE": "0"}, False),
        ({"NOTIFY_SOCKET": "/x", "FDSTORE": "8"}, True),
    ],
)
def test_only_a_manager_that_says_so_stores(environment, stores: bool) -> None:
    assert Notifier(environment).stores is stores


def test_another_process_is_made_the_daemon(manager) -> None:
    address, handle = manager
    Notifier({"NOTIFY_SOCKET": address}).main_pid(17)
    assert handle.recv(100) == b"MAINPID=17"


def test_descriptors_of_the_manager_are_taken_once_by_whom_they_are_for() -> None:
    """In a process of its own, where the numbers from 3 on are free."""
    script = (
        "import os\n"
        "from node.systemd import take_descriptors\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "first = take_descriptors()\n"
        "print(first, [os.get_inheritable(fd) for fds in first.values() for fd in fds])\n"
        "print(take_descriptors(), [key for key in os.environ if key.startswith('LISTEN')])\n"
    )
    reading, writing = os.pipe()
    variables = {**os.environ, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "tun:udp"}

    def arrange() -> None:
        os.dup2(reading, 40)
        os.dup2(writing, 41)
        os.dup2(40, 3)
        os.dup2(41, 4)
        os.dup2(40, 5)

    said = subprocess.run(
        [sys.executable, "-c", script],
        env=variables,
        preexec_fn=arrange,
        close_fds=False,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    os.close(reading)
    os.close(writing)
    assert said == [
        "{'tun': [3], 'udp': [4], '': [5]} [False, False, False]",
        "{} []",
    ]


def test_descriptors_for_another_process_are_left_alone() -> None:
    for pid in ("", "1"):
        environment = {"LISTEN_PID": pid, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "tun"}
        assert take_descriptors(environment) == {}
        assert environment == {}
