"""An authority is rotated without a gap, and a removed one has no say, whatever it signs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.catalog.judge import Judge
from overlay.catalog.trust import Trust
from overlay.config import Settings, Timing
from overlay.errors import RefusedError
from overlay.keys import SigningKey
from overlay.offline import check_grant, items_with, unseal
from overlay.sim import World
from overlay.wire.authority import Act, sign_link
from overlay.wire.control import encode
from overlay.wire.messages import Delta
from overlay.wire.offline import CertificateRequest

from .worlds import routes_to, settled

SOON = Settings(timing=replace(Timing(), renew_spread=3.0, renew_retry=2.0))
TARGET = 10.0
"""Virtual seconds in which nobody has a session any more that must not."""


def second_of(world: World) -> SigningKey:
    return world.notary.key(bytes([2]) * 32)


def change(world: World, what: str, key: bytes, **options: bool) -> None:
    founder = world["node1"]
    request = getattr(founder.engine, f"{what}_authority")
    founder.perform(request(key, founder.now, **options))


def rotate(world: World, *, until: str = "use") -> SigningKey:
    """Node1 installs a second authority, whose key it holds, and uses it."""
    second, founder = second_of(world), world["node1"]
    founder.perform(founder.engine.hold_authority_key(second, founder.now))
    change(world, "install", second.public)
    world.run(world.now + 3.0)
    if until == "use":
        change(world, "use", second.public)
    return second


def issuers(world: World, name: str) -> dict[str, bytes]:
    """By whom each node that `name` knows is certified."""
    nodes = world[name].engine.parts.catalog.nodes.values()
    return {record.name: record.certificate.issuer for record in nodes}


def renewed(world: World, *names: str) -> bool:
    second = second_of(world).public
    return all(issuers(world, name).get(other) == second for name in names for other in names)


def has_session(world: World, one: str, other: str) -> bool:
    peer = world[other].membership.identity.node
    return world[one].engine.parts.sessions.current(peer) is not None


def apart(world: World, one: str, *others: str) -> bool:
    """Whether neither side of any pair has a session."""
    return not any(has_session(world, one, two) or has_session(world, two, one) for two in others)


def problems(world: World, name: str) -> list[str]:
    return [problem.code for problem in world[name].snapshot().problems]


def sessions_up(world: World, *names: str) -> dict[tuple[str, str], float | None]:
    return {
        (one, two): world[one].engine.parts.sessions.established_at(
            world[two].membership.identity.node
        )
        for one in names
        for two in names
        if one != two and has_session(world, one, two)
    }


def test_an_authority_is_rotated_while_members_are_down_and_cut_off() -> None:
    world = settled(5, settings=SOON)
    first, stay = world.cluster.authority, ["node1", "node2", "node3", "node4"]
    second = rotate(world, until="install")
    world.crash("node4")
    world.partition(["node1", "node2", "node3"], ["node5"])
    change(world, "use", second.public)
    world.run_until(lambda: renewed(world, "node1", "node2", "node3"), timeout=400.0)
    with pytest.raises(RefusedError, match="node4, node5") as left:
        change(world, "remove", first)
    assert left.value.code == "members-left"

    world.restart("node4")
    world.run_until(lambda: renewed(world, *stay), timeout=400.0)
    with pytest.raises(RefusedError, match=r"^node5 would"):
        change(world, "remove", first)
    up = sessions_up(world, *stay)
    assert up
    change(world, "remove", first, force=True)
    world.run(world.now + TARGET)
    assert {pair: now for pair, now in sessions_up(world, *stay).items() if pair in up} == up
    for name in stay:
        assert not has_session(world, name, "node5")
        assert routes_to(world, "node5", seen_by=name) == []
        assert problems(world, name) == []

    world.heal()
    world.run(world.now + TARGET)
    assert not any(has_session(world, name, "node5") for name in stay)
    assert sorted(issuers(world, "node1")) == stay
    world.check_invariants()


def test_who_missed_it_all_comes_back_with_a_certificate_that_is_made_by_hand() -> None:
    world = settled(3, settings=SOON)
    first = world.cluster.authority
    world.crash("node3")
    rotate(world)
    world.run_until(lambda: renewed(world, "node1", "node2"), timeout=400.0)
    change(world, "remove", first, force=True)
    world.run(world.now + TARGET)
    world.restart("node3")
    world.run(world.now + TARGET)
    assert not has_session(world, "node1", "node3"), "it is refused, and does not know why"

    world.crash("node3")
    away, wall = world["node3"].membership.identity, world["node1"].engine.parts.wall
    asked = CertificateRequest.sign(away.signing, away.static.public, "node3", world.cluster.id)
    line, effects = world["node1"].engine.sign_request(str(asked), world.now)
    world["node1"].perform(effects)
    grant, state = unseal(line, away.static), world["node3"].stored
    check_grant(
        grant,
        asked,
        pinned=None,
        cluster=world.cluster,
        wall=wall.at(world.now),
        held=state.items,
    )
    items = items_with(grant, state.items)
    brought = replace(state, certificate=grant.certificate.encode(), items=items)
    world.restore("node3", brought.entries())
    world.restart("node3")
    everybody = ("node1", "node2", "node3")
    world.run_until(lambda: renewed(world, *everybody), timeout=60.0)
    world.run_until(lambda: not problems(world, "node3"), timeout=60.0)
    assert routes_to(world, "node3", seen_by="node2") != []


def test_nothing_counts_that_is_said_in_a_session_that_ends(monkeypatch) -> None:
    slow = replace(SOON, timing=replace(SOON.timing, renew_spread=1e6))
    world = settled(2, settings=slow, check=False)
    second, founder = rotate(world), world["node1"].engine
    founder._certifier._renewal._ask_at = world.now
    world.run_until(lambda: issuers(world, "node2")["node1"] == second.public, timeout=60.0)
    heard: list[object] = []
    monkeypatch.setattr(founder, "_on_control", lambda *args: heard.append(args) or [])
    void = world["node2"]
    node, to = void.membership.identity.node, world["node1"].membership.identity.node
    change(world, "remove", world.cluster.authority, force=True)
    heard.clear()
    assert has_session(world, "node1", "node2")
    void.perform(void.engine.say(to, encode(Delta(())), world.now))
    world.run(world.now + 0.5)
    assert founder.parts.distrust.is_ending(node)
    assert heard == []
    world.run(world.now + TARGET)
    assert not founder.parts.distrust.is_ending(node)
    assert not has_session(world, "node1", "node2")


def test_who_has_not_renewed_is_cut_off_on_both_sides_and_told_why() -> None:
    world = settled(4, settings=replace(SOON, timing=replace(SOON.timing, renew_spread=1e6)))
    second, first = rotate(world), world.cluster.authority
    founder = world["node1"]
    # Node1 has renewed its own; the others would wait for their turn for long.
    founder.engine._certifier._renewal._ask_at = founder.now
    world.run_until(lambda: issuers(world, "node2")["node1"] == second.public, timeout=60.0)
    change(world, "remove", first, force=True)
    began = world.now
    others = ["node2", "node3", "node4"]
    world.run_until(lambda: all(apart(world, name, "node1") for name in others), timeout=TARGET)
    world.run_until(lambda: apart(world, "node2", "node3", "node4"), timeout=TARGET)
    assert world.now - began <= TARGET
    for name in others:
        assert "certificate-void" in problems(world, name)
        assert routes_to(world, name, seen_by="node1") == []


def test_a_node_joins_with_a_token_that_pins_the_list() -> None:
    world = settled(2, settings=SOON)
    second = rotate(world)
    world.run_until(lambda: renewed(world, "node1", "node2"), timeout=400.0)
    change(world, "remove", world.cluster.authority)
    world.join("newcomer")
    world.run_until(lambda: "newcomer" in world.machines and world.converged(), timeout=30.0)
    judge = world["newcomer"].engine.parts.catalog.judge
    assert judge.trust == world["node1"].engine.parts.catalog.judge.trust
    assert issuers(world, "node2")["newcomer"] == second.public


def after_a_rotation(**options: object) -> World:
    """Three nodes that trust the second authority alone."""
    world = settled(3, settings=SOON, **options)
    rotate(world)
    names = ["node1", "node2", "node3"]
    world.run_until(lambda: renewed(world, *names), timeout=400.0)
    change(world, "remove", world.cluster.authority)
    first = world.cluster.authority
    world.run_until(lambda: not any(trusts(world, name, first) for name in names), timeout=10.0)
    return world


def trusts(world: World, name: str, key: bytes) -> bool:
    return world[name].engine.parts.catalog.judge.trust.trusts(key)


THIRD = SigningKey(bytes([3]) * 32)


def tell_a_fork(world: World) -> None:
    """Node3 got hold of the first authority's key, and signs on as if it had not been removed."""
    stolen = world["node1"].membership.authorities[0]
    held = world["node1"].engine.parts.catalog.judge.trust
    trust = Trust.founded(world.cluster)
    for link in held.links[:-1]:
        trust = trust.extended(link)
    for act in (Act.INSTALL, Act.USE):
        made = sign_link(stolen, world.cluster, trust.links, act, THIRD.public, time=1)
        trust = trust.extended(made)
    tell(world, Delta((trust.item(),)))


def tell_a_link(world: World) -> None:
    """Node3 continues the list with the key of the authority that was removed."""
    stolen = world["node1"].membership.authorities[0]
    held = world["node1"].engine.parts.catalog.judge.trust
    link = sign_link(stolen, world.cluster, held.links, Act.INSTALL, THIRD.public, time=1)
    tell(world, Delta((replace(held, links=(*held.links, link)).item(),)))


def tell(world: World, message: Delta) -> None:
    liar = world["node3"]
    world.inspector.excuse(liar.membership.identity.node)
    for name in ("node1", "node2"):
        node = world[name].membership.identity.node
        liar.perform(liar.engine.say(node, encode(message), world.now))
    world.run(world.now + 3.0)


@pytest.mark.parametrize("lie", [tell_a_fork, tell_a_link])
def test_a_removed_authority_has_no_say_in_who_is_trusted(lie) -> None:
    world = after_a_rotation()
    before = world["node2"].engine.parts.catalog.judge.trust
    lie(world)
    for name in ("node1", "node2"):
        assert world[name].engine.parts.catalog.judge.trust == before
        assert not trusts(world, name, THIRD.public)
        assert ("authority-conflict" in problems(world, name)) == (lie is tell_a_fork)


# -- the checks are alive --------------------------------------------------------------------------


def test_without_the_question_who_signs_it_a_removed_authority_is_heard(monkeypatch) -> None:
    world = after_a_rotation(check=False)
    monkeypatch.setattr(Trust, "trusts", lambda _trust, _key: True)
    tell_a_link(world)
    assert world["node2"].engine.parts.catalog.judge.trust.standing(THIRD.public) is not None


def test_without_the_question_what_it_continues_a_fork_is_believed(monkeypatch) -> None:
    world = after_a_rotation(check=False)

    original = Trust.extend_untrusted
    monkeypatch.setattr(
        Trust,
        "extend_untrusted",
        lambda trust, item: original(Trust.founded(trust.cluster), item),
    )
    tell_a_fork(world)
    assert trusts(world, "node2", THIRD.public)


def test_without_judgement_nobody_is_cut_off(monkeypatch) -> None:
    world = settled(3, settings=replace(SOON, timing=replace(SOON.timing, renew_spread=1e6)))
    rotate(world)
    monkeypatch.setattr(Judge, "certifies", lambda _judge, _record: True)
    change(world, "remove", world.cluster.authority, force=True)
    world.run(world.now + 3.0)
    assert routes_to(world, "node2", seen_by="node1") != []
