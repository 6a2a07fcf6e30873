from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from node.config import NodeConfig
from node.surroundings import boot_id, largest_underlay_mtu, own_endpoints
from overlay.config import Settings
from overlay.types import Endpoint
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
