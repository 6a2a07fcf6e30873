"""Proofs: pods exchange packets through real sealing, and every one of them is accounted for."""

from __future__ import annotations

from collections import Counter

import pytest

from overlay.config import Settings, Timing
from overlay.sim import ADDRESSES6, Link, World, udp
from tests.sim.worlds import settled

PAYLOADS = [b"a", b"b" * 100, b"c" * 1400, b"d" * 9_000, b"e" * 60_000]


def with_pods(world: World) -> World:
    """Add a pod to every node, and let everybody know."""
    for name, machine in world.machines.items():
        machine.add_pod(f"{name}-pod")
    world.run(world.now + 2.0)
    return world


def pod(world: World, name: str):
    """The pod of a node."""
    return next(view for view in world[name].snapshot().pods if view.local)


def payloads(world: World, name: str, header: int = 28) -> list[bytes]:
    """What arrived at a node's pods."""
    return [packet[header:] for packet in world[name].delivered]


@pytest.mark.parametrize("coalesce", [True, False])
def test_packets_of_every_size_arrive_intact_between_all_pods(coalesce):
    world = with_pods(settled(3, link=Link(coalesce=coalesce)))
    names = list(world.machines)
    for source in names:
        for target in names:
            if source == target:
                continue
            for payload in PAYLOADS:
                world.send_packet(
                    source, udp(pod(world, source).address, pod(world, target).address, payload)
                )
    world.run(world.now + 1.0)
    for target in names:
        assert Counter(payloads(world, target)) == dict.fromkeys(PAYLOADS, 2)
    world.check_invariants()


def test_ipv6_pods_reach_each_other_over_an_ipv6_underlay():
    world = with_pods(settled(2, underlay=ADDRESSES6))
    one, two = pod(world, "node1"), pod(world, "node2")
    world.send_packet("node1", udp(one.address6, two.address6, b"six"))
    world.run(world.now + 1.0)
    assert payloads(world, "node2", header=48) == [b"six"]


def test_the_pods_mtu_does_not_depend_on_the_underlays():
    for mtu in (1280, 1400, 1500):
        world = with_pods(settled(2, link=Link(mtu=mtu)))
        one, two = pod(world, "node1"), pod(world, "node2")
        world.send_packet("node1", udp(one.address, two.address, b"x" * 1472))
        world.run(world.now + 1.0)
        assert payloads(world, "node2") == [b"x" * 1472]
        world.run(world.now + 9.0)
        (session,) = [s for s in world["node1"].snapshot().sessions if s.node == "node2"]
        assert session.mtu == mtu


def test_no_plaintext_travels():
    world = with_pods(settled(2))
    canary = b"canary in the coal mine"
    world.send_packet(
        "node1", udp(pod(world, "node1").address, pod(world, "node2").address, canary)
    )
    world.run(world.now + 1.0)
    assert payloads(world, "node2") == [canary]
    sent = world.trace.datagrams()
    assert sent
    assert not any(canary in datagram for datagram in sent)


def test_a_pod_cannot_send_from_an_address_of_another_node():
    world = with_pods(settled(3))
    other, target = pod(world, "node3"), pod(world, "node2")
    world.send_packet("node1", udp(other.address, target.address, b"lie"))
    world.run(world.now + 1.0)
    assert payloads(world, "node2") == []
    assert drops(world, "node1")["foreign_source"] == 1


def test_a_member_that_lies_about_the_source_is_not_believed_and_counted():
    world = with_pods(settled(3))
    other, liar, target = pod(world, "node3"), pod(world, "node1"), pod(world, "node2")
    # The liar's own check is what a hostile member would not make: teach its routes otherwise.
    routes = world["node1"].engine.parts.routes
    honest, ours = routes.lookup4, routes.lookup4(int(liar.address))

    class Lying:
        lookup6 = staticmethod(routes.lookup6)

        @staticmethod
        def lookup4(address: int):
            return ours if address == int(other.address) else honest(address)

    world["node1"].engine.outbound._routes = Lying()
    world.send_packet("node1", udp(other.address, target.address, b"lie"))
    world.run(world.now + 1.0)
    assert payloads(world, "node2") == []
    assert drops(world, "node2")["spoofed_source"] == 1
    world.check_invariants()


def test_packets_wait_for_a_session_and_are_lost_by_name_when_none_comes():
    world = with_pods(settled(2))
    one, two = pod(world, "node1"), pod(world, "node2")
    world.crash("node2")
    world.restart("node1")  # and so without a session
    world.send_packet("node1", udp(one.address, two.address, b"waits"))
    assert world["node1"].snapshot().ledger.queued == 1
    world.check_invariants()
    world.run(world.now + 30.0)
    assert world["node1"].snapshot().ledger.queued == 0
    assert drops(world, "node1")["no_session"] == 1
    world.check_invariants()


def test_the_books_balance_under_loss_duplication_and_reordering():
    world = with_pods(settled(3, link=Link.terrible()))
    world.every(0.05, world.check_invariants)
    names = list(world.machines)
    for number in range(300):
        source, target = names[number % 3], names[(number // 3 + number + 1) % 3]
        world.send_packet(
            source,
            udp(
                pod(world, source).address, pod(world, target).address, b"x" * (number * 37 % 4000)
            ),
        )
        world.run(world.now + 0.005)
    world.run(world.now + 3.0)
    world.check_invariants()
    assert all(world[name].snapshot().ledger.queued == 0 for name in names)
    assert sum(len(world[name].delivered) for name in names) > 100
    assert any(drops(world, name).get("reassembly_expired") for name in names)
    assert any(drops(world, name).get("replayed") for name in names)


def test_rekeying_under_traffic_loses_nothing():
    world = with_pods(settled(2, settings=Settings(timing=Timing.quick())))
    one, two = pod(world, "node1"), pod(world, "node2")
    for number in range(600):
        world.send_packet("node1", udp(one.address, two.address, number.to_bytes(2)))
        world.run(world.now + 0.1)
    world.run(world.now + 0.1)
    assert payloads(world, "node2") == [number.to_bytes(2) for number in range(600)]
    (session,) = [s for s in world["node1"].snapshot().sessions if s.node == "node2"]
    assert session.rekeyed > session.established


def drops(world: World, name: str) -> dict[str, int]:
    return dict(world[name].snapshot().ledger.drops)
