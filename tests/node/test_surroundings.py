from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from node import surroundings
from node.config import NodeConfig
from node.kernel.errors import KernelError
from node.kernel.netlink import Netlink
from node.kernel.overlap import HostRoute
from node.surroundings import Surroundings, boot_id, largest_underlay_mtu, own_endpoints
from overlay.config import Settings
from overlay.effects import Effect, Report
from overlay.types import Endpoint, Prefix
from tests.support.clusters import make_cluster


class Kernel:
    """Answers every question with the same, and writes down that it was asked."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked = 0

    async def call(self, _question: Callable[..., Any], *_: object) -> Any:
        self.asked += 1
        return self.answer


def endpoints(config: NodeConfig, local: str, kernel: Kernel) -> tuple[Endpoint, ...]:
    found = own_endpoints(config, Endpoint(local, 7), make_cluster(), kernel)  # type: ignore[arg-type]
    return asyncio.run(found)


def test_what_was_configured_is_announced_and_nothing_else():
    kernel = Kernel([ip_address("192.0.2.1")])
    config = replace(NodeConfig(), advertise=(Endpoint("198.51.100.1", 9),))
    assert endpoints(config, "::", kernel) == config.advertise
    assert endpoints(NodeConfig(), "192.0.2.7", kernel) == (Endpoint("192.0.2.7", 7),)
    assert kernel.asked == 0


@pytest.mark.parametrize("wildcard", ["::", "0.0.0.0"])
def test_a_socket_for_all_addresses_is_reached_at_all_addresses(wildcard: str):
    kernel = Kernel([ip_address("192.0.2.1"), ip_address("2001:db8::1")])
    expected = (Endpoint("192.0.2.1", 7), Endpoint("2001:db8::1", 7))
    assert endpoints(NodeConfig(), wildcard, kernel) == expected


@pytest.mark.parametrize(
    ("configured", "found", "expected"),
    [(None, 9000, 9000), (None, None, Settings().underlay_mtu), (1400, 9000, 1400)],
)
def test_the_largest_packet_is_what_links_carry_unless_it_was_configured(
    configured: int | None, found: int | None, expected: int
):
    config = replace(NodeConfig(), underlay_mtu=configured)
    asked = largest_underlay_mtu(config, make_cluster(), Kernel(found))  # type: ignore[arg-type]
    assert asyncio.run(asked) == expected


def test_the_boot_of_this_machine_has_a_name_which_does_not_change(monkeypatch, tmp_path):
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()
    monkeypatch.setattr("node.surroundings.BOOT_ID", tmp_path / "none")
    assert boot_id() == ""


class Node:
    """Stands for engine and daemon; its disk is full."""

    def __init__(self) -> None:
        self.engine = self
        self.told: list[tuple[Endpoint, ...]] = []
        self.mtus: list[int] = []
        self.crossed: list[tuple[Prefix, ...]] = []
        self.reports: list[str] = []

    def now(self) -> float:
        return 0.0

    def on_endpoints(self, endpoints: tuple[Endpoint, ...], _now: float) -> list[Effect]:
        self.told.append(endpoints)
        return []

    def on_underlay_mtu(self, largest: int, _now: float) -> list[Effect]:
        self.mtus.append(largest)
        return []

    def on_crossed(self, crossed: tuple[Prefix, ...], _now: float) -> list[Effect]:
        self.crossed.append(crossed)
        return []

    def on_ways(self, ways: tuple[tuple[Prefix, bool], ...], _now: float) -> list[Effect]:
        self.ways = ways
        return []

    def on_own_addresses(self, held: Collection[Prefix]) -> None:
        self.held = held

    def perform(self, _effects: list[Effect]) -> bool:
        return False

    def report(self, report: Report) -> None:
        self.reports.append(report.event)


class Telling:
    """A kernel that answers one look after the other; None ends it, as when the daemon stops."""

    def __init__(self, *answers: str | KernelError | None) -> None:
        self.answers = iter(answers)

    async def call(self, question: Callable[..., Any], *_: object) -> Any:
        if question is not Netlink.local_addresses:
            return None
        answer = next(self.answers)
        if answer is None:
            raise asyncio.CancelledError
        if isinstance(answer, KernelError):
            raise answer
        return [ip_address(answer)]


def test_neither_a_full_disk_nor_a_busy_kernel_ends_the_watch(monkeypatch):
    kernel, node = Telling("192.0.2.1", KernelError("busy"), "192.0.2.2", None), Node()
    config = replace(NodeConfig(), underlay_mtu=1400)
    around = Surroundings(config, Endpoint("::", 7), make_cluster(), kernel)  # type: ignore[arg-type]
    around.guard.judge([HostRoute(ip_network("10.244.7.0/24"), "docker0")])
    around.guard.held = frozenset([ip_network("192.0.2.1/32")])
    monkeypatch.setattr(surroundings, "ADDRESS_INTERVAL", 0.0)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(around.follow(node))  # type: ignore[arg-type]
    assert node.told[0] == (), "what the look before found comes first"
    assert [endpoint.host for (endpoint,) in node.told[1:]] == ["192.0.2.1", "192.0.2.2"]
    assert node.mtus[1:] == [1400, 1400]
    assert (node.ways, node.held) == (around.guard.ways, around.guard.held)
    assert node.crossed == [(ip_network("10.244.7.0/24"),)] * 3
    assert node.reports == ["addresses.unknown"]
