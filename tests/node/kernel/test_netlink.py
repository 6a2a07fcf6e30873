from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from node.kernel import netns
from node.kernel.errors import KernelError
from node.kernel.messages import IFF_RUNNING, IFF_UP
from node.kernel.model import Link, Neighbour
from node.kernel.netlink import Netlink
from node.kernel.packed import LINK_HEADER
from node.kernel.reader import Ours
from node.kernel.reconcile import (
    AddAddress,
    AddNeighbour,
    AddRoute,
    Change,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    RenameLink,
    SetLink,
    SetSysctl,
)
from tests.support.kernel import held, route
from tests.support.privileged import NEEDS_KERNEL

ETH_P_TEST = 0x88B5
"""For experiments (IEEE 802, 802a)."""

VETHS = 50
"""Of so many, some are not noticed at once by a kernel that is busy."""


def test_the_loopback_is_there_to_read() -> None:
    with Netlink() as netlink:
        state = netlink.read(lambda link: link.name == "lo", ["net/ipv4/ip_forward", "net/none"])
        assert set(state.links) == {"lo"}
        assert set(state.sysctls) == {"net/ipv4/ip_forward"}
        assert netlink.link_index("lo") == 1
        assert netlink.link_index("nolink0") is None


class Refusing:
    """A kernel that answers every request with the same error."""

    def __init__(self, code: int) -> None:
        self.code = code

    def ask(self, *_: object) -> None:
        raise NetlinkError(self.code, os.strerror(self.code))

    def close(self) -> None:
        pass


def on(kernel: object, monkeypatch: pytest.MonkeyPatch) -> Netlink:
    monkeypatch.setattr("node.kernel.writer.Writer", lambda: kernel)
    return Netlink()


def test_a_refusal_says_what_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelError) as caught:
        on(Refusing(errno.EPERM), monkeypatch).apply(DeleteLink("musx"))
    assert caught.value.why == "remove link musx: operation not permitted"
    assert caught.value.fix == "run as root"
    assert caught.value.code == "eperm"


@pytest.mark.parametrize(
    "change",
    [
        DeleteLink("musx"),
        DeleteAddress(held("musx", "10.0.0.1/32")),
        DeleteRoute(route("10.0.0.0/8", "musx")),
    ],
)
def test_removing_what_is_gone_counts_as_done(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(Refusing(errno.ENODEV), monkeypatch).apply(change)
    with pytest.raises(KernelError):
        on(Refusing(errno.EINVAL), monkeypatch).apply(change)


def test_adding_to_a_link_that_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelError, match="no such device"):
        on(Refusing(errno.ENODEV), monkeypatch).apply(AddAddress(held("musx", "10.0.0.1/32")))


class Slow:
    """A kernel that says of a link that it is up, and of the last time that it runs as well."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def ask(self, *_: object) -> bytes:
        self.left -= 1
        return LINK_HEADER.pack(0, 1, 7, IFF_UP if self.left else IFF_UP | IFF_RUNNING, 0)

    def close(self) -> None:
        pass


def test_a_link_is_waited_for_until_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Slow(looks=3)
    on(kernel, monkeypatch).wait_until_running("musx")
    assert kernel.left == 0


def test_a_link_whose_other_end_stays_down_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.kernel.netlink._NOTICED_WITHIN", 0.01)
    kernel = Slow(looks=1 << 20)
    on(kernel, monkeypatch).wait_until_running("musx")
    assert kernel.left > 0


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    @pytest.fixture
    def inside(self) -> Iterator[Path]:
        path = netns.create(f"kl{os.getpid()}")
        yield path
        netns.delete(path.name)

    @pytest.fixture
    def beside(self) -> Iterator[Path]:
        path = netns.create(f"kl{os.getpid()}b")
        yield path
        netns.delete(path.name)

    def test_every_change_can_be_made_and_read_back(self, inside: Path, beside: Path) -> None:
        def work() -> None:
            with Netlink() as netlink, netns.opened(beside) as namespace:
                attributes = Link("mus0", mtu=1400, gso_max_size=62000)
                netlink.create_veth(attributes, Link("eth0", mtu=1400), namespace)
                wished = Link("mus0", True, 1300, 61000, 77, "a pod", "02:00:00:00:00:01", 0)
                address = held("mus0", "10.0.0.1/32")
                first = route("10.0.0.0/8", "mus0", source="10.0.0.1")
                second = route("10.0.0.0/8")
                forwarding = "net/ipv4/ip_forward"
                netlink.apply(SetLink(wished))
                netlink.apply(AddAddress(address))
                netlink.apply(AddAddress(address))
                netlink.apply(AddRoute(first))
                netlink.apply(SetSysctl(forwarding, "1"))
                state = netlink.read(lambda link: link.name == "mus0", [forwarding])
                assert state.links == {"mus0": wished}
                assert address in state.addresses
                assert state.routes == {first}
                assert state.sysctls == {forwarding: "1"}
                known = Neighbour("mus0", ip_address("10.9.9.9"), "02:00:00:00:00:02")
                moved = known._replace(mac="02:00:00:00:00:03")
                netlink.apply(AddNeighbour(known))
                netlink.apply(AddNeighbour(moved))
                assert netlink.read(lambda link: link.name == "mus0", ()).neighbours == {moved}
                netlink.apply(AddRoute(second, replaces=first))
                assert netlink.read(bool, ()).routes == {second}
                for change in (
                    DeleteNeighbour(moved),
                    DeleteRoute(second),
                    DeleteAddress(address),
                    DeleteLink("mus0"),
                ):
                    netlink.apply(change)
                    netlink.apply(change)
                state = netlink.read(lambda link: link.name == "mus0", ())
                assert (state.links, state.addresses, state.routes) == ({}, set(), set())

        netns.run_in(inside, work)

    def test_both_ends_of_a_veth_find_each_other(self, inside: Path, beside: Path) -> None:
        def index_of_eth0() -> int | None:
            with Netlink() as netlink:
                return netlink.link_index("eth0")

        def work() -> None:
            with Netlink() as netlink, netns.opened(beside) as namespace:
                assert netlink.peer_index("mus0", namespace) is None
                netlink.create_veth(Link("mus0"), Link("eth0"), namespace)
                peer = netlink.peer_index("mus0", namespace)
                assert peer == netns.run_in(beside, index_of_eth0)
                with netns.opened(inside) as elsewhere:
                    assert netlink.peer_index("mus0", elsewhere) is None
                with pytest.raises(KernelError, match="making the veth mus1: file exists"):
                    netlink.create_veth(Link("mus1"), Link("eth0"), namespace)
                assert netlink.link_index("mus1") is None

        netns.run_in(inside, work)

    def test_a_link_that_was_waited_for_loses_nothing(self, inside: Path, beside: Path) -> None:
        def come_up() -> socket.socket:
            with Netlink() as netlink:
                netlink.apply(SetLink(Link("eth0")))
            receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            receiver.bind(("eth0", ETH_P_TEST))
            receiver.settimeout(5)
            return receiver

        def work() -> None:
            frame = b"\xff" * 6 + bytes(6) + ETH_P_TEST.to_bytes(2, "big") + bytes(46)
            with Netlink() as netlink, netns.opened(beside) as namespace:
                for _ in range(VETHS):
                    netlink.create_veth(Link("mus0"), Link("eth0"), namespace)
                    netlink.apply(SetLink(Link("mus0")))
                    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
                        sender.bind(("mus0", 0))
                        with netns.run_in(beside, come_up) as receiver:
                            netlink.wait_until_running("mus0")
                            sender.send(frame)
                            assert receiver.recv(100) == frame
                    netlink.apply(DeleteLink("mus0"))

        netns.run_in(inside, work)

    def test_a_foreign_route_is_never_replaced(self, inside: Path) -> None:
        def work() -> None:
            with Netlink() as netlink:
                netlink.apply(SetLink(Link("lo")))
                netlink.apply(AddRoute(route("10.0.0.0/8", "lo")))
                with pytest.raises(KernelError, match=r"add unreachable .*: file exists"):
                    netlink.apply(AddRoute(route("10.0.0.0/8")))

        netns.run_in(inside, work)

    def test_a_link_that_was_renamed_is_known_and_gets_its_name_back(self, inside: Path) -> None:
        def work() -> None:
            with Netlink() as netlink:
                netlink.create_bridge("mus0", ())
                netlink.apply(AddRoute(route("10.0.0.0/8", "mus0")))
                ours: Ours = lambda link: link.name == "mus0"  # noqa: E731
                before = netlink.read(ours, ())
                subprocess.check_call(["ip", "link", "set", "mus0", "name", "other0"])
                state = netlink.read(ours, ())
                assert state == replace(before, renamed={"mus0": "other0"})
                netlink.apply(RenameLink("other0", "mus0"))
                assert netlink.read(ours, ()) == before

        netns.run_in(inside, work)


def test_a_running_loop_in_the_same_thread_is_the_callers_mistake() -> None:
    """pyroute2 would take the running loop; that is why there is a netlink thread."""

    async def wrong() -> None:
        with Netlink() as netlink, pytest.raises(RuntimeError):
            netlink.host_routes()

    with pytest.warns(RuntimeWarning):
        asyncio.run(wrong())
