"""`muslin get` and `muslin status` against a pretended daemon."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from node.control.present import LaneFacts
from node.kernel.guard import GuardFacts
from tests.support.daemon import FACTS, PROBLEM, node_view, snapshot


def test_a_table_has_upper_case_headers_and_one_line_each(muslin, daemon) -> None:
    ran = muslin("get", "pods")
    assert ran.code == 0
    assert ran.err == ""
    assert [line.split()[:3] for line in ran.out.splitlines()] == [
        ["NAME", "NODE", "ADDRESS"],
        ["web", "node1", "10.244.0.2"],
        ["db", "node2", "10.244.1.2"],
    ]


@pytest.mark.parametrize("kind", ["nodes", "pods", "routes", "sessions", "blocks", "node", "pod"])
@pytest.mark.parametrize("output", [(), ("-o", "wide"), ("-o", "yaml"), ("-o", "name")])
def test_every_kind_can_be_shown_in_every_form(muslin, daemon, kind, output) -> None:
    ran = muslin("get", kind, *output)
    assert ran.code == 0
    assert ran.out.strip()


def test_json_is_a_list_of_objects(muslin, daemon) -> None:
    assert [node["name"] for node in json.loads(muslin("get", "nodes", "-o", "json").out)] == [
        "node1",
        "node2",
    ]


def test_a_name_selects_one_and_it_is_still_a_list(muslin, daemon) -> None:
    (found,) = json.loads(muslin("get", "pods", "node2/db", "-o", "json").out)
    assert found["name"] == "db"
    assert muslin("get", "routes", "10.244.1.0/24", "-o", "name").out == "10.244.1.0/24\n"


def test_an_unknown_name_fails_and_names_what_exists(muslin, daemon) -> None:
    ran = muslin("get", "node", "node9", "-o", "json")
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err == (
        "muslin: cannot get node node9: there is no node node9: nodes are: node1, node2\n"
    )


def test_nothing_is_said_as_such_and_is_an_empty_list_in_json(muslin, daemon) -> None:
    daemon.engine.shot = snapshot(pods=())
    assert muslin("get", "pods").out == "no pods\n"
    assert muslin("get", "pods", "-o", "json").out == "[]\n"
    assert muslin("get", "pods", "-o", "name").out == ""


def test_watching_a_pipe_repeats_only_news(muslin, daemon, monkeypatch) -> None:
    dead = replace(node_view(2), state="dead")
    changes = iter([node_view(2, rtt=0.5, seen=9.0), dead, dead])

    def wait(_: float) -> None:
        change = next(changes, None)
        if change is None:
            raise KeyboardInterrupt
        daemon.engine.shot = snapshot(nodes=(node_view(1), change))

    monkeypatch.setattr("time.sleep", wait)
    ran = muslin("get", "nodes", "-o", "json", "--watch")
    assert ran.code == 130
    states = [[node["state"] for node in json.loads(line)] for line in ran.out.splitlines()]
    assert states == [["ready", "ready"], ["ready", "dead"]]


def test_watching_on_a_terminal_redraws_the_screen(muslin, daemon, monkeypatch) -> None:
    monkeypatch.setattr("node.cli.get.sys.stdout.isatty", lambda: True, raising=False)
    looks = iter([None, None])

    def wait(_: float) -> None:
        if next(looks, "end") == "end":
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", wait)
    ran = muslin("get", "pods", "--watch")
    assert ran.code == 130
    assert ran.out.count("\x1b[H\x1b[JNAME") == 3


def test_watching_ends_with_one_line_when_the_daemon_does(
    muslin, daemon, monkeypatch, state
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: (state / "control.sock").unlink())
    ran = muslin("get", "pods", "--watch")
    assert ran.code == 1
    assert ran.out.startswith("NAME")
    assert "no daemon is running" in ran.err


def test_a_well_node_is_zero(muslin, daemon) -> None:
    ran = muslin("status")
    assert ran.code == 0
    lines = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert lines["state"] == "ready"
    assert lines["nodes"] == "ready=2"
    assert lines["ledger"] == "in=10,out=7,queued=1"
    assert lines["drops"] == "no_route=2"
    assert lines["gossip"] == "damped=3,refuted=1"


def test_a_node_to_whose_members_nothing_happened_calls_that_calm(muslin, daemon) -> None:
    daemon.engine.shot = snapshot(gossip={"awareness": 0, "refuted": 0})
    assert "\ngossip       calm\n" in muslin("status").out


def test_an_unwell_node_is_one_with_the_problem_and_its_fix(muslin, daemon) -> None:
    daemon.engine.shot = snapshot(problems=(PROBLEM,))
    ran = muslin("status")
    assert ran.code == 1
    assert ran.err == ""
    assert "PROBLEM    WHAT               WHY                  FIX" in ran.out
    assert PROBLEM.fix in ran.out


def test_status_for_programs_is_one_object(muslin, daemon) -> None:
    assert json.loads(muslin("status", "-o", "json").out)["ledger"]["in"] == 10
    shown = json.loads(muslin("status", "-o", "json").out)["gossip"]
    assert shown == {"awareness": 0, "damped": 3, "refuted": 1}
    assert "\nledger:\n  in: 10\n" in muslin("status", "-o", "yaml").out


def test_a_node_without_an_address_says_so(muslin, daemon) -> None:
    daemon.engine.shot = snapshot(address=None, address6=None, cidr6=None)
    assert "address      none yet\n" in muslin("status").out


def test_lanes_are_counted_by_state_where_there_are_several(muslin, daemon, monkeypatch) -> None:
    assert "\nlanes" not in muslin("status").out
    lanes = tuple(
        LaneFacts(number, 7 + number, 6875 + number, state, 0, 0.5)
        for number, state in enumerate(("up", "up", "waiting"))
    )
    monkeypatch.setattr(daemon, "facts", lambda: replace(FACTS, lanes=lanes))
    assert "\nlanes        up=2,waiting=1\n" in muslin("status").out
    assert json.loads(muslin("status", "-o", "json").out)["lanes"][2] == {
        "lane": 2,
        "pid": 9,
        "port": 6877,
        "state": "waiting",
        "restarts": 0,
        "cpu_seconds": 0.5,
    }


def test_who_checks_what_pods_send_is_said_and_what_was_dropped(
    muslin, daemon, monkeypatch
) -> None:
    assert "\nguard        nft\n" in muslin("status").out
    for guard, said in (
        (GuardFacts("", {"spoofed": 3}), "nft (dropped spoofed=3)"),
        (GuardFacts("there is no nft"), "routes (there is no nft)"),
    ):
        monkeypatch.setattr(daemon, "facts", lambda guard=guard: replace(FACTS, guard=guard))
        assert f"\nguard        {said}\n" in muslin("status").out
    shown = json.loads(muslin("status", "-o", "json").out)["guard"]
    assert shown == {"by": "routes", "why": "there is no nft", "drops": {}}


def test_until_when_the_certificate_is_valid_is_said(muslin, daemon) -> None:
    assert "\ncertificate  valid until 2024-02-12 (89 d)\n" in muslin("status").out
    daemon.engine.shot = snapshot(expires=1_700_000_000)
    assert "\ncertificate  expired 2023-11-14\n" in muslin("status").out
    assert "until 2024-02-12" in muslin("get", "nodes", "-o", "wide").out
