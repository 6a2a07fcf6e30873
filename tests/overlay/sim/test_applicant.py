"""Tests of machines that join."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.errors import ConfigError
from overlay.sim import Link, World
from overlay.wire.token import JoinToken


def test_an_applicant_becomes_a_member_under_its_name_and_address():
    world = World(1)
    applicant = world.join("node2")
    world.run_until(world.converged, timeout=5.0)
    member = world["node2"]
    assert member.endpoint == applicant.endpoint
    assert member.membership.identity.certificate.name == "node2"
    assert member.membership.authorities == ()
    assert world.trace.notes("join.admitted", "node2")


def test_an_applicant_gets_in_over_a_terrible_link():
    world = World(3, link=Link.terrible())
    for number in range(2, 6):
        world.join(f"node{number}")
    world.run_until(world.converged, timeout=30.0)
    world.check_invariants()


def test_a_used_token_admits_nobody_else():
    world = World(1)
    token = world["node1"].mint_token()
    world.join("node2", token)
    world.run_until(world.converged, timeout=5.0)
    late = world.join("node3", token)
    world.run_until(lambda: late.failure is not None, timeout=5.0)
    assert late.failure.code == "token-used"
    assert next(world.differences()).startswith("node3 is not admitted: ")


def test_an_expired_token_admits_nobody():
    world = World(1)
    token = world["node1"].mint_token(ttl=5.0)
    world.run(until=6.0)
    late = world.join("node2", token)
    world.run_until(lambda: late.failure is not None, timeout=30.0)
    assert late.failure.code == "token-expired"


def test_a_token_with_a_wrong_secret_gets_no_answer():
    world = World(1)
    token = str(replace(JoinToken.parse(world["node1"].mint_token()), secret=bytes(32)))
    stranger = world.join("node2", token)
    world.run_until(lambda: stranger.failure is not None, timeout=60.0)
    assert stranger.failure.code == "no-answer"
    assert "node2" not in {node.name for node in world["node1"].snapshot().nodes}


def test_a_text_that_is_no_token_is_refused_at_once():
    with pytest.raises(ConfigError):
        World(1).join("node2", "muslin1-nonsense")


def test_a_name_that_is_taken_is_refused():
    world = World(1)
    world.join("node2")
    world.run_until(world.converged, timeout=5.0)
    # Only the founder remembers it: the world forgets the machine, and a second one comes.
    world.machines["hidden"] = world.machines.pop("node2")
    late = world.join("node2")
    world.run_until(lambda: late.failure is not None, timeout=5.0)
    assert late.failure.code == "name-taken"
