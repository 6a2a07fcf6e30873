"""Tests of overlay.expiry: what is said of certificates that end, and that it is said in time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from overlay.catalog.records import NodeRecord
from overlay.errors import RefusedError
from overlay.expiry import member_problems
from overlay.sim import World
from overlay.sim.world import EPOCH
from overlay.validity import MEMBERS_WARN_SHARE, OVERDUE_SHARE, RENEW_SHARE, last_part
from overlay.views import Problem
from tests.sim.worlds import settled
from tests.support.clusters import WALL, YEAR, make_cluster, make_identity

LIFE = 1000
CERTIFICATE = make_identity(1, make_cluster()).certificate


def of_certificates(world: World, name: str) -> Iterator[Problem]:
    for problem in world[name].snapshot().problems:
        if "certificate" in problem.code:
            assert problem.what
            assert problem.why
            assert problem.fix
            yield problem


def codes(world: World, name: str) -> list[str]:
    return [problem.code for problem in of_certificates(world, name)]


def run_to(world: World, share: int) -> None:
    """Until a little before the last of so many parts of the life of node3's certificate."""
    certificate = world["node3"].membership.identity.certificate
    world.run(last_part(certificate, share) - EPOCH - 1.0)


@pytest.fixture
def orphans() -> World:
    """node3 has a short certificate, and the authority's node is down."""
    world = settled(2)
    world.add_node("node3", lifetime=LIFE)
    world.run(world.now + 3.0)
    world.crash("node1")
    return world


def test_while_all_is_well_nothing_is_said() -> None:
    world = settled(2)
    world.add_node("node3", lifetime=LIFE)
    seen: set[str] = set()
    world.every(1.0, lambda: seen.update(codes(world, "node2"), codes(world, "node3")))
    world.run(2 * LIFE)
    assert seen == set()
    assert world["node3"].snapshot().expires > EPOCH + 2 * LIFE


def test_its_node_is_the_first_to_say_so_then_all_others(orphans: World) -> None:
    run_to(orphans, RENEW_SHARE)
    assert codes(orphans, "node3") == []
    run_to(orphans, OVERDUE_SHARE)
    assert codes(orphans, "node3") == [], "there is time yet"
    orphans.run(orphans.now + 2.0)
    (problem,) = of_certificates(orphans, "node3")
    assert problem.code == "certificate-expires"
    assert "T" in problem.what
    assert problem.what.endswith("in 4 min")
    assert problem.why == (
        "it was not renewed: no node that holds the authority's key is reachable"
    )
    run_to(orphans, MEMBERS_WARN_SHARE)
    assert codes(orphans, "node2") == []
    orphans.run(orphans.now + 2.0)
    (problem,) = of_certificates(orphans, "node2")
    assert problem.code == "member-certificate-expires"
    assert "of node node3 ends at " in problem.what
    orphans.run(LIFE + 5.0)
    (problem,) = of_certificates(orphans, "node3")
    assert problem.code == "certificate-expired"
    (problem,) = of_certificates(orphans, "node2")
    assert "of node node3 ended at " in problem.what


def test_it_is_over_when_the_authority_s_node_is_back(orphans: World) -> None:
    run_to(orphans, MEMBERS_WARN_SHARE)
    orphans.run(orphans.now + 2.0)
    orphans["node1"].start()
    orphans.run(orphans.now + 30.0)
    assert codes(orphans, "node3") == codes(orphans, "node2") == []


def test_a_refusal_is_told_before_it_is_late() -> None:
    world = settled(2)
    world.add_node("node3", lifetime=LIFE)
    world.run(world.now + 3.0)
    conflict = world["node1"].engine.conflict

    def refuse() -> None:
        raise RefusedError("identity-conflict", "this node is there twice")

    conflict.check = refuse
    run_to(world, OVERDUE_SHARE)
    (problem,) = of_certificates(world, "node3")
    assert problem.code == "certificate-expires"
    assert problem.why == "it was not renewed: node1 declined: this node is there twice"


def test_views_say_when_certificates_end() -> None:
    world = settled(2)
    world.add_node("node3", lifetime=LIFE)
    world.run(world.now + 3.0)
    shot = world["node2"].snapshot()
    ends = {node.name: node.expires for node in shot.nodes}
    assert ends == {
        name: world[name].engine.identity.certificate.not_after
        for name in ("node1", "node2", "node3")
    }
    assert shot.expires == ends["node2"]
    world["node3"].leave()
    world.run(world.now + 3.0)
    assert {node.name: node.expires for node in world["node2"].snapshot().nodes}["node3"] is None


def test_nobody_is_warned_of_a_certificate_that_has_time() -> None:
    record = NodeRecord(CERTIFICATE, 1)
    assert list(member_problems([record], WALL + YEAR * 0.89)) == []
    assert len(list(member_problems([record], WALL + YEAR * 0.91))) == 1
