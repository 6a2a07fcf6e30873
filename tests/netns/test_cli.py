"""What people type and read, through the installed `muslin`, on real nodes.

node1 -- founded the cluster, uvloop        node2 -- joined, asyncio: `up --loop asyncio`
node3 -- joins, and is stopped again, in single tests
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from node.kernel import netns
from node.kernel.model import veth_name
from node.kernel.pods import OWN_PREFIX
from tests.support.labs import Place
from tests.support.machines import MUSLIN, Machine, Yard, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt, background, links
from tests.support.traffic import copy, reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SOON = 10.0

GOSSIP = {
    "awareness",
    "damped",
    "forged_claims",
    "refuted",
    "refused_items",
    "overflowed_items",
}

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def yard(make_module_yard: YardMaker) -> Yard:
    return make_module_yard(3)


@pytest.fixture(scope="module")
def node1(yard: Yard) -> Machine:
    founder = yard.found()
    founder.says("pod", "add", "web")
    return founder


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


@pytest.fixture
def pod_name() -> str:
    """A name that no other pod has."""
    return f"p{next(_NUMBERS)}"


def place(machine: Machine, pod: str) -> Place:
    (row,) = machine.shows("get", "pods", f"{machine.name}/{pod}")
    return Place(pod, machine.name, row["netns"], row["address"], row["address6"])


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
        "run muslin token on the node where muslin init ran\n"
    )
    assert node1.types("leave").returncode == 1


def test_nodes_on_different_event_loops_work_together(node1: Machine, node2: Machine) -> None:
    web, db = place(node1, "web"), place(node2, "db")
    assert reaches(web, db.address)
    assert reaches(db, web.address6)
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
    (other,) = node1.shows("get", "nodes", "node2")
    assert (other["state"], other["path"], other["pods"]) == ("ready", "direct", 1)
    assert other["endpoint"] == f"{node2.address}:6875"
    assert 0 < other["rtt"] < 1
    assert 0 <= other["seen"] < 10
    assert other["loss"] == 0
    (own,) = node1.shows("get", "nodes", "node1")
    assert (own["path"], own["rtt"], own["seen"]) == ("local", None, 0)
    (session,) = node1.shows("get", "sessions", "node2")
    moment = datetime.fromisoformat(session["established"])
    assert moment.tzinfo is not None
    assert 0 <= time.time() - moment.timestamp() < 300
    assert session["cipher"] in {"aes-256-gcm", "chacha20-poly1305"}
    assert session["mtu"] == 1500
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


def test_watch_shows_again_what_has_changed(node1: Machine, node2: Machine, pod_name: str) -> None:
    with (
        node1.running("get", "pods", "--watch", "-o", "json") as lines,
        node1.running("get", "pods", "--watch") as tables,
    ):
        before = [pod["name"] for pod in json.loads(lines.line(SOON))]
        assert tables.line(SOON).startswith("NAME")
        node2.says("pod", "add", pod_name)
        after = [pod["name"] for pod in json.loads(lines.line(SOON))]
        assert sorted(after) == sorted([*before, pod_name])
        eventually(lambda: tables.line(SOON).startswith(pod_name), within=SOON)
        node2.says("pod", "del", pod_name)
        assert [pod["name"] for pod in json.loads(lines.line(SOON))] == before
        lines.process.send_signal(signal.SIGINT)
        assert lines.process.wait(SOON) == 130
        assert "Traceback" not in lines.said()


# -- status ----------------------------------------------------------------------------------------


def test_status_of_a_node_that_is_well(node1: Machine, node2: Machine) -> None:
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
    assert "\nstate     problem\n" in done.stdout
    assert re.search(r"^PROBLEM +WHAT +WHY +FIX$", done.stdout, re.MULTILINE)
    assert re.search(
        r"^node-suspect +node node2 is suspect +nothing was heard of it for [0-9]+ s +see whether",
        done.stdout,
        re.MULTILINE,
    )
    (problem,) = answer["problems"]
    assert set(problem) == {"code", "what", "why", "fix"}
    assert re.search(r"^node2 +suspect .* none ", nodes, re.MULTILINE)
    # Which leg failed: that between the daemons, so the pod's own says nothing new.
    assert silent.returncode == 1
    assert silent.stderr == (
        "muslin: cannot reach node2/db: the overlay leg failed, node2 (suspect) answers no probe: "
        "look at its daemon, and at the underlay between the nodes\n"
    )
    eventually(lambda: node1.types("status").returncode == 0, within=SOON)
    # It was suspected and has answered that it lives; that is shown where it happened.
    assert node2.shows("status")["gossip"]["refuted"] >= 1
    assert re.search(r"^gossip +.*refuted=[1-9]", node2.says("status"), re.MULTILINE)


# -- ping ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
def test_ping_shows_every_leg(node1: Machine, node2: Machine, family: int) -> None:
    db = place(node2, "db").at(family)
    shown = node1.says("ping", "db", f"-{family}", "-c", "2").splitlines()
    assert shown[0] == f"pod node2/db ({db}) of node2, direct"
    for number in (1, 2):
        assert re.fullmatch(rf"seq={number} overlay=[0-9.]+ms pod=[0-9.]+ms", shown[number])
    assert shown[3].startswith("overlay leg to node2: 2 sent, 2 answered, min/avg/max ")
    assert shown[4].startswith(f"pod leg to {db}: 2 sent, 2 answered, min/avg/max ")
    assert len(shown) == 5


def test_ping_reaches_nodes_addresses_and_what_is_near(node1: Machine, node2: Machine) -> None:
    (other,) = node1.shows("get", "nodes", "node2")
    db = place(node2, "db")
    for target, heading in (
        ("node2", f"node node2 ({other['address']}), direct"),
        (other["address6"], f"node {other['address6']} ({other['address6']}), direct"),
        ("node2/db", f"pod node2/db ({db.address}) of node2, direct"),
        (db.address6, f"pod {db.address6} ({db.address6}) of node2, direct"),
        ("web", f"pod node1/web ({place(node1, 'web').address}) of node1, on this node"),
    ):
        assert node1.says("ping", target, "-c", "1").startswith(f"{heading}\nseq=1 "), target


def test_ping_of_an_address_without_a_pod_names_the_leg_that_failed(
    node1: Machine, node2: Machine
) -> None:
    nobody = place(node2, "db").address.rsplit(".", 1)[0] + ".99"
    done = node1.types("ping", nobody, "-c", "1", "-W", "0.5")
    assert done.returncode == 1
    assert f"address {nobody} ({nobody}) of node2, direct\n" in done.stdout
    assert re.search(r"^seq=1 overlay=[0-9.]+ms address=lost$", done.stdout, re.MULTILINE)
    assert done.stderr == (
        f"muslin: cannot reach {nobody}: the address leg failed, {nobody} answers no echo although "
        "node2 is reachable: look at the namespace and the routes on node2\n"
    )


# -- pods ------------------------------------------------------------------------------------------


def test_a_pod_gets_a_namespace_made_for_it_which_goes_with_it(
    node1: Machine, pod_name: str
) -> None:
    said = node1.says("pod", "add", pod_name)
    pod = place(node1, pod_name)
    assert said == f"pod {pod_name} added: {pod.address} {pod.address6} in {pod.netns}\n"
    assert Path(pod.netns).name.startswith(OWN_PREFIX)
    assert netns.exists(pod.netns)
    assert sorted(links(pod.netns)) == ["eth0", "lo"]
    assert veth_name(pod_name) in links(node1.netns)
    assert reaches(pod, place(node1, "web").address)
    assert node1.says("pod", "del", pod_name) == f"pod {pod_name} deleted\n"
    assert not netns.exists(pod.netns)
    assert veth_name(pod_name) not in links(node1.netns)


@pytest.mark.parametrize("by", ["name", "path"])
def test_a_namespace_that_was_given_stays(
    yard: Yard, node1: Machine, pod_name: str, by: str
) -> None:
    given = netns.create(f"{yard.name}-node9-{pod_name}")
    try:
        node1.says("pod", "add", pod_name, "--netns", given.name if by == "name" else given)
        pod = place(node1, pod_name)
        assert pod.netns == str(given)
        assert reaches(pod, place(node1, "web").address6)
        node1.says("pod", "del", pod_name)
        assert links(str(given)) == ["lo"]
        assert veth_name(pod_name) not in links(node1.netns)
    finally:
        netns.delete(given.name)


def test_an_address_can_be_chosen(node1: Machine, pod_name: str) -> None:
    wanted = place(node1, "web").address.rsplit(".", 1)[0] + ".200"
    node1.says("pod", "add", pod_name, "--ip", wanted)
    assert place(node1, pod_name).address == wanted
    node1.says("pod", "del", pod_name)


def test_exec_is_the_command_inside_the_pod(node1: Machine) -> None:
    web = place(node1, "web")
    assert f"inet {web.address}/32" in node1.says("exec", "web", "--", "ip", "address")
    done = node1.types("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert node1.types("exec", "web", "--", "sh", "-c", "kill -9 $$").returncode == -9
    assert node1.types("exec", "web", "true").returncode == 0


def test_exec_reaches_pods_of_a_daemon_that_ip_netns_exec_started(
    yard: Yard, node1: Machine, pod_name: str
) -> None:
    machine = yard.machines[2]
    machine.joins(node1)
    words = ("ip", "netns", "exec", machine.netns, *machine.words("up"))
    with background("/proc/self/ns/net", *words):
        eventually(lambda: machine.types("status").returncode == 0, within=SOON, poll=0.2)
        machine.says("pod", "add", pod_name)
        address = machine.shows("get", "pods", f"node3/{pod_name}")[0]["address"]
        assert f"inet {address}/32" in machine.says("exec", pod_name, "ip", "address")
        machine.says("pod", "del", pod_name)
    assert not [name for name in os.listdir(netns.NETNS_DIR) if name.endswith(pod_name)]


def test_a_pod_of_another_node_is_worked_on_there(node1: Machine, node2: Machine) -> None:
    for words, what in (
        (("exec", "db", "--", "true"), "cannot run a command in pod db: pod db is on node2: run"),
        (("pod", "del", "db"), "cannot delete pod db: pod db is on node2: run"),
    ):
        done = node1.types(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"muslin: {what}")


# -- up --------------------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What a service manager listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(SOON)
        yield listening


def notified(manager: socket.socket, wanted: str) -> list[str]:
    """The lines of the next notification that is not about the watchdog."""
    while True:
        lines = manager.recv(4096).decode().split("\n")
        if lines != ["WATCHDOG=1"] or wanted == "WATCHDOG=1":
            assert lines[0] == wanted
            return lines


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_up_tells_the_service_manager_and_reloads_and_stops(
    yard: Yard, node1: Machine, manager: socket.socket, loop: str
) -> None:
    machine = yard.machines[2]
    machine.joins(node1)
    settings = machine.state / "config.toml"
    settings.write_text("")
    variables = (f"NOTIFY_SOCKET={manager.getsockname()}", "WATCHDOG_USEC=400000")
    with machine.running("up", "--loop", loop, before=("env", *variables)) as daemon:
        assert notified(manager, "READY=1") == ["READY=1", "STATUS=node node3"]
        assert notified(manager, "WATCHDOG=1")
        assert machine.ask("status")["node"] == "node3"

        settings.write_text('listen = "[::]:7000"\n[log]\nlevel = "debug"\n')
        daemon.process.send_signal(signal.SIGHUP)
        notified(manager, "RELOADING=1")
        notified(manager, "READY=1")
        assert "config.reloaded applied=log.level needs_restart=listen" in daemon.said()

        settings.write_text("[log]\nlevel = 'loud'\n")
        daemon.process.send_signal(signal.SIGHUP)
        notified(manager, "RELOADING=1")
        notified(manager, "READY=1")
        assert "config.refused" in daemon.said()
        assert machine.ask("status")["node"] == "node3"

        stop = signal.SIGTERM if loop == "uvloop" else signal.SIGINT
        daemon.process.send_signal(stop)
        notified(manager, "STOPPING=1")
        assert daemon.process.wait(SOON) == 0
        assert "Traceback" not in daemon.said()
        assert daemon.rest(SOON) == "", "logs go to stderr"
    assert not (machine.state / "control.sock").exists()
    settings.unlink()


# -- lab -------------------------------------------------------------------------------------------


def muslin(*words: str) -> Any:
    """A verb that needs no node, typed on the machine itself."""
    return attempt("/proc/self/ns/net", MUSLIN, *words, timeout=60)


def test_a_lab_from_up_to_down() -> None:
    name = f"t{os.getpid()}-cli"
    try:
        done = muslin("lab", "up", "--nodes", "2", "--pods", "1", "--name", name)
        assert done.returncode == 0, done.stderr
        assert (
            done.stderr.splitlines()[-1] == "muslin: every node sees every other node and every pod"
        )
        nodes, pods = done.stdout.split("\n\n")
        assert [line.split()[:2] for line in nodes.splitlines()[1:]] == [
            ["node1", "ready"],
            ["node2", "ready"],
        ]
        assert [line.split()[0] for line in pods.splitlines()[1:]] == ["node1-pod1", "node2-pod1"]
        there = pods.splitlines()[2].split()[2]

        status = muslin("lab", "status", "--name", name, "-o", "json")
        assert status.returncode == 0
        assert json.loads(status.stdout)["state"] == "up"
        seen = muslin("lab", "exec", "--name", name, "node1", "--", MUSLIN, "get", "pods")
        assert there in seen.stdout
        ping = ("lab", "exec", "--name", name, "node1-pod1", "--", "ping", "-c1", "-W1", there)
        assert muslin(*ping).returncode == 0
        again = muslin("lab", "up", "--name", name)
        assert again.returncode == 1
        assert again.stderr == (
            f"muslin: cannot bring up lab {name}: lab {name} exists already: "
            f"remove it with: muslin lab down --name {name}\n"
        )

        cut = muslin("lab", "cut", "node1", "node2", "--name", name)
        assert cut.stdout == "node1 and node2 no longer hear each other\n"
        assert muslin(*ping).returncode == 1
        assert re.search(r"^cuts +node1-node2$", muslin("lab", "status", "--name", name).stdout, 8)
        heal = muslin("lab", "heal", "--name", name)
        assert heal.stdout == "the underlay of all nodes is whole again\n"
        eventually(lambda: muslin(*ping).returncode == 0, within=SOON)

        down = muslin("lab", "down", "--name", name)
        assert (down.returncode, down.stdout) == (0, f"lab {name} is gone\n")
        gone = muslin("lab", "status", "--name", name)
        assert (gone.returncode, gone.stdout) == (1, "")
        assert f"there is no lab '{name}'" in gone.stderr
    finally:
        muslin("lab", "down", "--name", name)
    assert not [found for found in netns.names() if found.startswith(name)]


def test_an_interrupted_lab_leaves_nothing() -> None:
    name = f"t{os.getpid()}-int"
    try:
        words = (MUSLIN, "lab", "up", "--name", name)
        with background("/proc/self/ns/net", *words) as building:
            eventually(lambda: f"{name}-node3-pod2" in netns.names(), within=SOON)
            building.process.send_signal(signal.SIGINT)
            assert building.process.wait(SOON) == 130
            assert "Traceback" not in building.said()
        assert not [found for found in netns.names() if found.startswith(name)]
    finally:
        muslin("lab", "down", "--name", name)
