"""`muslin ping` against a pretended daemon: which leg failed."""

from __future__ import annotations

import pytest

from node.cli.ping import Tally


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch) -> None:
    monkeypatch.setattr("node.cli.ping.INTERVAL", 0.0)


def test_every_round_shows_every_leg_and_the_path(muslin, daemon) -> None:
    ran = muslin("ping", "db", "-c", "2")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "pod node2/db (10.244.1.2) of node2, direct",
        "seq=1 overlay=0.50ms pod=1.00ms",
        "seq=2 overlay=0.50ms pod=1.00ms",
        "overlay leg to node2: 2 sent, 2 answered, min/avg/max 0.50ms/0.50ms/0.50ms",
        "pod leg to 10.244.1.2: 2 sent, 2 answered, min/avg/max 1.00ms/1.00ms/1.00ms",
    ]


def test_a_node_that_answers_no_probe_is_the_overlay_leg(muslin, daemon) -> None:
    daemon.lose_probes, daemon.echo = True, None
    ran = muslin("ping", "node2", "-c", "1", "-W", "0.05")
    assert ran.code == 1
    assert "seq=1 overlay=lost node=lost" in ran.out
    assert ran.err.startswith("muslin: cannot reach node2: the overlay leg failed, node2 (ready)")


def test_a_pod_that_answers_no_echo_is_the_pod_leg(muslin, daemon) -> None:
    daemon.echo = None
    ran = muslin("ping", "db", "-c", "1")
    assert ran.code == 1
    assert "the pod leg failed, 10.244.1.2 answers no echo although node2 is reachable" in ran.err


def test_a_local_pod_has_one_leg(muslin, daemon) -> None:
    daemon.echo = None
    ran = muslin("ping", "web", "-c", "1")
    assert ran.out.startswith("pod node1/web (10.244.0.2) of node1, on this node\n")
    assert "although" not in ran.err


def test_the_family_can_be_chosen(muslin, daemon) -> None:
    assert "(fd00:0:0:1::1)" in muslin("ping", "node2", "-c", "1", "-6").out
    assert "(10.244.1.1)" in muslin("ping", "node2", "-c", "1", "-4").out


def test_an_unknown_name_fails_at_once_naming_what_exists(muslin, daemon) -> None:
    ran = muslin("ping", "node9")
    assert (ran.code, ran.out) == (1, "")
    assert "nodes are: node1, node2" in ran.err


def test_one_lost_round_of_several_is_no_failure(muslin, daemon) -> None:
    tally = Tally("pod", "x", sent=3, rtts=[0.001, 0.003])
    assert tally.line() == "pod leg to x: 3 sent, 2 answered, min/avg/max 1.00ms/2.00ms/3.00ms"
