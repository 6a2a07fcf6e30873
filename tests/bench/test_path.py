"""Tests of the micro-benchmark: it sends what it says, and a packet that is lost is an error."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from bench.engines import Cluster
from bench.path import (
    CASES,
    Case,
    Cost,
    measure,
    partial_udp,
    run_cases,
    tabulate,
    tcp_super,
)
from node.errors import NodeError
from overlay.sim import udp
from overlay.wire.checksum import checksum, pseudo_header_sum
from overlay.wire.ip import PROTOCOL_TCP
from overlay.wire.virtio import VIRTIO_HEADER_SIZE, VirtioHeader, finish_checksum

SOURCE, TARGET = ip_address("10.0.0.1"), ip_address("10.0.1.1")


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster(2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_every_case_gets_through(cluster, case):
    before = sum(node.engine.ledger.tun_in for node in cluster.nodes)
    cost = measure(cluster, case, passes=2)
    assert cost.out > 0
    assert cost.into > 0
    sent = sum(node.engine.ledger.tun_in for node in cluster.nodes) - before
    assert sent == 2 * sum(
        len(each) for each, _ in zip(case.passes(cluster), range(2), strict=False)
    )


def test_a_loss_is_an_error_and_not_a_good_figure(cluster):
    def passes(_: Cluster):
        while True:
            yield [partial_udp(cluster.nodes[0].address, TARGET, 64)]

    with pytest.raises(NodeError, match="lost"):
        measure(cluster, Case("to nobody", passes), passes=1)


def test_a_udp_packet_is_whole_once_its_checksum_is_finished():
    packet = partial_udp(SOURCE, TARGET, 64)
    body = bytearray(packet[VIRTIO_HEADER_SIZE:])
    assert bytes(body) != udp(SOURCE, TARGET, bytes(64))
    finish_checksum(VirtioHeader.decode_untrusted(packet), body)
    assert bytes(body) == udp(SOURCE, TARGET, bytes(64))


def test_a_super_packet_is_whole_once_its_checksum_is_finished():
    packet = tcp_super(SOURCE, TARGET, 62_000)
    header, body = VirtioHeader.decode_untrusted(packet), bytearray(packet[VIRTIO_HEADER_SIZE:])
    assert (len(body), header.gso_size) == (62_000, 1460)
    assert checksum(body[:20]) == 0
    finish_checksum(header, body)
    pseudo = pseudo_header_sum(int(SOURCE), int(TARGET), PROTOCOL_TCP, len(body) - 20)
    assert checksum(body[20:], pseudo) == 0


def test_cases_are_measured_with_every_number_of_routes(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("bench.path.PASSES", 1)
    costs = run_cases([10, 20], 1, said.append)
    assert costs.keys() == {(case.title, count) for case in CASES for count in (10, 20)}
    assert said == ["10 routes are in the tables", "20 routes are in the tables"]


def test_the_table_has_a_column_per_direction_and_number():
    table = tabulate({("x", 10): Cost(1.0, 2.0), ("x", 1000): Cost(3.0, 4.0)}, [10, 1000])
    assert table.head[1:] == [
        "out, 10 routes", "in, 10 routes", "out, 1,000 routes", "in, 1,000 routes",
    ]  # fmt: skip
    assert table.rows == [["x", "1.00", "2.00", "3.00", "4.00"]]
