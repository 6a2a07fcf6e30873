"""Tests of the benchmark of removals: what it measures did happen. Promises are in `tests/sim`."""

from __future__ import annotations

import pytest

from bench import cli
from bench.revocation import REMOVED, TARGET, Times, deafen, is_rid_of, ping, revoke, row
from tests.sim.worlds import routes_to, settled


def test_a_node_that_is_talked_to_is_not_got_rid_of() -> None:
    world = settled(3)
    removed = world[REMOVED].membership.identity.node
    ping(world, REMOVED)
    world.run(world.now + 1.0)
    assert not is_rid_of(world["node1"], removed)
    assert len(world["node1"].delivered) == len(world["node3"].delivered) == 1


def test_a_deaf_node_goes_on_as_if_it_were_a_member_and_a_dead_one_pings_nobody() -> None:
    world = settled(3)
    removed = world[REMOVED].membership.identity.node
    deafen(world[REMOVED])
    world["node1"].remove(REMOVED, force=True)
    world.run(world.now + 5.0)
    assert removed not in world[REMOVED].engine.parts.catalog.removed
    assert removed in world["node3"].engine.parts.catalog.removed
    assert is_rid_of(world["node3"], removed)
    assert routes_to(world, "node1", seen_by=REMOVED)
    world.crash(REMOVED)
    ping(world, REMOVED)


def test_the_same_seed_takes_the_same_time() -> None:
    assert revoke(1, 3, 0.05, together=True) == revoke(1, 3, 0.05, together=True)


def test_a_session_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overlay.knowledge.Knowledge.forget_gone", lambda *_: [])
    monkeypatch.setattr("bench.revocation.PATIENCE", 5.0)
    assert cli.main(["revocation", "--seeds", "1", "--nodes", "3", "--loss", "0"]) == 1


def test_a_line_says_whether_the_promise_is_kept() -> None:
    kept = row(3, 0.05, [Times(0.5, 1.0), Times(0.7, 2.0)])
    assert kept == ["3, 5%", "0.50", "0.70", "0.70", "1.00", "2.00", "2.00", "yes"]
    assert row(3, 0.05, [Times(0.5, TARGET + 0.05)])[-1] == "NO"


def test_the_table_has_a_line_for_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["revocation", "--seeds", "1", "--nodes", "3", "--loss", "0,0.05", "--markdown"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in shown[4:]] == ["| 3, 0%", "| 3, 5%"]


@pytest.mark.parametrize(
    "option", [["--nodes", "2"], ["--nodes", "x"], ["--loss", "nan"], ["--seeds", "0"]]
)
def test_what_makes_no_sense_is_refused(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["revocation", *option]) == 1
    assert capsys.readouterr().err.startswith("bench: --")
