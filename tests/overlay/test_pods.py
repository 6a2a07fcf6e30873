"""Tests of overlay.pods: whose a pod is, of which boot, and when its address is taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from overlay.attachment import NOTHING_SAID, Attachment
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


WEB = Attachment(container="c0ffee00112233", labels=(("pod", "web"),), network="pods")


def refusal(function: Callable[..., object], *args: object) -> str:
    with pytest.raises(RefusedError) as caught:
        function(*args)
    return caught.value.code


def test_a_pod_without_a_name_gets_one_and_is_found_by_its_container() -> None:
    world = settled(1)
    pods = keeper(world)
    names = []
    for container in ("a", "b"):
        said = replace(WEB, container=container)
        view, _ = pods.add("", "/ns/web", None, "cni", world.now, attachment=said)
        assert (view.owner, view.attachment) == ("cni", said)
        assert pods.find(container, "eth0") == view
        names.append(view.name)
    assert names[0] == "web"
    assert names[1].startswith("web-")
    assert pods.find("a", "net1") is None


def test_what_a_runtime_says_is_stored_and_told_to_nobody() -> None:
    world = settled(2)
    machine = world["node1"]
    view, effects = machine.engine.add_pod(
        "web", "/ns/web", None, world.now, owner="cni", attachment=WEB
    )
    assert isinstance(effects[0], Persist)
    machine.perform(effects)
    world.run(world.now + 1.0)
    (seen,) = world["node2"].snapshot().pods
    assert seen.name == "web"
    assert (seen.owner, seen.attachment) == ("", NOTHING_SAID)
    again = machine.engine.pod_of(WEB.container, "eth0")
    assert again == view
    assert machine.engine.parts.holdings.stored(1).pods[0].attachment == WEB


def test_a_reservation_is_stored_and_outlives_pods_that_are_gone() -> None:
    world = settled(1)
    engine = world["node1"].engine
    held, effects = engine.reserve("docker", None, world.now)
    assert isinstance(effects[0], Persist)
    assert any(key.startswith(b"reserved/") for key, _ in effects[0].changes)
    engine.add_pod("web", "", held.address, world.now, owner="docker")
    assert [one.pod for one in engine.reserved()] == ["web"]
    engine.release_lost((), world.now)
    assert engine.reserved() == (held,)
    released, effects = engine.release_reserved("docker", held.address, world.now)
    assert released
    assert isinstance(effects[0], Persist)
    assert engine.release_reserved("docker", held.address, world.now) == (False, [])
    assert engine.reserved() == ()


def test_a_node_that_can_store_nothing_is_not_ready_and_reserves_nothing() -> None:
    world = settled(1)
    engine = world["node1"].engine
    engine.check_ready(world.now)
    before = engine.parts.holdings.stored(1)
    engine.on_persist_failed((), "no space", world.now)
    assert refusal(engine.check_ready, world.now) == "not-stored"
    assert refusal(engine.reserve, "docker", None, world.now) == "not-stored"
    assert engine.parts.holdings.stored(1) == before


def test_a_node_without_a_free_address_is_not_ready() -> None:
    world = settled(1)
    holdings = world["node1"].engine.parts.holdings
    for block in range(len(holdings.owned()) - 1):
        assert holdings.use_a_block(), block
    holdings.allocator.close_all_but(())
    before = holdings.stored(1)
    assert refusal(keeper(world).check_ready, world.now) == "no-free-address"
    assert refusal(keeper(world).reserve, "docker", None, world.now) == "no-free-address"
    assert holdings.stored(1) == before
    holdings.blocks_in_use.clear()
    assert refusal(keeper(world).check_ready, world.now) == "no-block"


def test_what_was_gone_at_the_start_is_told_until_it_is_added_again() -> None:
    world = settled(1)
    machine = world["node1"]
    for number in range(7):
        machine.add_pod(f"p{number}")
    machine.perform(machine.engine.release_lost({"p6"}, world.now))
    assert machine.snapshot().notices == ()  # somebody asked for that
    machine.add_pod("p0")
    machine.perform(machine.engine.release_lost((), world.now, at_start=True))
    (notice,) = machine.snapshot().notices
    assert notice.code == "pods-freed"
    assert notice.what == "2 pods were gone when the daemon started: p0, p6"
    assert notice.why == "its namespace is gone"
    machine.add_pod("p0")
    assert machine.snapshot().notices[0].what.startswith("1 pod was gone")
    machine.add_pod("p6")
    assert machine.snapshot().notices == ()
