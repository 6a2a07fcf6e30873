"""An address whose way leads through the pod network is not used, whatever routes there are."""

from __future__ import annotations

from ipaddress import ip_network

from overlay.effects import SendDatagram
from overlay.sim import World
from overlay.types import Endpoint
from tests.sim.worlds import settled


def looped(world: World, *ways: tuple[str, bool]) -> list[SendDatagram]:
    """node1's machine routes these; what it sends at once."""
    machine = world["node1"]
    effects = machine.engine.on_ways([(ip_network(one), loops) for one, loops in ways], world.now)
    machine.perform(effects)
    return [effect for effect in effects if isinstance(effect, SendDatagram)]


def session(world: World) -> str:
    return next((one.node for one in world["node1"].snapshot().sessions if one.node == "node2"), "")


def test_the_only_address_is_left_until_the_route_is_gone() -> None:
    world = settled(2)
    there = world["node2"].endpoint
    assert session(world)
    assert not looped(world, (f"{there.host}/32", True))
    assert not session(world)
    path = world["node1"].engine.parts.paths.get(world["node2"].membership.identity.node)
    assert path is None or path.endpoint is None
    looped(world)
    world.run_until(lambda: bool(session(world)), timeout=30.0)


def test_what_leaves_the_machine_by_a_narrower_route_stays_in_use() -> None:
    world = settled(2)
    there = world["node2"].endpoint
    assert not looped(world, ("0.0.0.0/0", True), (f"{there.host}/32", False))
    assert session(world)
    assert looped(world, ("0.0.0.0/0", True)) == []
    assert not session(world)


def test_another_address_is_tried_at_once() -> None:
    world = settled(2)
    there, other = world["node2"].endpoint, Endpoint("198.19.255.1", 6875)
    node2 = world["node2"]
    node2.perform(node2.engine.on_endpoints((there, other), world.now))
    world.run(world.now + 3.0)
    sent = looped(world, (f"{there.host}/32", True))
    assert {one.endpoint for one in sent} == {other}


def test_a_peer_that_answers_at_an_address_that_may_be_used_stays_there() -> None:
    world = settled(2)
    there, first = world["node2"].endpoint, Endpoint("198.19.255.1", 6875)
    node2 = world["node2"]
    node2.perform(node2.engine.on_endpoints((first, there), world.now))
    world.run(world.now + 3.0)
    path = world["node1"].engine.parts.paths[node2.membership.identity.node]
    assert path.endpoint == there
    assert looped(world, ("203.0.113.0/24", True)) == []
    assert path.endpoint == there


def test_handshakes_from_there_are_not_answered() -> None:
    world = settled(2)
    there = world["node2"].endpoint
    looped(world, (f"{there.host}/32", True))
    world.restart("node2")
    world.run(world.now + 3.0)
    assert not session(world)
