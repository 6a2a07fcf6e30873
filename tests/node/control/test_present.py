"""The JSON that users were promised, key by key."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from node.control.present import KINDS, present_node, present_status
from tests.support.daemon import FACTS, PROBLEM, node_view, snapshot

PROMISED = {
    "nodes": "name state address endpoint blocks pods version path rtt loss seen",
    "pods": "name node address address6 netns state age",
    "routes": "prefix node via origin state age",
    "sessions": "node endpoint cipher established rekeyed mtu tx_bytes rx_bytes drops mtu_state "
    "offloads trial",
    "blocks": "prefix node state blocks pods",
}


@pytest.mark.parametrize("kind", PROMISED)
def test_each_kind_has_at_least_the_promised_keys(kind) -> None:
    for item in KINDS[kind](snapshot(), FACTS):
        assert set(PROMISED[kind].split()) <= set(item)


def test_status_has_at_least_the_promised_keys() -> None:
    status = present_status(snapshot(), FACTS)
    assert {"node", "cluster", "state", "problems", "ledger", "gossip"} <= set(status)
    assert set(status["ledger"]) == {"in", "out", "queued", "drops"}


def test_everything_is_json() -> None:
    for kind, presenter in KINDS.items():
        value = presenter(snapshot(), FACTS)
        assert json.loads(json.dumps(value)) == value, kind
    json.dumps(present_status(snapshot(), FACTS))


def test_a_node_is_shown_with_rounded_figures_and_text_addresses() -> None:
    assert present_node(node_view(2)) == {
        "name": "node2",
        "state": "ready",
        "address": "10.244.1.1",
        "address6": "fd00:0:0:1::1",
        "endpoint": "192.0.2.2:6875",
        "blocks": ["10.244.1.0/24"],
        "pods": 1,
        "version": "0.1.0",
        "path": "direct",
        "rtt": 0.000422,
        "loss": 0.0,
        "seen": 1.25,
        "local": False,
        "conflict": False,
        "certificate_expires": "2024-02-12T22:13:20.000Z",
        "id": "02" * 32,
    }


def test_the_unknown_is_null_and_never_left_out() -> None:
    unknown = ("address", "endpoint", "rtt", "seen", "expires")
    shown = present_node(replace(node_view(2), **dict.fromkeys(unknown)))
    keys = ("address", "endpoint", "rtt", "seen", "certificate_expires")
    assert [shown[key] for key in keys] == [None] * len(keys)


def test_ages_are_seconds_and_moments_are_rfc_3339() -> None:
    shot = snapshot()
    (pod, _), (route, _) = KINDS["pods"](shot, FACTS), KINDS["routes"](shot, FACTS)
    (session,) = KINDS["sessions"](shot, FACTS)
    assert pod["age"] == 100.0
    assert pod["created"] == "2023-11-14T22:13:20.000Z"
    assert route["age"] == 60.0
    assert session["established"] == "2023-11-14T22:14:10.000Z"
    assert session["rekeyed"] == "2023-11-14T22:14:50.000Z"
    assert session["id"] == "02" * 32


def test_a_session_shows_the_offloads_in_use_and_not_those_the_ports_lost_since() -> None:
    shot = snapshot()
    (known,) = shot.sessions
    tried = replace(
        known, offloads=("udp_gso", "udp_gro", "tso"), trial="proven", mtu_state="settled"
    )
    facts = replace(FACTS, offloads=("udp_gro", "tso"))
    (session,) = KINDS["sessions"](replace(shot, sessions=(tried,)), facts)
    assert session["offloads"] == ["udp_gro", "tso"]
    assert (session["trial"], session["mtu_state"]) == ("proven", "settled")
    (session,) = KINDS["sessions"](shot, facts)
    assert session["trial"] is None


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    shot = snapshot(now=-500.0)
    assert KINDS["pods"](shot, FACTS)[0]["age"] == 0.0


def test_the_ledger_shows_only_reasons_that_occurred() -> None:
    ledger = present_status(snapshot(), FACTS)["ledger"]
    assert ledger == {"in": 10, "out": 7, "queued": 1, "drops": {"no_route": 2}}


def test_problems_of_engine_and_daemon_make_a_node_unwell() -> None:
    assert present_status(snapshot(), FACTS)["state"] == "ready"
    ours = replace(FACTS, problems=(PROBLEM,))
    status = present_status(snapshot(problems=(replace(PROBLEM, code="x"),)), ours)
    assert status["state"] == "problem"
    assert [problem["code"] for problem in status["problems"]] == ["x", "no-block"]
    assert set(status["problems"][0]) == {"code", "what", "why", "fix"}


def test_status_counts_nodes_by_state_and_its_own_pods() -> None:
    status = present_status(snapshot(), FACTS)
    assert status["nodes"] == {
        "ready": 2,
        "suspect": 0,
        "dead": 0,
        "left": 0,
        "removed": 0,
    }
    assert status["pods"] == 1
    assert status["uptime"] == 90.0
    assert status["certificate_expires"] == "2024-02-12T22:13:20.000Z"
    assert status["certificate_expiry_seconds"] == 90 * 86_400.0 - 100.0
