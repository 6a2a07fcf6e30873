"""Tests of overlay.certifying: renewed certificates, in small simulated clusters."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from overlay.catalog.records import NodeRecord
from overlay.catalog.removals import is_removed
from overlay.config import Settings, Timing
from overlay.effects import Persist, Renewed, SendControl
from overlay.errors import ConfigError, RefusedError
from overlay.offline import unseal
from overlay.sim import World
from overlay.sim.world import EPOCH
from overlay.types import NodeId
from overlay.validity import RENEW_SHARE, last_part
from overlay.wire.certificate import Certificate
from overlay.wire.control import decode_untrusted
from overlay.wire.messages import Refusal, RenewGrant, RenewRequest
from overlay.wire.offline import CertificateRequest
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
    until = peer.peers[node_id(world, "short")].valid_until
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


def test_a_slow_disk_is_waited_for() -> None:
    world = world_of()
    engine, slow = world["short"].engine, 4.0
    world["short"].disk.latency = slow
    world.run_until(lambda: engine.identity.kept != b"", timeout=LIFE)
    granted = world.now
    world.run_until(lambda: renewed(world), timeout=LIFE)
    assert world.now - granted >= slow - 1.0, "what was under way may have been written before"
    assert world["short"].stored.certificate == present(world, "short").encode()
    world.run(world.now + 2 * slow)
    assert shown(world, "short", "node2") == present(world, "short")


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


def test_who_has_left_is_not_certified_again() -> None:
    """Its session may last, and its machine may run something else than this."""
    world = due(world_of())
    nodes, node = world["node1"].engine.parts.catalog.nodes, node_id(world, "short")
    nodes[node] = replace(nodes[node], left=True)
    assert refused(world, "short") == "node-left"


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


def test_a_name_that_another_authority_gave_to_a_newer_node_is_not_certified() -> None:
    world = due(world_of())
    namesake = world.membership("short")
    record = NodeRecord(namesake.identity.certificate, 1)
    world["node1"].engine.parts.catalog.nodes[record.node] = record
    assert refused(world, "short") == "name-taken"


def test_effects_are_in_the_order_of_what_must_be_stored() -> None:
    world = due(world_of())
    engine = world["short"].engine
    new = shown(world, "node2", "node1")
    persist, used = engine._certifier._take(new)
    assert isinstance(persist, Persist)
    assert used == Renewed(new.encode())


# -- by hand -----------------------------------------------------------------------------------


def signed_by_hand(world: World, name: str, **options: object) -> bytes:
    """A certificate that an operator has signed for a node, and brings there."""
    identity = world[name].membership.identity
    request = CertificateRequest.sign(
        identity.signing, identity.static.public, name, world.cluster.id
    )
    line, effects = world["node1"].engine.sign_request(str(request), world.now, **options)
    world["node1"].perform(effects)
    return unseal(line, identity.static).certificate.encode()


def install(world: World, name: str, certificate: bytes) -> None:
    world[name].perform(world[name].engine.install_certificate(certificate, world.now))


def test_a_certificate_that_an_operator_brings_is_stored_then_used_and_shown() -> None:
    world = settled(2)
    routes = (ip_network("192.0.2.0/24"),)
    made = signed_by_hand(world, "node2", routes=routes)
    effects = world["node2"].engine.install_certificate(made, world.now)
    assert isinstance(effects[0], Persist)
    assert present(world, "node2").encode() != made, "not before it is stored"
    world["node2"].perform(effects)
    assert present(world, "node2").encode() == made
    assert present(world, "node2").routes == routes
    world.run(world.now + 5.0)
    assert shown(world, "node2", "node1").encode() == made
    world.crash("node2")
    world.restart("node2")
    assert present(world, "node2").encode() == made


def test_without_a_word_about_routes_or_days_the_routes_stay_and_the_end_is_later() -> None:
    world = settled(2)
    routes = (ip_network("192.0.2.0/24"),)
    install(world, "node2", signed_by_hand(world, "node2", routes=routes))
    world.run(world.now + 5.0)
    before = present(world, "node2")
    install(world, "node2", signed_by_hand(world, "node2"))
    after = present(world, "node2")
    assert after.routes == routes
    assert after.not_after > before.not_after
    assert after.serial > before.serial
    with pytest.raises(ConfigError) as caught:
        signed_by_hand(world, "node2", lifetime=86_400.0)
    assert caught.value.key == "--days"


def test_the_certificate_in_use_may_be_brought_again_and_an_older_one_may_not() -> None:
    world = settled(2)
    first = signed_by_hand(world, "node2")
    world.run(world.now + 2.0)
    second = signed_by_hand(world, "node2")
    install(world, "node2", second)
    assert world["node2"].engine.install_certificate(second, world.now) == []
    for wrong in (first, present(world, "node1").encode(), b"nonsense"):
        with pytest.raises(RefusedError) as caught:
            world["node2"].engine.install_certificate(wrong, world.now)
        assert caught.value.code == "bad-certificate"
    assert present(world, "node2").encode() == second


def test_nothing_is_installed_that_cannot_be_stored_or_where_membership_has_ended() -> None:
    world = settled(3)
    made = {name: signed_by_hand(world, name) for name in ("node2", "node3")}
    world["node2"].disk.fail(FULL)
    world["node2"].add_pod("first")
    world["node1"].remove("node3", force=True)
    world.run(world.now + 5.0)
    for name, code in (("node2", "not-stored"), ("node3", "node-removed")):
        with pytest.raises(RefusedError) as caught:
            world[name].engine.install_certificate(made[name], world.now)
        assert caught.value.code == code
