"""Tests of overlay.certifying: renewed certificates, in small simulated clusters."""

from __future__ import annotations

import pytest

from overlay.catalog.removals import is_removed
from overlay.config import Settings, Timing
from overlay.effects import Persist, Renewed, SendControl
from overlay.errors import RefusedError
from overlay.sim import World
from overlay.sim.world import EPOCH
from overlay.types import NodeId
from overlay.validity import RENEW_SHARE, last_part
from overlay.wire.certificate import Certificate
from overlay.wire.control import decode_untrusted
from overlay.wire.messages import Refusal, RenewGrant, RenewRequest
from tests.sim.worlds import settled
from tests.support.engines import node_id
from tests.support.stewards import FULL, check

LIFE = 60


def world_of(nodes: int = 2, lifetime: int = LIFE, **settings: object) -> World:
    """Settled, with one more node, called `short`, whose certificate is due soon."""
    world = settled(nodes, **settings)
    world.add_node("short", lifetime=lifetime)
    world.run(world.now + 3.0)
    return world


def present(world: World, name: str) -> Certificate:
    """The certificate that a node uses."""
    return world[name].engine.identity.certificate


def shown(world: World, name: str, seen_by: str) -> Certificate:
    """The one that another has seen in its record."""
    return world[seen_by].engine.parts.catalog.nodes[node_id(world, name)].certificate


def renewed(world: World, name: str = "short") -> bool:
    return present(world, name) != world[name].membership.identity.certificate


def ask(world: World, asker: str, at: str = "node1") -> RenewGrant | Refusal:
    """The answer to a request, which is not sent."""
    engine = world[at].engine
    effects = engine._certifier.on_message(node_id(world, asker), RenewRequest(7), world.now)
    (answer,) = [effect for effect in effects or () if isinstance(effect, SendControl)]
    message = decode_untrusted(answer.message)
    assert isinstance(message, RenewGrant | Refusal)
    assert message.request == 7
    if isinstance(message, RenewGrant) and isinstance(effects, list) and len(effects) > 1:
        assert isinstance(effects[0], Persist), "stored before it is told"
    return message


def refused(world: World, asker: str, at: str = "node1") -> str:
    answer = ask(world, asker, at)
    assert isinstance(answer, Refusal)
    return answer.code


# -- one that is due -------------------------------------------------------------------------------


def test_a_certificate_is_renewed_before_it_ends_and_everybody_hears_of_it() -> None:
    world = world_of(3)
    old = present(world, "short")
    world.run(world.now + LIFE)
    new = present(world, "short")
    assert new.serial > old.serial
    assert [shown(world, "short", name) for name in ("node1", "node2", "node3")] == [new] * 3
    assert world["short"].stored.certificate == new.encode()
    world.check_invariants()


def test_it_is_not_renewed_before_it_is_due() -> None:
    world = world_of()
    until = last_part(present(world, "short"), RENEW_SHARE) - EPOCH
    world.run(until - 1.0)
    assert not renewed(world)
    world.run(until + 5.0)
    assert renewed(world)


def test_sessions_outlive_the_old_certificate() -> None:
    world = world_of(3)
    peer = world["node2"].engine.parts.sessions
    since = peer.established_at(node_id(world, "short"))
    world.run(world.now + LIFE + 400.0)  # the last keypair that the old one could bring is over
    assert since is not None
    assert peer.established_at(node_id(world, "short")) == since
    until = peer._peers[node_id(world, "short")].valid_until
    assert until == present(world, "short").not_after, "who starts handshakes goes by the new one"


def test_a_restart_goes_on_with_the_new_one() -> None:
    world = world_of()
    world.run(world.now + LIFE)
    new = present(world, "short")
    world.crash("short")
    world["short"].start()
    assert present(world, "short") == new
    world.run(world.now + 5.0)
    assert shown(world, "short", "node2") == new


def test_what_cannot_be_stored_is_not_used_and_is_asked_for_again() -> None:
    world = world_of()
    until = last_part(present(world, "short"), RENEW_SHARE) - EPOCH
    world.run(until - 1.0)
    world["short"].disk.fail(FULL)
    world.run(until + 10.0)
    assert world["short"].engine.identity.kept, "it was granted one"
    assert not renewed(world)
    check(world)
    world["short"].disk.fail(0)
    world.run(world.now + 10.0)
    assert renewed(world)
    check(world)


def test_another_one_that_comes_meanwhile_is_not_used_before_it_is_stored() -> None:
    world = world_of()
    engine = world["short"].engine
    first, second = shown(world, "node1", "node2"), shown(world, "node2", "node1")
    engine.identity.keep(second)
    before = engine.identity.certificate
    assert engine.on_renewed(first.encode(), world.now) == []
    assert engine.identity.certificate == before


def test_the_authority_s_node_renews_its_own() -> None:
    world = settled(2, settings=Settings(timing=Timing(renew_spread=10.0)))
    engine = world["node1"].engine
    old = engine.identity.certificate
    world["node1"].set_clock(step=last_part(old, RENEW_SHARE) - EPOCH)
    world["node2"].set_clock(step=last_part(old, RENEW_SHARE) - EPOCH)
    world.run(world.now + 30.0)
    new = present(world, "node1")
    assert (new.serial > old.serial, new.name) == (True, "node1")
    assert shown(world, "node1", "node2") == new
    assert renewed(world, "node2")


def test_who_is_frozen_certifies_nobody_not_even_itself() -> None:
    world = world_of()
    conflict = world["node1"].engine.conflict
    conflict.check = lambda: (_ for _ in ()).throw(RefusedError("identity-conflict", "two of it"))
    world.run(world.now + LIFE - 5.0)
    assert refused(world, "short") == "identity-conflict"
    assert world["short"].engine.parts.renewal.refused


def test_who_has_left_asks_no_more() -> None:
    world = world_of()
    world["short"].leave()
    world.run(world.now + 1.0)
    until = last_part(world["short"].membership.identity.certificate, RENEW_SHARE) - EPOCH
    world.run(until + 10.0)
    assert world["short"].left


# -- whom the authority's node answers -------------------------------------------------------------


def due(world: World) -> World:
    """Now `short` is due; but nobody hears its own question."""
    world["short"].engine.parts.renewal._certifiers = lambda _: []
    world.run(last_part(present(world, "short"), RENEW_SHARE) - EPOCH + 1.0)
    return world


def test_who_asks_is_certified_as_its_record_shows_it() -> None:
    world = due(world_of())
    old, answer = shown(world, "short", "node1"), ask(world, "short")
    assert isinstance(answer, RenewGrant)
    new = Certificate.decode_untrusted(answer.certificate)
    assert (new.node, new.static, new.name) == (old.node, old.static, old.name)
    assert ask(world, "short") == answer, "asked again, it is the same"


def test_who_is_not_answered_with_a_certificate() -> None:
    world = due(world_of())
    assert refused(world, "node2") == "not-due"
    assert refused(world, "short", at="node2") == "not-authority"
    engine = world["node1"].engine
    engine.parts.catalog.nodes.pop(node_id(world, "node2"))
    assert refused(world, "node2") == "no-record"
    engine._steward.not_stored = "no space"
    assert refused(world, "short") == "not-stored"


def test_a_removed_node_gets_none() -> None:
    world = due(world_of())
    world["node1"].remove("short", force=True)
    asker = world["short"].membership.identity.node
    assert is_removed(world["node1"].stored.items, world.cluster, asker)
    engine = world["node1"].engine
    with pytest.raises(RefusedError, match="was removed"):
        engine._certifier._certify(present(world, "short"), world.now)


def test_a_name_that_another_node_has_now_is_not_certified_for_the_first() -> None:
    world = due(world_of())
    registrar = world["node1"].engine.parts.registrar
    assert registrar is not None
    registrar.reserve("short", NodeId(bytes(32)))
    assert refused(world, "short") == "name-taken"


def test_effects_are_in_the_order_of_what_must_be_stored() -> None:
    world = due(world_of())
    engine = world["short"].engine
    new = shown(world, "node2", "node1")
    persist, used = engine._certifier._take(new)
    assert isinstance(persist, Persist)
    assert used == Renewed(new.encode())
