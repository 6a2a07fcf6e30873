"""`muslin lab`: what is asked of `node.lab`, and how its answers are shown."""

from __future__ import annotations

import json

import pytest

from node.errors import NodeError
from node.lab import build, verbs

STATUS = {
    "name": "lab",
    "state": "up",
    "folder": "/run/muslin/lab/lab",
    "cluster": "00112233aabbccdd",
    "underlay": "ipv4",
    "mtu": 1500,
    "cidr": "10.244.0.0/16",
    "cuts": [["node1", "node2"]],
    "nodes": [
        {
            "name": "node1",
            "state": "ready",
            "pid": 7,
            "underlay": "198.51.100.1",
            "address": "10.244.0.1",
            "address6": None,
            "sees": 1,
            "netns": "lab-node1",
            "log": "/x",
            "pods": [
                {"name": "node1-pod1", "address": "10.244.0.2", "address6": None, "netns": "p"}
            ],
        }
    ],
}


@pytest.fixture(autouse=True)
def calls(monkeypatch) -> list[tuple[object, ...]]:
    """What `node.lab` was asked to do, without doing it."""
    made: list[tuple[object, ...]] = []

    def note(result: object = None):
        def call(*arguments: object, progress: object = None, **keywords: object) -> object:
            made.append((*arguments, keywords) if keywords else arguments)
            if callable(progress):
                progress("node1 has joined")
            return result

        return call

    monkeypatch.setattr(build, "lab_up", note())
    monkeypatch.setattr(build, "lab_down", note(True))
    monkeypatch.setattr(verbs, "lab_status", note(STATUS))
    monkeypatch.setattr(verbs, "lab_exec", note(7))
    monkeypatch.setattr(verbs, "lab_cut", note())
    monkeypatch.setattr(verbs, "lab_heal", note())
    return made


def test_up_builds_and_ends_with_the_tables(muslin, calls) -> None:
    ran = muslin("lab", "up", "--nodes", "4", "--pods", "1", "--name", "x", "--mtu", "1400")
    assert ran.code == 0
    expected = {"underlay": "ipv4", "mtu": 1400, "cidr": "10.244.0.0/16", "settings": {}}
    assert calls[0] == ("x", 4, 1, expected)
    assert ran.err == "muslin: node1 has joined\n"
    assert ran.out.splitlines() == [
        "NAME    STATE   ADDRESS      ADDRESS6   UNDERLAY       SEES   NETNS",
        "node1   ready   10.244.0.1   -          198.51.100.1   1      lab-node1",
        "",
        "POD          NODE    ADDRESS      ADDRESS6   NETNS",
        "node1-pod1   node1   10.244.0.2   -          p",
    ]


def test_up_passes_the_number_of_lanes_on_and_no_other_setting(muslin, calls, monkeypatch) -> None:
    monkeypatch.setenv("MUSLIN_LANES", "2")
    monkeypatch.setenv("MUSLIN_LISTEN", "192.0.2.1:1")
    assert muslin("lab", "up").code == 0
    assert calls[0][3]["settings"] == {"MUSLIN_LANES": "2"}


def test_the_defaults_are_the_promised_ones(muslin, calls) -> None:
    muslin("lab", "up")
    assert calls[0][:3] == ("lab", 3, 2)


def test_status_is_zero_only_when_all_is_well(muslin, monkeypatch) -> None:
    ran = muslin("lab", "status")
    assert ran.code == 0
    assert "cuts      node1-node2\n" in ran.out
    assert json.loads(muslin("lab", "status", "-o", "json").out) == STATUS
    assert "underlay: ipv4\n" in muslin("lab", "status", "-o", "yaml").out
    monkeypatch.setattr(verbs, "lab_status", lambda _: {**STATUS, "state": "degraded", "cuts": []})
    ran = muslin("lab", "status")
    assert ran.code == 1
    assert "cuts      none\n" in ran.out


@pytest.mark.parametrize("dashes", [("--",), ()])
def test_exec_passes_everything_and_the_exit_code(muslin, calls, dashes) -> None:
    ran = muslin("lab", "exec", "--name", "x", "node1", *dashes, "ls", "--help", "--name")
    assert ran.code == 7
    assert calls == [("x", "node1", ("ls", "--help", "--name"))]


def test_cut_and_heal_name_their_nodes(muslin, calls) -> None:
    assert muslin("lab", "cut", "node1", "node2").code == 0
    assert muslin("lab", "heal", "node1", "node2").out == (
        "the underlay of node1 and node2 is whole again\n"
    )
    assert muslin("lab", "heal", "node1").code == 0
    assert muslin("lab", "heal", "--name", "x").code == 0
    assert calls == [
        ("lab", "node1", "node2"),
        ("lab", "node1", "node2"),
        ("lab", "node1", None),
        ("x", None, None),
    ]


def test_down_says_when_there_was_nothing(muslin, monkeypatch) -> None:
    assert muslin("lab", "down").out == "lab lab is gone\n"
    monkeypatch.setattr(build, "lab_down", lambda _: False)
    ran = muslin("lab", "down", "--name", "x")
    assert ran.code == 1
    assert ran.err.startswith("muslin: cannot take down lab x: there is no lab x: labs are: ")


def test_a_failure_is_one_line(muslin, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise NodeError("lab x has no 'node9'", "its nodes are node1", "no-target")

    monkeypatch.setattr(verbs, "lab_exec", refuse)
    ran = muslin("lab", "exec", "--name", "x", "node9", "--", "true")
    assert ran.code == 1
    assert ran.err == (
        "muslin: cannot run a command in node9: lab x has no 'node9': its nodes are node1\n"
    )
