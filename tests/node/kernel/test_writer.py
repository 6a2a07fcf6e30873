from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from node.kernel import packed, writer
from node.kernel.model import Link, LinkAddress, Neighbour, Route
from tests.support.kernel import route
from tests.support.namespace import Namespace
from tests.support.privileged import NEEDS_KERNEL

MAC = "02:00:00:00:00:01"
LINK = Link("musx", mtu=1400, gso_max_size=65536, alias="web", mac=MAC, master=0, kind="veth")


def test_what_is_written_is_read_the_same() -> None:
    names = {7: "musx"}
    for text in ("10.0.0.1/32", "fd00::1/64"):
        held = LinkAddress("musx", ip_interface(text))
        assert packed.parse_address(writer.address_on(held, 7), names).value == held
    for where in (
        route("10.0.0.0/8", "musx"),
        route("10.0.0.0/8"),
        Route(ip_network("0.0.0.0/0"), "musx", gateway=ip_address("169.254.1.1")),
        Route(ip_network("fd00::/64"), "musx", source=ip_address("fd00::1"), metric=9),
    ):
        body = writer.route_by(where, 7 if where.link else None)
        assert packed.parse_route(body, names).value == where
    one = Neighbour("musx", ip_address("fd00::2"), MAC)
    assert packed.parse_neighbour(writer.neighbour_on(one, 7), names).value == one
    said = packed.parse_link(writer.link_set(LINK, 7))
    assert said.index == 7
    assert (said.link.mtu, said.link.mac, said.link.alias) == (1400, MAC, "web")


def test_of_a_link_only_what_is_given_is_set() -> None:
    assert writer.link_set(Link("musx"), 7) == packed.LINK_HEADER.pack(0, 0, 7, 1, 1)
    assert writer.link_set(Link("musx", up=False), 7) == writer.link_down(7)


def test_device_routes_have_link_scope_and_others_do_not() -> None:
    gateway = Route(ip_network("0.0.0.0/0"), "musx", gateway=ip_address("169.254.1.1"))
    scope = 6  # its place in rtmsg
    assert writer.route_by(route("10.0.0.0/8", "musx"), 7)[scope] == 253
    assert writer.route_by(gateway, 7)[scope] == 0
    assert writer.route_by(route("10.0.0.0/8"), None)[scope] == 0
    assert writer.route_by(gateway, 7, any_scope=True)[scope] == 255


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    @pytest.fixture
    def place(self) -> Iterator[Namespace]:
        with Namespace() as namespace:
            yield namespace

    @pytest.fixture
    def kernel(self, place: Namespace) -> Iterator[writer.Writer]:
        opened = place.run(writer.Writer)
        yield opened
        opened.close()

    def shown(self, place: Namespace, *words: str) -> list[dict[str, Any]]:
        argv = ["ip", "-d", "-j", *words]
        done = place.run(lambda: subprocess.run(argv, check=True, capture_output=True))
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def index(self, kernel: writer.Writer, name: str) -> int:
        return packed.parse_link(kernel.ask(writer.RTM_GETLINK, writer.named(name))).index

    def test_a_veth_has_both_ends_as_they_shall_be(
        self, place: Namespace, kernel: writer.Writer
    ) -> None:
        with Namespace() as other:
            behind = os.open(other.path, os.O_RDONLY)
            try:
                peer = Link("eth0", mtu=1400, mac="02:00:00:00:00:02")
                kernel.ask(writer.RTM_NEWLINK, writer.veth(LINK, peer, behind), writer.NEW)
                with pytest.raises(NetlinkError) as refused:
                    kernel.ask(writer.RTM_NEWLINK, writer.veth(LINK, peer, behind), writer.NEW)
                assert refused.value.code == errno.EEXIST
            finally:
                os.close(behind)
            (far,) = self.shown(other, "link", "show", "eth0")
            assert (far["mtu"], far["address"]) == (1400, "02:00:00:00:00:02")
            index = self.index(kernel, "musx")
            kernel.ask(writer.RTM_NEWLINK, writer.link_set(LINK, index))
            (near,) = self.shown(place, "link", "show", "musx")
            assert (near["mtu"], near["address"], near["ifalias"]) == (1400, MAC, "web")
            assert near["linkinfo"]["info_kind"] == "veth"
            assert "UP" in near["flags"]
            kernel.ask(writer.RTM_DELLINK, writer.numbered(index))
            assert [link["ifname"] for link in self.shown(other, "link", "show")] == ["lo"]

    def test_a_refusal_is_the_kernels_own_words(self, kernel: writer.Writer) -> None:
        lo = self.index(kernel, "lo")
        away = Route(ip_network("10.0.0.0/8"), "lo", gateway=ip_address("192.0.2.1"))
        with pytest.raises(NetlinkError) as refused:
            kernel.ask(writer.RTM_NEWROUTE, writer.route_by(away, lo), writer.NEW)
        assert refused.value.code == errno.ENETUNREACH
        assert "gateway" in refused.value.args[-1]
        with pytest.raises(NetlinkError) as refused:
            self.index(kernel, "nolink0")
        assert refused.value.code == errno.ENODEV
        assert self.index(kernel, "lo") == lo, "the socket goes on"
