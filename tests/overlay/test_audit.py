"""Tests of overlay.audit: each thing that can be wrong is found, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from overlay.audit import Finding
from overlay.catalog.records import sign_record
from overlay.ipam.allocator import Resting, Slot
from overlay.sim import World
from overlay.types import BlockIndex
from tests.sim.worlds import settled


def found(world: World, name: str = "node1", present: set[str] | None = None) -> list[str]:
    return [finding.code for finding in findings(world, name, present)]


def findings(
    world: World, name: str = "node1", present: set[str] | None = None
) -> tuple[Finding, ...]:
    engine = world[name].engine
    return engine.audit(set(engine.parts.holdings.pods) if present is None else present, world.now)


def test_a_sound_cluster_has_no_findings() -> None:
    world = settled(3)
    for name in world.machines:
        world[name].add_pod("web")
        world[name].add_pod("db")
        world[name].remove_pod("db")
    world.run(world.now + 2.0)
    assert [found(world, name) for name in world.machines] == [[], [], []]


def test_a_pod_without_a_namespace_is_leaked_and_can_be_freed() -> None:
    world = settled(1)
    world["node1"].add_pod("web")
    (finding,) = findings(world, present=set())
    assert (finding.code, finding.pod) == ("pod-lost", "web")
    assert "10.244.0.2" in finding.what


def test_a_pod_in_a_block_that_is_anothers_is_unreachable() -> None:
    world = settled(2)
    machine = world["node2"]
    machine.add_pod("web")
    titles = machine.engine.parts.catalog.titles
    owner = titles.owner
    other = world["node1"].membership.identity.node
    titles_like = type("Titles", (), {"owner": lambda _, block: other, "blocks_of": lambda *_: ()})
    machine.engine.parts.catalog.titles = titles_like()
    (finding,) = findings(world, "node2")
    machine.engine.parts.catalog.titles = titles
    assert (finding.code, finding.pod, finding.why) == (
        "pod-unreachable",
        "",
        "its block belongs to node1",
    )
    assert owner(BlockIndex(0)) == other


def test_a_record_that_says_something_else_is_found() -> None:
    world = settled(1)
    machine = world["node1"]
    machine.add_pod("web")
    assert findings(world) == (), "it only waits to be announced"
    world.run(world.now + 1.0)
    identity = machine.membership.identity
    known = machine.engine.parts.catalog.nodes[identity.node]
    item = sign_record(identity, version=known.version + 1, blocks_in_use=known.blocks_in_use)
    assert machine.engine.parts.catalog.apply(item)
    (finding,) = findings(world)
    assert finding.code == "record-differs"
    assert finding.what.endswith("is held but not announced")


def test_an_address_that_rests_beyond_all_measure_is_found() -> None:
    world = settled(1)
    holdings = world["node1"].engine.parts.holdings
    holdings.allocator._lay_to_rest(Resting("web", Slot(BlockIndex(0), 9), world.now + 3600.0))
    (finding,) = findings(world)
    assert finding.code == "resting-long"


def test_blocks_of_the_dead_and_the_left_are_out_of_reach() -> None:
    world = settled(3)
    world.crash("node3")
    world.run(world.now + 40.0)
    (finding,) = findings(world)
    assert (finding.code, finding.why) == ("blocks-unreachable", "node3 is dead")
    catalog = world["node1"].engine.parts.catalog
    node = world["node3"].membership.identity.node
    catalog.nodes[node] = replace(catalog.nodes[node], left=True)
    (finding,) = findings(world)
    assert finding.why == "node3 is left"
