"""Tests of overlay.pods: whose a pod is, of which boot, and when its address is taken back."""

from __future__ import annotations

import pytest

from overlay.config import Limits, Settings
from overlay.effects import NetworkChanged, Persist, Report
from overlay.errors import CapacityError, RefusedError
from overlay.pods import CLI, PodKeeper
from overlay.sim import World
from tests.sim.worlds import settled


def keeper(world: World, boot_id: str = "") -> PodKeeper:
    return PodKeeper(world["node1"].engine._steward, boot_id)


def test_a_pod_is_stored_with_its_owner_and_boot() -> None:
    world = settled(1)
    engine = world["node1"].engine
    keeper(world, "b-1").add("web", "/ns/web", None, "cni:7", world.now)
    engine.add_pod("db", "/ns/db", None, world.now)
    pods = engine.parts.holdings.pods
    assert (pods["web"].owner, pods["web"].boot_id) == ("cni:7", "b-1")
    assert (pods["db"].owner, pods["db"].boot_id) == (CLI, "")


def test_pods_of_another_boot_or_without_a_namespace_are_lost() -> None:
    world = settled(1)
    keeper(world, "b-1").add("old", "/ns/old", None, CLI, world.now)
    for name in ("gone", "there"):
        keeper(world, "b-2").add(name, f"/ns/{name}", None, CLI, world.now)
    assert keeper(world, "b-2").lost({"old", "there"}) == {
        "old": "the machine has been restarted",
        "gone": "its namespace is gone",
    }


def test_what_is_lost_is_released_stored_announced_and_reported() -> None:
    world = settled(2)
    machine = world["node1"]
    address = machine.add_pod("web").address
    machine.add_pod("db")
    effects = machine.engine.release_lost({"db"}, world.now)
    assert isinstance(effects[0], Persist)
    assert NetworkChanged() in effects
    fields = {"pod": "web", "owner": "cli", "why": "its namespace is gone"}
    assert Report("pod.reconciled", fields) in effects
    machine.perform(effects)
    world.run(world.now + 1.0)
    assert [pod.name for pod in world["node2"].snapshot().pods] == ["db"]
    assert machine.add_pod("new").address != address  # it rests


def test_nothing_lost_is_nothing_to_store() -> None:
    world = settled(1)
    world["node1"].add_pod("web")
    assert world["node1"].engine.release_lost({"web"}, world.now) == []
    assert keeper(world).release({"unknown": "?"}, world.now) == []


def test_a_pod_that_does_not_fit_the_record_leaves_nothing() -> None:
    world = settled(1, settings=Settings(limits=Limits(record=1_000)))
    holdings = world["node1"].engine.parts.holdings
    pods = keeper(world)

    def fill() -> None:
        for number in range(100):
            pods.add(f"a-pod-with-a-long-name-{number}", "/ns/web", None, CLI, world.now)

    with pytest.raises(CapacityError, match="no room"):
        fill()
    free = holdings.free_slots(world.now)
    assert free == 253 - len(holdings.pods)
    for number in range(10):  # no address rests that nobody ever had
        with pytest.raises(CapacityError):
            pods.add(f"another-pod-with-a-long-name-{number}", "/ns/web", None, CLI, world.now)
    assert holdings.free_slots(world.now) == free


def test_removing_what_is_not_there_is_refused() -> None:
    with pytest.raises(RefusedError) as caught:
        keeper(settled(1)).remove("web", 1.0)
    assert caught.value.code == "no-such-pod"
