"""Tests of the joined engines: they have sessions, routes, and carry packets."""

from __future__ import annotations

import pytest

from bench.engines import Cluster
from bench.path import partial_udp
from node.errors import NodeError


@pytest.mark.parametrize("routes", [0, 10, 1000])
def test_everybody_has_all_routes_and_a_session_on_the_whole_path(routes):
    cluster = Cluster(2, routes)
    assert [node.routes() for node in cluster.nodes] == [max(routes, 6)] * 3
    for node in cluster.nodes:
        sessions = node.engine.snapshot(cluster.now).sessions
        assert [session.mtu for session in sessions] == [1500, 1500]


def test_a_packet_comes_out_where_it_should():
    cluster = Cluster(2)
    first, second, third = cluster.nodes
    packet = partial_udp(first.address, second.address, 100)
    first.perform(first.engine.on_packet(packet, cluster.now))
    cluster.carry()
    assert (first.delivered, second.delivered, third.delivered) == (0, 1, 0)
    assert first.drops() == second.drops() == 0


def test_a_packet_to_nobody_is_a_drop():
    cluster = Cluster(2)
    first = cluster.nodes[0]
    before = first.drops()
    packet = partial_udp(first.address, first.address + (1 << 20), 100)
    first.perform(first.engine.on_packet(packet, cluster.now))
    assert first.drops() == before + 1


def test_more_blocks_than_there_are_cannot_be_announced():
    with pytest.raises(NodeError, match="are free"):
        Cluster(2, 20_000)
