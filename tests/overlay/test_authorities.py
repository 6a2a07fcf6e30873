"""Tests of overlay.authorities: what `muslin authority` refuses, and what it does at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay import authorities
from overlay.authorities import Authorities
from overlay.config import Settings, Timing
from overlay.effects import Persist, Report
from overlay.errors import RefusedError
from overlay.keys import SigningKey
from overlay.sim import World
from overlay.views import AuthorityView
from tests.sim.worlds import settled

SOON = Settings(timing=replace(Timing(), renew_spread=3.0))


def key_of(world: World, number: int = 2) -> SigningKey:
    return world.notary.key(bytes([number]) * 32)


def founder(world: World) -> Authorities:
    return world["node1"].engine._authorities


def change(world: World, what: str, key: SigningKey, by: str = "node1", **options: bool) -> None:
    """One request to the engine of a node."""
    machine = world[by]
    request = getattr(machine.engine, f"{what}_authority")
    machine.perform(request(key.public, machine.now, **options))


def refused(
    world: World, what: str, key: bytes, by: str = "node1", **options: bool
) -> RefusedError:
    machine = world[by]
    before = machine.snapshot()
    with pytest.raises(RefusedError) as caught:
        getattr(machine.engine, f"{what}_authority")(key, machine.now, **options)
    assert machine.snapshot() == before
    return caught.value


def hold(world: World, key: SigningKey, by: str = "node1") -> None:
    machine = world[by]
    machine.perform(machine.engine.hold_authority_key(key, machine.now))


def renewed(world: World, key: SigningKey) -> bool:
    """Whether the record of every node, at every node, has a certificate by `key`."""
    return all(
        record.certificate.issuer == key.public
        for machine in world.machines.values()
        for record in machine.engine.parts.catalog.nodes.values()
    )


def standings(world: World, name: str) -> list[str]:
    return [view.standing for view in world[name].engine.authorities()]


def test_only_where_a_trusted_key_is_held_is_the_list_changed() -> None:
    world = settled(2)
    second = key_of(world)
    assert refused(world, "install", second.public, by="node2").code == "not-authority"
    hold(world, second, by="node2")
    assert refused(world, "install", second.public, by="node2").code == "not-authority"
    change(world, "install", second)
    world.run(world.now + 3.0)
    change(world, "install", key_of(world, 3), by="node2")
    assert standings(world, "node2") == ["in-use", "trusted", "trusted"]


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31)])
def test_what_is_no_key_is_not_installed(key: bytes) -> None:
    assert refused(settled(1), "install", key).code == "bad-key"


def test_a_node_is_no_authority() -> None:
    world = settled(2)
    node = world["node2"].membership.identity.node
    assert refused(world, "install", node).code == "bad-key"


def test_what_makes_no_sense_is_refused_with_its_reason() -> None:
    world = settled(1, settings=SOON)
    first, second = world.cluster.authority, key_of(world)
    assert refused(world, "install", first).code == "known-authority"
    for what in ("use", "remove"):
        assert refused(world, what, second.public).code == "unknown-authority"
        assert refused(world, what, first).code == "in-use"
    assert "nothing is to be done" in refused(world, "use", first).fix
    assert "use another one first" in refused(world, "remove", first).fix
    hold(world, second)
    for what in ("install", "use"):
        change(world, what, second)
    world.run_until(lambda: renewed(world, second), timeout=120.0)
    machine = world["node1"]
    machine.perform(machine.engine.remove_authority(first, machine.now))
    assert standings(world, "node1") == ["removed", "in-use"]
    assert refused(world, "install", first).code == "authority-removed"
    assert refused(world, "use", first).code == "unknown-authority"


def test_an_authority_whose_certificates_are_in_use_is_removed_only_by_force() -> None:
    world = settled(3)
    second = key_of(world)
    for what in ("install", "use"):
        change(world, what, second)
    error = refused(world, "remove", world.cluster.authority)
    assert error.code == "members-left"
    assert "node1, node2, node3" in str(error)
    machine = world["node1"]
    forced = machine.engine.remove_authority(world.cluster.authority, machine.now, force=True)
    machine.perform(forced)
    assert standings(world, "node1") == ["removed", "in-use"]


def test_the_list_is_stored_before_it_is_told() -> None:
    world = settled(2)
    machine = world["node1"]
    effects = machine.engine.install_authority(key_of(world).public, machine.now)
    kinds = [type(effect).__name__ for effect in effects]
    assert kinds[0] == Persist.__name__
    events = [effect.event for effect in effects if isinstance(effect, Report)]
    assert events == ["authority.installed"]


def test_a_node_that_cannot_store_changes_nothing() -> None:
    world = settled(1)
    machine = world["node1"]
    machine.engine.on_persist_failed([], "disk full", machine.now)
    assert refused(world, "install", key_of(world).public).code == "not-stored"


def test_the_list_has_room_for_so_many_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = settled(1)
    monkeypatch.setattr(authorities, "LINKS_MAX", 1)
    change(world, "install", key_of(world))
    assert refused(world, "install", key_of(world, 3).public).code == "too-many-links"


def test_what_the_removed_one_said_is_listed_up_to_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = settled(2)
    second = key_of(world)
    world["node1"].remove("node2", force=True)
    hold(world, second)
    for what in ("install", "use"):
        change(world, what, second)
    first = world.cluster.authority
    for limit in ("STATEMENTS_MAX", "LIST_MAX"):
        with monkeypatch.context() as patched:
            patched.setattr(authorities, limit, 0)
            assert refused(world, "remove", first, force=True).code == "too-many-statements"
    machine = world["node1"]
    machine.perform(machine.engine.remove_authority(first, machine.now, force=True))
    (link,) = machine.engine.parts.catalog.judge.trust.links[2:]
    assert len(link.statements()) >= 1
    assert machine.engine.parts.catalog.removed, "the removal stands"


def test_a_full_store_has_no_room_for_the_first_change() -> None:
    world = settled(1)
    store = world["node1"].engine.parts.store
    store._limits = replace(store._limits, items=len(store))
    assert refused(world, "install", key_of(world).public).code == "store-full"


def test_views_tell_who_is_certified_by_whom_and_where_keys_are() -> None:
    world = settled(2)
    second = key_of(world)
    change(world, "install", second)
    world.run(world.now + 3.0)
    shown = world["node2"].engine.authorities()
    assert [view.key for view in shown] == [world.cluster.authority, second.public]
    assert [view.held for view in shown] == [False, False]
    assert [view.members for view in shown] == [("node1", "node2"), ()]
    hold(world, second)
    assert isinstance(shown[0], AuthorityView)
    assert [view.held for view in world["node1"].engine.authorities()] == [True, True]


def test_who_has_the_key_in_use_says_so_in_its_record() -> None:
    world = settled(3)
    second = key_of(world)
    change(world, "install", second)
    hold(world, second, by="node2")
    change(world, "use", second)

    def admits() -> list[str]:
        records = world["node3"].engine.parts.catalog.nodes.values()
        return sorted(record.name for record in records if record.is_authority)

    world.run_until(lambda: admits() == ["node2"], timeout=20.0)
    with pytest.raises(RefusedError, match="authority's key"):
        world["node1"].engine.mint_token(60.0, world.now)
    assert world["node2"].engine.mint_token(60.0, world.now)
