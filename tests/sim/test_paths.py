"""Proofs: nodes whose addresses change, or of which some do not work, are reached all the same."""

from __future__ import annotations

from overlay.sim import World, udp
from overlay.types import Endpoint
from tests.sim.worlds import settled

DEAD_END = Endpoint("198.19.255.1", 6875)


def announce(world: World, name: str, *endpoints: Endpoint) -> None:
    """Let a node say that it has these underlay addresses."""
    machine = world[name]
    machine.perform(machine.engine.on_endpoints(endpoints, world.now))


def test_a_peer_whose_address_changed_is_answered_at_the_new_one():
    world = settled(3)
    one, two = world["node2"].add_pod("one"), world["node3"].add_pod("two")
    world.run(world.now + 1.0)
    world.move("node2")
    # What it sends is authentic, so the others follow; nobody has to tell them.
    world.send_packet("node2", udp(one.address, two.address, b"from elsewhere"))
    world.run(world.now + 0.1)
    world.send_packet("node3", udp(two.address, one.address, b"answer"))
    world.run(world.now + 0.1)
    assert [packet[28:] for packet in world["node2"].delivered] == [b"answer"]
    assert world.trace.notes("peer.moved", "node3")


def test_a_node_that_moved_while_it_was_off_is_found_again():
    world = settled(3)
    world.crash("node2")
    world.run(world.now + 20.0)
    world.move("node2")
    world.restart("node2")
    world.run_until(world.converged, timeout=10.0)
    world.run(world.now + 2.0)
    paths = {node.name: node.path for node in world["node3"].snapshot().nodes}
    assert paths["node2"] == "direct"


def test_a_node_with_a_dead_address_in_front_of_its_good_one_is_reached():
    world = settled(2)
    announce(world, "node2", DEAD_END, world["node2"].endpoint)
    world.run(world.now + 1.0)
    world.restart("node1")
    world.crash("node2")
    world.restart("node1")
    world["node2"].start()
    world.run_until(world.converged, timeout=15.0)


def test_addresses_that_vanish_while_they_are_tried_harm_nobody():
    world = settled(3)
    world.cut("node1", "node2")
    announce(world, "node2", world["node2"].endpoint, DEAD_END)
    world.run(world.now + 10.0)
    announce(world, "node2")
    world.run(world.now + 10.0)
    world.heal()
    world.run_until(world.converged, timeout=15.0)
    world.run(world.now + 10.0)
    paths = {node.name: node.path for node in world["node1"].snapshot().nodes}
    assert paths["node2"] == "direct"


def test_a_rekey_goes_to_where_the_peer_has_moved():
    world = settled(2)
    world.run(world.now + 3.0)
    old, heard = {}, []
    for name in world.machines:  # one of the two is the initiator of the present keypair
        old[name] = world[name].endpoint
        world.move(name)
        world.run(world.now + 5.0)
        world.underlay.attach(f"{name}, formerly", old[name], lambda *read: heard.append(read))
    world.run(world.now + 200.0)
    assert heard == []
    assert world.trace.notes("session.ended") == []
