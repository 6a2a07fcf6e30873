"""Tests of overlay.offline."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from overlay.config import CERTIFICATE_LIFETIME
from overlay.errors import AuthError, ConfigError, RefusedError
from overlay.offline import check_grant, seal, unseal
from overlay.sim import World
from overlay.sim.site import Membership
from overlay.wire.certificate import Identity
from overlay.wire.offline import GRANT_LINE, CertificateRequest, Grant
from tests.sim.worlds import settled
from tests.support.clusters import (
    AUTHORITY,
    WALL,
    make_cluster,
    make_identity,
    signing_key,
    static_key,
)
from tests.support.stewards import FULL, assert_stored_first, refused

CLUSTER = make_cluster()
PIN = CLUSTER.authority_fingerprint
REQUEST = CertificateRequest.sign(signing_key(1), static_key(1).public, "node1")
GRANT = Grant(CLUSTER, make_identity(1, CLUSTER).certificate, b"p" * 32, ()).signed(AUTHORITY)


def draw(size: int) -> bytes:
    return b"e" * size


def requested(number: int, name: str = "new", cluster: bytes = b"") -> str:
    return str(
        CertificateRequest.sign(signing_key(number), static_key(number).public, name, cluster)
    )


def granted(world: World, request: str, number: int, **options: object) -> Grant:
    """What node1 signs, stored, and opened by who asked."""
    line, effects = world["node1"].engine.sign_request(request, world.now, **options)
    assert_stored_first(effects)
    world["node1"].perform(effects)
    return unseal(line, static_key(number))


# -- sealing ---------------------------------------------------------------------------------------


def test_a_sealed_grant_is_opened_by_the_key_it_is_for_and_shows_nothing() -> None:
    line = seal(GRANT, static_key(1).public, draw)
    assert unseal(f"{line}\n", static_key(1)) == GRANT
    inside = GRANT_LINE.read_untrusted(line)
    assert GRANT.psk not in inside
    assert GRANT.certificate.name.encode() not in inside


def test_a_sealed_grant_is_nothing_to_another_key() -> None:
    line = seal(GRANT, static_key(1).public, draw)
    with pytest.raises(ConfigError, match="another machine's request"):
        unseal(line, static_key(2))
    with pytest.raises(ConfigError, match="another machine's request"):
        unseal(GRANT_LINE.write(b"short"), static_key(1))
    with pytest.raises(ConfigError, match="not a certificate"):
        unseal(str(REQUEST), static_key(1))


def test_nothing_is_sealed_to_a_key_of_low_order() -> None:
    with pytest.raises(AuthError):
        seal(GRANT, bytes(32), draw)


# -- believing -------------------------------------------------------------------------------------


def code_of(grant: Grant, **changes: object) -> str:
    arguments = {"pinned": PIN, "cluster": None, "wall": WALL + 1.0, "request": REQUEST, **changes}
    with pytest.raises(RefusedError) as caught:
        check_grant(grant, arguments.pop("request"), **arguments)
    return caught.value.code


def test_a_grant_of_the_pinned_authority_for_our_keys_is_believed() -> None:
    check_grant(GRANT, REQUEST, pinned=PIN, cluster=None, wall=WALL + 1.0)
    check_grant(GRANT, REQUEST, pinned=None, cluster=CLUSTER, wall=WALL + 1.0)
    renewal = replace(GRANT, psk=b"").signed(AUTHORITY)
    check_grant(renewal, REQUEST, pinned=None, cluster=CLUSTER, wall=WALL + 1.0)


def test_a_grant_of_an_authority_that_was_not_pinned_is_refused() -> None:
    for pin in (None, b"", bytes(16), PIN[:15]):
        assert code_of(GRANT, pinned=pin) == "wrong-authority"


def test_a_cluster_of_a_strangers_own_is_refused() -> None:
    """He has seen the request, founds a cluster, and signs a certificate for it."""
    world = World(1)
    request = CertificateRequest.sign(signing_key(1), static_key(1).public, "new")
    line, _ = world["node1"].engine.sign_request(str(request), world.now)
    grant = unseal(line, static_key(1))
    wall = world["node1"].engine.parts.wall.at(world.now)
    own = grant.cluster.authority_fingerprint
    assert code_of(grant, request=request, pinned=bytes(16), wall=wall) == "wrong-authority"
    check_grant(grant, request, pinned=own, cluster=None, wall=wall)
    other = replace(CLUSTER, id=bytes(8))
    assert code_of(grant, request=request, pinned=own, wall=wall, cluster=other) == "wrong-cluster"


def test_a_grant_for_other_keys_or_another_name_is_refused() -> None:
    for other in (
        CertificateRequest.sign(signing_key(2), static_key(1).public, "node1"),
        CertificateRequest.sign(signing_key(1), static_key(2).public, "node1"),
        CertificateRequest.sign(signing_key(1), static_key(1).public, "node2"),
    ):
        assert code_of(GRANT, request=other) == "wrong-request"


def test_a_grant_without_the_secret_makes_no_new_node() -> None:
    assert code_of(replace(GRANT, psk=b"").signed(AUTHORITY)) == "wrong-request"


def test_a_grant_that_was_not_signed_or_is_out_of_its_time_is_refused() -> None:
    assert code_of(replace(GRANT, psk=b"q" * 32)) == "bad-certificate"
    for wall in (WALL - 5000.0, float(GRANT.certificate.not_after)):
        assert code_of(GRANT, wall=wall) == "bad-certificate"


# -- signing ---------------------------------------------------------------------------------------


def test_a_node_made_without_a_network_becomes_a_member() -> None:
    world = settled(2)
    grant = granted(world, requested(7), 7)
    wall = world["node1"].engine.parts.wall.at(world.now)
    request = CertificateRequest.parse(requested(7))
    check_grant(grant, request, pinned=world.cluster.authority_fingerprint, cluster=None, wall=wall)
    key = world.notary.key(signing_key(7).seed)
    identity = Identity(key, static_key(7), grant.certificate)
    membership = Membership(identity, grant.cluster, grant.psk)
    world.add_machine("new", membership, grant.items)
    world.run_until(world.converged, timeout=30.0)
    assert "new" in {view.name for view in world["node2"].snapshot().nodes}
    assert world["new"].snapshot().own_prefixes


def test_signing_is_stored_so_that_name_and_serial_are_not_given_twice() -> None:
    world = settled(1)
    first = granted(world, requested(7), 7).certificate
    world.crash("node1")
    world.restart("node1")
    sign = world["node1"].engine.sign_request
    assert refused(sign, requested(8), world.now) == "name-taken"
    assert granted(world, requested(8, "other"), 8).certificate.serial == first.serial + 1
    assert world.trace.notes("node.certified", "node1")


def test_the_same_request_may_be_signed_again() -> None:
    world = settled(1)
    one, two = (granted(world, requested(7), 7).certificate for _ in range(2))
    assert (one.node, one.name) == (two.node, two.name)
    assert two.serial == one.serial + 1


def test_a_certificate_lasts_as_long_and_allows_what_the_operator_says() -> None:
    world = settled(1)
    routes = (ip_network("192.0.2.0/24"),)
    usual = granted(world, requested(7), 7).certificate
    made = granted(world, requested(7), 7, lifetime=86_400.0, routes=routes).certificate
    wall = world["node1"].engine.parts.wall.at(world.now)
    assert usual.not_after == int(wall) + CERTIFICATE_LIFETIME
    assert (made.not_after, made.routes, usual.routes) == (int(wall) + 86_400, routes, ())
    for bad in ((ip_network("10.244.9.0/24"),), (ip_network("0.0.0.0/0"),)):
        before = world["node1"].engine.parts.registrar.encode()
        with pytest.raises(ConfigError):
            world["node1"].engine.sign_request(requested(7), world.now, routes=bad)
        assert world["node1"].engine.parts.registrar.encode() == before


def test_a_member_gets_another_certificate_without_the_secret() -> None:
    world = settled(1)
    world.join("node2")
    world.run_until(world.converged, timeout=10.0)
    member = world["node2"].membership.identity
    request = CertificateRequest.sign(
        member.signing, member.static.public, "node2", world.cluster.id
    )
    line, effects = world["node1"].engine.sign_request(str(request), world.now)
    world["node1"].perform(effects)
    grant = unseal(line, member.static)
    assert (grant.psk, grant.items) == (b"", ())
    assert grant.certificate.serial > member.certificate.serial
    wall = world["node1"].engine.parts.wall.at(world.now)
    check_grant(grant, request, pinned=None, cluster=world.cluster, wall=wall)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (requested(7, "node2"), "name-taken"),
        (requested(7, "new", bytes(8)), "wrong-cluster"),
        (str(CertificateRequest.sign(signing_key(7), bytes(32), "new")), "bad-key"),
    ],
)
def test_what_is_not_signed_changes_nothing(request_: str, code: str) -> None:
    world = settled(2)
    registrar = world["node1"].engine.parts.registrar
    before = registrar.encode()
    assert refused(world["node1"].engine.sign_request, request_, world.now) == code
    assert registrar.encode() == before


def test_a_member_is_who_was_certified_under_that_name() -> None:
    world = settled(2)
    engine = world["node1"].engine
    claim = requested(7, "node2", world.cluster.id)
    assert refused(engine.sign_request, claim, world.now) == "not-a-member"


def test_keys_that_have_left_or_were_removed_are_not_certified_again() -> None:
    world = settled(3)
    engine = world["node1"].engine
    lines = []
    for name in ("node2", "node3"):
        one = world[name].membership.identity
        request = CertificateRequest.sign(one.signing, one.static.public, name, world.cluster.id)
        lines.append(str(request))
    world["node2"].leave()
    world.run(world.now + 5.0)
    world["node1"].remove("node3", force=True)
    world.run(world.now + 5.0)
    assert refused(engine.sign_request, lines[0], world.now) == "node-left"
    assert refused(engine.sign_request, lines[1], world.now) == "node-removed"


def test_only_the_authoritys_node_signs_and_only_what_it_can_store() -> None:
    world = settled(2)
    assert refused(world["node2"].engine.sign_request, requested(7), world.now) == "not-authority"
    world["node1"].disk.fail(FULL)
    world["node1"].add_pod("first")
    assert refused(world["node1"].engine.sign_request, requested(7), world.now) == "not-stored"


def test_a_new_node_needs_an_address_to_begin_with() -> None:
    world = settled(1)
    world["node1"].perform(world["node1"].engine.on_endpoints((), world.now))
    world.run(world.now + 5.0)
    assert refused(world["node1"].engine.sign_request, requested(7), world.now) == "no-endpoint"
