"""Tests of overlay.inviting."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from overlay.errors import ConfigError, RefusedError
from overlay.keys import LockedKey, SigningKey
from overlay.sim import World
from overlay.tokens import TokenBook
from overlay.types import Endpoint
from overlay.views import TokenState
from overlay.wire.token import MAX_ENDPOINTS, JoinToken
from tests.sim.worlds import settled
from tests.support.stewards import FULL, assert_stored_first, refused


def test_only_the_authoritys_node_makes_tokens() -> None:
    world = settled(2)
    assert refused(world["node2"].mint_token) == "not-authority"


def test_a_token_needs_an_address_and_has_no_more_than_it_can_carry() -> None:
    world = settled(1)
    machine = world["node1"]
    machine.perform(machine.engine.on_endpoints((), world.now))
    assert refused(machine.mint_token) == "no-endpoint"
    many = tuple(Endpoint(f"192.0.2.{n}", 1) for n in range(1, 41))
    machine.perform(machine.engine.on_endpoints(many, world.now))
    assert JoinToken.parse(machine.mint_token()).endpoints == many[:MAX_ENDPOINTS]


def test_a_token_is_on_the_disk_before_it_is_shown() -> None:
    world = settled(1)
    token = JoinToken.parse(world["node1"].mint_token())
    assert TokenBook.decode(world["node1"].stored.tokens).get(token.id) is not None


def test_whom_a_token_admits_may_advertise_what_it_says() -> None:
    world = settled(1)
    machine, lan = world["node1"], ip_network("192.168.7.0/24")
    token, effects = machine.engine.mint_token(60.0, world.now, (lan,))
    machine.perform(effects)
    assert machine.engine.tokens(world.now)[0].routes == (lan,)
    world.crash("node1")
    world.restart("node1")  # what it promised is stored with the token
    world.join("node2", token)
    world.run_until(lambda: "node2" in world.machines, timeout=5.0)
    assert world["node2"].membership.identity.certificate.routes == (lan,)
    world.run_until(world.converged, timeout=5.0)
    joined = world["node2"]
    joined.perform(joined.engine.on_routes((lan,), joined.now))
    world.run_until(
        lambda: any(one.prefix == lan for one in machine.snapshot().routes), timeout=3.0
    )


@pytest.mark.parametrize("prefix", ["0.0.0.0/0", "10.244.0.0/24", "127.0.0.0/8"])
def test_what_nobody_may_advertise_is_put_into_no_token(prefix: str) -> None:
    machine = settled(1)["node1"]
    with pytest.raises(ConfigError, match="cannot be advertised"):
        machine.engine.mint_token(60.0, machine.now, (ip_network(prefix),))
    assert machine.engine.tokens(machine.now) == ()


def test_only_the_authoritys_node_lists_and_revokes() -> None:
    engine, now = settled(2)["node2"].engine, 10.0
    assert refused(engine.tokens, now) == "not-authority"
    assert refused(engine.revoke_token, "aa", now) == "not-authority"


def test_a_revoked_token_admits_nobody_and_the_joiner_is_told_why() -> None:
    world = settled(1)
    machine = world["node1"]
    token = machine.mint_token()
    before, effects = machine.engine.revoke_token(JoinToken.parse(token).id.hex()[:8], world.now)
    assert before.state is TokenState.UNUSED
    assert_stored_first(effects)
    machine.perform(effects)
    late = world.join("node2", token)
    world.run_until(lambda: late.failure is not None, timeout=5.0)
    assert late.failure.code == "token-revoked"
    assert "muslin token" in late.failure.fix
    assert "node2" not in world.machines


def test_a_revocation_survives_a_crash() -> None:
    world = settled(1)
    machine = world["node1"]
    token = JoinToken.parse(machine.mint_token())
    machine.perform(machine.engine.revoke_token(token.id.hex(), world.now)[1])
    world.crash("node1")
    world.restart("node1")
    (view,) = world["node1"].engine.tokens(world.now)
    assert (view.id, view.state) == (token.id, TokenState.REVOKED)


def test_whom_a_token_has_admitted_stays_when_it_is_revoked() -> None:
    world = settled(1)
    machine = world["node1"]
    token = machine.mint_token()
    world.join("node2", token)
    world.run_until(world.converged, timeout=5.0)
    (view,) = machine.engine.tokens(world.now)
    assert (view.state, view.node) == (TokenState.USED, "node2")
    before, effects = machine.engine.revoke_token(view.id.hex(), world.now)
    assert before == view
    machine.perform(effects)
    world.run(world.now + 5.0)
    assert world.converged()
    late = world.join("node3", token)
    world.run_until(lambda: late.failure is not None, timeout=5.0)
    assert late.failure.code == "token-revoked"


def test_nothing_is_revoked_while_nothing_can_be_stored() -> None:
    world = settled(1)
    machine = world["node1"]
    token = JoinToken.parse(machine.mint_token())
    machine.disk.fail(FULL)
    machine.add_pod("first")
    assert refused(machine.engine.revoke_token, token.id.hex(), world.now) == "not-stored"
    (view,) = machine.engine.tokens(world.now)
    assert view.state is TokenState.UNUSED


# -- a locked key ------------------------------------------------------------------------------


def locked_world() -> tuple[World, SigningKey]:
    """A founder that has started again, with its key under a passphrase that nobody has said."""
    world = settled(2)
    machine = world["node1"]
    world.crash("node1")
    (key,) = machine.membership.authorities
    keys = (LockedKey(key.public),)
    machine.membership = replace(machine.membership, authorities=keys)
    world.restart("node1")
    world.run_until(world.converged, timeout=30.0)
    return world, key


def test_with_a_locked_key_the_node_is_well_and_joiners_are_told() -> None:
    world, _ = locked_world()
    machine = world["node1"]
    shot = machine.snapshot()
    assert shot.problems == ()
    assert [notice.code for notice in shot.notices] == ["authority-locked"]
    token = machine.mint_token()
    early = world.join("node3", token)
    world.run_until(lambda: early.failure is not None, timeout=5.0)
    assert early.failure.code == "authority-locked"
    assert "muslin authority unlock" in early.failure.fix
    with pytest.raises(RefusedError) as caught:
        machine.remove("node2", force=True)
    assert caught.value.code == "authority-locked"
    assert "node2" in {view.name for view in machine.snapshot().nodes}


def test_once_it_is_unlocked_the_same_token_is_good() -> None:
    world, key = locked_world()
    machine = world["node1"]
    token = machine.mint_token()
    early = world.join("early", token)
    world.run_until(lambda: early.failure is not None, timeout=5.0)
    machine.perform(machine.engine.hold_authority_key(key, world.now))
    assert machine.snapshot().notices == ()
    world.join("node3", token)
    world.run_until(lambda: "node3" in world.machines, timeout=5.0)
    machine.remove("node2", force=True)
    world.run(world.now + 10.0)
    assert machine.snapshot().notices == ()
