"""Tests of overlay.crossing: whose machine reaches parts of the pod network by itself."""

from __future__ import annotations

from ipaddress import ip_network

from overlay.crossing import MAX_NAMED, crosses, told
from overlay.views import Problem
from overlay.wire.routes import ROUTES_MAX
from tests.sim.worlds import settled
from tests.support.engines import engine_of, node_id

INSIDE = ip_network("10.244.7.0/24")


def notices(world, name: str) -> list[Problem]:
    snapshot = world[name].snapshot()
    assert "range-overlap" not in {problem.code for problem in snapshot.problems}
    return [one for one in snapshot.notices if one.code == "node-range-overlap"]


def test_a_prefix_crosses_the_range_of_its_family_however_long_it_is() -> None:
    cluster = settled(1)["node1"].engine.cluster
    assert cluster.cidr == ip_network("10.244.0.0/16")
    assert crosses(INSIDE, cluster)
    assert crosses(ip_network("10.0.0.0/8"), cluster)
    assert not crosses(ip_network("10.245.0.0/16"), cluster)
    assert not crosses(ip_network("2001:db8::/32"), cluster)
    assert cluster.cidr6 is not None
    assert crosses(next(cluster.cidr6.subnets(new_prefix=64)), cluster)


def test_a_record_has_room_for_the_widest_of_many() -> None:
    many = [ip_network(f"10.244.{n}.0/24") for n in range(20)]
    wide = ip_network("10.244.0.0/17")
    assert told([*many, wide, INSIDE, wide]) == (wide, *many[: ROUTES_MAX - 1])
    assert told(reversed(many)) == told(many)


def test_what_one_machine_reaches_by_itself_every_other_one_names_until_it_is_over() -> None:
    world = settled(3)
    machine = world["node2"]
    machine.perform(machine.engine.on_crossed((INSIDE,), world.now))
    world.run_until(lambda: bool(notices(world, "node1") and notices(world, "node3")), timeout=5.0)
    (notice,) = notices(world, "node3")
    assert notice.what.startswith("node2 reaches 10.244.7.0/24 by itself")
    assert not notices(world, "node2"), "there it is a problem, with the link in it"
    world.crash("node2")
    assert notices(world, "node1"), "its word stands until it says otherwise"
    world.restart("node2")
    world.run_until(lambda: not (notices(world, "node1") or notices(world, "node3")), timeout=30.0)


def test_a_route_around_the_range_takes_nothing_from_pods() -> None:
    world = settled(2)
    machine = world["node2"]
    machine.perform(machine.engine.on_crossed((ip_network("10.0.0.0/8"),), world.now))
    world.run_until(lambda: bool(notices(world, "node1")), timeout=5.0)
    (notice,) = notices(world, "node1")
    assert notice.what == (
        "node2 reaches 10.0.0.0/8 by itself: other addresses in 10.244.0.0/16 are out of its reach"
    )


def test_the_same_again_costs_no_record() -> None:
    world = settled(2)
    machine = world["node2"]
    machine.perform(machine.engine.on_crossed((INSIDE,), world.now))
    version = machine.engine.parts.catalog.nodes[machine.engine.identity.node].version
    assert machine.engine.on_crossed((INSIDE,), world.now) == []
    assert machine.engine.parts.catalog.nodes[machine.engine.identity.node].version == version


def test_a_member_that_lies_fills_no_status_and_makes_nobody_unwell() -> None:
    world = settled(6)
    for n, name in enumerate(("node2", "node3", "node4"), start=1):
        liar = world[name]
        crossed = tuple(ip_network(f"10.244.{n * 16 + part}.0/24") for part in range(ROUTES_MAX))
        foreign = ip_network("203.0.112.0/20")  # wider, so it is among what is told
        liar.perform(liar.engine.on_crossed((foreign, *crossed), world.now))
    world.run_until(lambda: len(notices(world, "node1")) == MAX_NAMED + 1, timeout=10.0)
    assert foreign in engine_of(world, "node1").parts.catalog.nodes[node_id(world, "node2")].crossed
    assert "203.0.112" not in str(notices(world, "node1"))
    assert "more parts" in notices(world, "node1")[-1].what
