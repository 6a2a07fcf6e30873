"""What people type and read, through the installed `muslin`, on real nodes.

node1 -- founded the cluster, uvloop        node2 -- joined, asyncio: `up --loop asyncio`
"""

from __future__ import annotations

import itertools
import json
import re
import signal
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.support.machines import MUSLIN, Machine, Yard
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import Background, attempt
from tests.support.traffic import copy, is_answered
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SOON = 30.0
"""Seconds, for what takes one or two, on a machine that may be busy with other things."""

GOSSIP = {
    "awareness",
    "damped",
    "forged_claims",
    "refuted",
    "routes_refused",
    "refused_items",
    "overflowed_items",
}


@pytest.fixture(scope="module")
def node2(yard: Yard, node1: Machine) -> Iterator[Machine]:
    machine = yard.machines[1]
    machine.joins(node1)
    with machine.running("up", "--loop", "asyncio"):
        eventually(lambda: machine.types("status").returncode == 0, within=SOON, poll=0.2)
        machine.says("pod", "add", "db")
        for one in (node1, machine):
            eventually(lambda one=one: settled(one), within=SOON)
        yield machine


def settled(machine: Machine) -> bool:
    """Both nodes are heard and measured, and both pods are known."""
    nodes = machine.get("nodes")
    others = [row for row in nodes if not row["local"]]
    measured = all(row["state"] == "ready" and row["rtt"] for row in others)
    return len(nodes) == 2 and measured and len(machine.get("pods")) >= 2


# -- a cluster by hand -----------------------------------------------------------------------------


def test_a_token_is_all_that_is_printed(node1: Machine) -> None:
    done = node1.types("token", "--ttl", "15m")
    assert re.fullmatch(r"muslin1-[A-Za-z0-9_-]+\n", done.stdout)
    assert done.stderr == ""


def test_the_state_folder_comes_from_flag_or_variable(node1: Machine) -> None:
    by_variable = attempt(
        node1.netns, "env", f"MUSLIN_STATE={node1.state}", MUSLIN, "get", "nodes", "-o", "name"
    )
    assert by_variable.stdout == node1.says("get", "nodes", "-o", "name")
    wrong = ("env", "MUSLIN_STATE=/nowhere")
    assert node1.types("get", "nodes", before=wrong).returncode == 0, "the flag wins"


def test_only_the_founder_makes_tokens_and_only_others_leave(
    node1: Machine, node2: Machine
) -> None:
    done = node2.types("token")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "muslin: cannot make a token: this node does not hold the authority's key: "
        "run muslin token where the key is, at first where muslin init ran\n"
    )
    assert node1.types("leave").returncode == 1


def test_nodes_on_different_event_loops_work_together(node1: Machine, node2: Machine) -> None:
    web, db = node1.place("web"), node2.place("db")
    assert is_answered(web, db.address)
    assert is_answered(db, web.address6)
    copy(web, db, 16 << 20)
    copy(db, web, 16 << 20, family=6)


# -- get -------------------------------------------------------------------------------------------

PROMISED = {
    "nodes": "name state address endpoint blocks pods version path rtt loss seen",
    "pods": "name node address address6 netns state age",
    "routes": "prefix node via origin age",
    "sessions": "node endpoint cipher established rekeyed mtu tx_bytes rx_bytes drops",
    "blocks": "prefix node state",
}
kinds = pytest.mark.parametrize("kind", PROMISED)


@kinds
def test_tables_are_aligned_and_cut_nothing_off(node1: Machine, node2: Machine, kind: str) -> None:
    for options in ((), ("-o", "wide")):
        shown = node1.says("get", kind, *options)
        head, *rows = shown.splitlines()
        assert head == head.upper()
        starts = [found.start() for found in re.finditer(r"\S+", head)]
        assert rows
        for row in rows:
            cells = [row[a:b].rstrip() for a, b in itertools.pairwise([*starts, None])]
            assert all(cells), row
            assert not any("   " in cell or cell[0] == " " for cell in cells), row
        assert "…" not in shown
        assert "\x1b" not in shown


@kinds
def test_json_has_the_promised_keys(node1: Machine, node2: Machine, kind: str) -> None:
    items = node1.shows("get", kind)
    assert isinstance(items, list)
    assert items
    for item in items:
        assert set(PROMISED[kind].split()) <= set(item)
        assert all(key == key.lower() for key in item)


@kinds
def test_yaml_and_names_say_the_same_as_json(node1: Machine, node2: Machine, kind: str) -> None:
    items = node1.shows("get", kind)
    yaml = node1.says("get", kind, "-o", "yaml")
    first = PROMISED[kind].split()[0]
    assert len(re.findall(rf"^- {first}: ", yaml, re.MULTILINE)) == len(items)
    names = node1.says("get", kind, "-o", "name").split()
    wanted = [item[first] for item in items]
    if kind == "pods":
        wanted = [f"{item['node']}/{item['name']}" for item in items]
    assert names == wanted


def test_values_are_seconds_bytes_and_rfc_3339(node1: Machine, node2: Machine) -> None:
    eventually(lambda: node1.get("sessions")[0]["mtu_state"] != "searching", within=SOON)
    (other,) = node1.shows("get", "nodes", "node2")
    assert (other["state"], other["path"], other["pods"]) == ("ready", "direct", 1)
    assert other["endpoint"] == f"{node2.address}:6875"
    assert 0 < other["rtt"] < 1
    assert 0 <= other["seen"] < 10
    assert 0 <= other["loss"] < 1
    (own,) = node1.shows("get", "nodes", "node1")
    assert (own["path"], own["rtt"], own["seen"]) == ("local", None, 0)
    (session,) = node1.shows("get", "sessions", "node2")
    moment = datetime.fromisoformat(session["established"])
    assert moment.tzinfo is not None
    assert 0 <= time.time() - moment.timestamp() < 300
    assert session["cipher"] in {"aes-256-gcm", "chacha20-poly1305"}
    # Measured once packets went there; whether they did is other tests' doing.
    assert (session["mtu"], session["mtu_state"]) in {(1280, "base"), (1500, "settled")}
    assert session["tx_bytes"] > 0
    (pod,) = node1.shows("get", "pods", "web")
    assert 0 <= pod["age"] < 300
    routes = node1.shows("get", "routes")
    assert {(row["node"], row["origin"]) for row in routes} == {
        ("node1", "block"),
        ("node2", "block"),
    }


@pytest.mark.parametrize(
    ("kind", "name", "found"),
    [
        ("pods", "db", ["node2/db"]),
        ("pods", "node2/db", ["node2/db"]),
        ("pod", "web", ["node1/web"]),
        ("nodes", "node2", ["node2"]),
        ("sessions", "node2", ["node2"]),
        ("routes", "10.244.0.0/24", ["10.244.0.0/24"]),
        ("blocks", "10.244.0.0/24", ["10.244.0.0/24"]),
    ],
)
def test_a_name_selects(
    node1: Machine, node2: Machine, kind: str, name: str, found: list[str]
) -> None:
    assert node1.says("get", kind, name, "-o", "name").split() == found
    assert len(node1.says("get", kind, name).splitlines()) == 2


def test_watch_shows_again_what_has_changed(node1: Machine, node2: Machine) -> None:
    with (
        node1.running("get", "pods", "--watch", "-o", "json") as lines,
        node1.running("get", "pods", "--watch") as tables,
    ):
        before = named(lines)
        assert tables.line(SOON).startswith("NAME")
        node2.says("pod", "add", "late")
        eventually(lambda: sorted(named(lines)) == sorted([*before, "late"]), within=SOON)
        eventually(lambda: tables.line(SOON).startswith("late"), within=SOON)
        node2.says("pod", "del", "late")
        eventually(lambda: named(lines) == before, within=SOON)
        lines.process.send_signal(signal.SIGINT)
        assert lines.process.wait(SOON) == 130
        assert "Traceback" not in lines.said()


def named(lines: Background) -> list[str]:
    """The pods of the next answer; there is one for anything that changes."""
    return [pod["name"] for pod in json.loads(lines.line(SOON))]


# -- status ----------------------------------------------------------------------------------------


def test_status_of_a_node_that_is_well(node1: Machine, node2: Machine) -> None:
    eventually(lambda: settled(node1), within=SOON)
    done = node1.types("status")
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert shown["node"] == "node1"
    assert shown["state"] == "ready"
    assert shown["nodes"] == "ready=2"
    answer = node1.shows("status")
    assert set(answer) >= {"node", "cluster", "state", "problems", "ledger"}
    assert set(answer["ledger"]) == {"in", "out", "queued", "drops"}
    assert set(answer["gossip"]) == GOSSIP
    assert all(isinstance(count, int) and count >= 0 for count in answer["gossip"].values())
    explained = node1.says("status", "--help")
    assert all(name in explained for name in GOSSIP)
    assert (answer["state"], answer["problems"]) == ("ready", [])
    assert "\nledger:\n" in node1.says("status", "-o", "yaml")


def test_status_says_what_is_wrong_and_what_to_do(
    yard: Yard, node1: Machine, node2: Machine
) -> None:
    yard.cut((node1, node2))
    try:
        eventually(lambda: node1.ask("status")["problems"], within=SOON)
        done = node1.types("status")
        answer = json.loads(node1.types("status", "-o", "json").stdout)
        nodes = node1.says("get", "nodes")
        silent = node1.types("ping", "db", "-c", "1")
    finally:
        yard.cut()
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"^state +problem$", done.stdout, re.MULTILINE)
    assert re.search(r"^PROBLEM +WHAT +WHY +FIX$", done.stdout, re.MULTILINE)
    assert re.search(
        r"^node-suspect +node node2 is suspect +nothing was heard of it for [0-9]+ s +see whether",
        done.stdout,
        re.MULTILINE,
    )
    (problem,) = answer["problems"]
    assert set(problem) == {"code", "what", "why", "fix"}
    # Each look is a process; what is suspected may be declared dead between two of them.
    assert re.search(r"^node2 +(suspect|dead) .* none ", nodes, re.MULTILINE)
    # Which leg failed: that between the daemons, so the pod's own says nothing new.
    assert silent.returncode == 1
    assert re.fullmatch(
        r"muslin: cannot reach node2/db: the overlay leg failed, node2 \((suspect|dead)\) answers "
        r"no probe: look at its daemon, and at the underlay between the nodes\n",
        silent.stderr,
    )
    for one in (node1, node2):
        eventually(lambda one=one: one.types("status").returncode == 0, within=SOON)
    # It was suspected and has answered that it lives; that is shown where it happened.
    assert node2.shows("status")["gossip"]["refuted"] >= 1
    assert re.search(r"^gossip +.*refuted=[1-9]", node2.says("status"), re.MULTILINE)


# -- ping ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
def test_ping_shows_every_leg(node1: Machine, node2: Machine, family: int) -> None:
    db = node2.place("db").at(family)
    shown = node1.says("ping", "db", f"-{family}", "-c", "2").splitlines()
    assert shown[0] == f"pod node2/db ({db}) of node2, direct"
    for number in (1, 2):
        assert re.fullmatch(rf"seq={number} overlay=[0-9.]+ms pod=[0-9.]+ms", shown[number])
    assert shown[3].startswith("overlay leg to node2: 2 sent, 2 answered, min/avg/max ")
    assert shown[4].startswith(f"pod leg to {db}: 2 sent, 2 answered, min/avg/max ")
    assert len(shown) == 5


def test_ping_reaches_nodes_addresses_and_what_is_near(node1: Machine, node2: Machine) -> None:
    (other,) = node1.shows("get", "nodes", "node2")
    db = node2.place("db")
    for target, heading in (
        ("node2", f"node node2 ({other['address']}), direct"),
        (other["address6"], f"node {other['address6']} ({other['address6']}), direct"),
        ("node2/db", f"pod node2/db ({db.address}) of node2, direct"),
        (db.address6, f"pod {db.address6} ({db.address6}) of node2, direct"),
        ("web", f"pod node1/web ({node1.place('web').address}) of node1, on this node"),
    ):
        assert node1.says("ping", target, "-c", "1").startswith(f"{heading}\nseq=1 "), target


def test_ping_of_an_address_without_a_pod_names_the_leg_that_failed(
    node1: Machine, node2: Machine
) -> None:
    nobody = node2.place("db").address.rsplit(".", 1)[0] + ".99"
    done = node1.types("ping", nobody, "-c", "1", "-W", "3")
    assert done.returncode == 1
    assert f"address {nobody} ({nobody}) of node2, direct\n" in done.stdout
    assert re.search(r"^seq=1 overlay=[0-9.]+ms address=lost$", done.stdout, re.MULTILINE)
    assert done.stderr == (
        f"muslin: cannot reach {nobody}: the address leg failed, {nobody} answers no echo although "
        "node2 is reachable: look at the namespace and the routes on node2\n"
    )
