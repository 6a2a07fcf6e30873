"""Tests of a world: time, machines, faults by name, judging."""

from __future__ import annotations

import pytest

from overlay.config import Settings
from overlay.errors import StateError
from overlay.sim import ADDRESSES6, InvariantError, Link, NotReachedError, World, udp
from overlay.sim.nat import NatKind
from overlay.sim.world import EPOCH


def test_a_world_begins_with_its_founder_settled_and_running():
    world = World(1, founder="first")
    assert list(world.machines) == ["first"]
    assert world.converged()
    assert world["first"].snapshot().own_prefixes[0] == next(
        world.cluster.cidr.subnets(new_prefix=24)
    )
    world.check_invariants()


def test_the_same_calls_with_the_same_seed_give_the_same_trace():
    def run(seed: int) -> str:
        world = World(seed, link=Link.terrible())
        world.join("node2")
        world.add_node("node3")
        world.run(until=3.0)
        return world.trace.fingerprint()

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_names_are_unique_also_of_those_who_still_join():
    world = World(1)
    world.join("node2")
    for name in ("node1", "node2"):
        with pytest.raises(StateError):
            world.add_node(name)
        with pytest.raises(StateError):
            world.join(name)


def test_run_until_says_how_long_it_took():
    world = World(1)
    world.run(until=1.0)
    assert world.run_until(lambda: world.now >= 3.0, timeout=5.0) == pytest.approx(2.0, abs=0.06)


def test_run_until_gives_up_and_names_the_seed_and_what_is_missing():
    world = World(41, link=Link(loss=1.0))
    world.add_node("node2")
    with pytest.raises(NotReachedError, match=r"seed 41.*node2 has no block"):
        world.run_until(world.converged, timeout=2.0)
    assert world.now == pytest.approx(2.0, abs=0.06)


def test_a_world_with_somebody_at_the_door_is_not_settled():
    world = World(1)
    world.join("node2")
    assert list(world.differences()) == ["node2 is not admitted"]
    world.run_until(world.converged, timeout=5.0)
    assert world.applicants == {}


def test_every_acts_at_once_and_then_at_its_interval():
    world, seen = World(1), []
    world.every(0.5, lambda: seen.append(world.now))
    world.run(until=1.6)
    assert seen == [0.0, 0.5, 1.0, 1.5]


def test_a_cut_and_its_healing_are_felt_and_noted():
    world = World(1)
    world.add_node("node2")
    world.cut("node1", "node2")
    world.run(until=5.0)
    assert not world.converged()
    world.heal("node1", "node2")
    world.run_until(world.converged, timeout=10.0)
    assert [note.event for note in world.trace.notes(node="world")] == ["link.cut", "link.healed"]


def test_a_link_of_its_own_is_used():
    world = World(1)
    world.set_link("node1", "node2", Link(latency=0.5))
    world.add_node("node2")
    assert world.run_until(world.converged, timeout=10.0) > 2.0


def test_a_crash_leaves_the_disk_and_a_restart_counts_as_a_boot():
    world = World(1)
    world.add_node("node2")
    world.run_until(world.converged, timeout=5.0)
    world.crash("node2")
    assert [machine.name for machine in world.live()] == ["node1"]
    world.restart("node2")
    world.run_until(world.converged, timeout=5.0)
    world.restart("node2")  # running or not
    world.run_until(world.converged, timeout=5.0)


def test_an_invariant_that_does_not_hold_is_raised_with_time_and_seed():
    world = World(9)
    thief = world.add_node("thief")
    thief.engine.parts.holdings.blocks_in_use.append(
        world["node1"].engine.parts.holdings.blocks_in_use[0]
    )
    with pytest.raises(
        InvariantError, match=r"seed 9.*10.244.0.0/24 is used by node1 and by thief"
    ):
        world.check_invariants()


def test_the_underlay_may_be_ipv6():
    world = World(1, underlay=ADDRESSES6)
    world.join("node2")
    world.run_until(world.converged, timeout=5.0)
    assert world["node2"].endpoint.host == "2001:db8::2"


def test_settings_reach_every_engine():
    world = World(1, settings=Settings(prefer_aes=False))
    world.add_node("node2")
    world.run_until(lambda: bool(world["node2"].snapshot().sessions), timeout=5.0)
    (session,) = world["node2"].snapshot().sessions
    assert session.cipher.startswith("chacha20")


def test_virtual_time_begins_at_a_fixed_date():
    assert World(1).cluster.created == EPOCH


def test_a_restored_machine_runs_from_its_backup():
    world = World(1)
    world.add_node("node2")
    world.run_until(world.converged, timeout=5.0)
    image = world["node2"].disk.image()
    world["node2"].add_pod("web")
    world.run(world.now + 1.0)
    world.restore("node2", image)
    assert [pod.name for pod in world["node2"].snapshot().pods if pod.local] == []


def test_a_clone_has_the_keys_of_its_original_and_another_address():
    world = World(1)
    original = world.add_node("node2")
    world.run_until(world.converged, timeout=5.0)
    clone = world.clone("node2", "copy")
    assert clone.engine.identity.node == original.engine.identity.node
    assert clone.endpoint != original.endpoint
    with pytest.raises(StateError):
        world.clone("node2", "copy")


def test_a_machine_behind_a_nat_is_a_member_like_any_other():
    world = World(1)
    world.nats["node2"] = world.add_nat("nat", NatKind.SYMMETRIC)
    web = world.join("node2")
    assert web.endpoint.host.startswith("172.16.")
    world.run_until(world.converged, timeout=10.0)
    here, there = world["node1"].add_pod("a"), world["node2"].add_pod("b")
    world.run(world.now + 1.0)
    world.send_packet("node1", udp(here.address, there.address, b"hello"))
    world.run(world.now + 1.0)
    assert len(world["node2"].delivered) == 1
