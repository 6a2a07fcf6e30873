"""Items 6 and 7 of what Muslin promises: members come and go, and blocks with them.

node1 -- founds, admits      node2 .. node7 -- join at the same moment, through node1
                             node4 leaves --> its block --> a node that had none
"""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from node.errors import NodeError
from node.kernel import netns
from node.lab.processes import environment
from tests.support.labs import Lab, LabMaker
from tests.support.machines import Machine, Yard, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import background
from tests.support.traffic import is_answered, reaches
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone("netns")]

EVERYWHERE_WITHIN = 5.0
"""Seconds from the start of the last daemon until every node has every route."""

LOADED_WITHIN = 2.0
"""Seconds that a machine may take to load the code of six daemons at once. What a slower one takes
longer is not the cluster's, and is given in addition."""

SOON = 20.0
"""Seconds, for what gossip brings within one or two on a machine that has time."""


def routes(machine: Machine) -> set[tuple[str, str]]:
    """What a node routes where; nothing while its daemon does not answer yet."""
    try:
        return {(row["prefix"], row["node"]) for row in machine.get("routes")}
    except NodeError:
        return set()


def blocks(machine: Machine) -> dict[str, list[str]]:
    """The blocks in use, by node, as one node sees them."""
    return {row["name"]: row["blocks"] for row in machine.get("nodes")}


def node(machine: Machine, name: str) -> Any:
    return next(row for row in machine.get("nodes") if row["name"] == name)


def agree(machines: Iterable[Machine]) -> set[tuple[str, str]]:
    """The routes that all of them have, if they are the same; else nothing."""
    first, *others = map(routes, machines)
    return first if all(other == first for other in others) else set()


# -- joining ---------------------------------------------------------------------------------------


@pytest.mark.alone
def test_six_that_join_at_once_get_six_blocks_and_all_routes_are_everywhere_in_5_s(
    make_yard: YardMaker,
) -> None:
    yard = make_yard(7)
    founder, *joiners = yard.machines
    yard.found()
    tokens = [founder.ask("token")["token"] for _ in joiners]
    within = EVERYWHERE_WITHIN + max(0.0, loading(len(joiners)) - LOADED_WITHIN)
    with ThreadPoolExecutor(len(joiners)) as hands:
        work = zip(joiners, tokens, strict=True)
        list(hands.map(lambda one: one[0].says("join", one[1], "--name", one[0].name), work))
        list(hands.map(Machine.start, joiners))
        started = time.monotonic()

    def complete() -> bool:
        return len(agree(yard.machines)) == 2 * len(yard.machines)  # one route per family

    eventually(complete, within=within - (time.monotonic() - started))
    held = blocks(founder)
    for machine in joiners:
        eventually(lambda machine=machine: blocks(machine) == held, within=SOON)
    assert [len(prefixes) for prefixes in held.values()] == [1] * 7
    assert disjoint([prefix for prefixes in held.values() for prefix in prefixes])
    owned = {(prefix, name) for name, prefixes in held.items() for prefix in prefixes}
    assert owned < agree(yard.machines)
    for machine in joiners:
        eventually(lambda machine=machine: everybody_is_ready(machine, 7), within=SOON)
        eventually(lambda machine=machine: machine.types("status").returncode == 0, within=SOON)


def loading(count: int) -> float:
    """How long this machine takes to load the code of so many daemons at once."""
    began = time.monotonic()
    words = [sys.executable, "-c", "import node.cli.app, node.daemon"]
    for process in [subprocess.Popen(words, env=environment({})) for _ in range(count)]:
        assert process.wait(60.0) == 0
    return time.monotonic() - began


def disjoint(prefixes: list[str]) -> bool:
    networks = sorted(map(ip_network, prefixes))
    return not any(a.overlaps(b) for a, b in itertools.pairwise(networks))


def everybody_is_ready(machine: Machine, count: int) -> bool:
    states = [row["state"] for row in machine.get("nodes")]
    return states == ["ready"] * count


# -- leaving ---------------------------------------------------------------------------------------


@pytest.fixture
def full(make_yard: YardMaker) -> Yard:
    """Five machines in a cluster of four blocks: four nodes have one each.

    What comes back rests for two seconds here, not for a minute.
    """
    yard = make_yard(5)
    yard.info = replace(yard.info, settings={"MUSLIN_QUARANTINE": "2"})
    for machine in yard.machines:
        machine.info = yard.info
    yard.found("--cidr", "10.244.0.0/22")
    for machine in yard.machines[1:4]:
        yard.join(machine)
    return yard


def test_what_a_node_leaves_behind_is_free_for_others(full: Yard) -> None:
    node1, node2, node3, leaver, late = full.machines
    stay = (node1, node2, node3)
    # A fifth node finds no block: it is a member, says what is wrong, and waits.
    late.says("join", node1.ask("token")["token"], "--name", late.name)
    late.start()
    eventually(lambda: "no-block" in problems(late), within=SOON)
    eventually(lambda: everybody_is_ready(late, 5), within=SOON)
    assert late.types("status").returncode == 1
    eventually(lambda: everybody_is_ready(leaver, 5), within=SOON)
    freed = blocks(leaver)[leaver.name]
    assert [len(found) for found in blocks(leaver).values()] == [1, 1, 1, 1, 0]
    leaver.says("pod", "add", "web")
    made = leaver.get("pods")[0]["netns"]
    assert netns.exists(made)

    said = leaver.says("leave")

    assert said.startswith("left the cluster; other nodes that confirmed it: ")
    eventually(lambda: leaver.pid is None, within=SOON)
    assert not netns.exists(made)
    for machine in stay:
        eventually(lambda machine=machine: has_forgotten(machine, leaver.name), within=SOON)
    # The one that waited has the block now, and everybody knows.
    for machine in (*stay, late):
        eventually(lambda machine=machine: blocks(machine)[late.name] == freed, within=SOON)
    assert disjoint([prefix for found in blocks(node1).values() for prefix in found])
    eventually(lambda: late.types("status").returncode == 0, within=SOON)
    # Who has left is not let in by the old folder, and its name is free.
    again = leaver.types("up")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("muslin: cannot run the daemon: this node has left its cluster")
    shutil.rmtree(leaver.state)
    leaver.says("join", node1.ask("token")["token"], "--name", leaver.name)


def has_forgotten(machine: Machine, name: str) -> bool:
    """Whether nothing of a node that has left is left, as another node sees it."""
    row = node(machine, name)
    pods = [pod for pod in machine.get("pods") if pod["node"] == name]
    gone = not (row["blocks"] or pods or routed_to(machine, name))
    return gone and row["state"] == "left"


def problems(machine: Machine) -> set[str]:
    """What is wrong with a node, by code; nothing while its daemon does not answer yet."""
    try:
        return machine.problems()
    except NodeError:
        return set()


def routed_to(machine: Machine, name: str) -> bool:
    return any(owner == name for _, owner in routes(machine))


# -- removing --------------------------------------------------------------------------------------


def test_a_removed_node_is_gone_and_others_use_its_block(full: Yard) -> None:
    node1, node2, node3, gone, late = full.machines
    late.says("join", node1.ask("token")["token"], "--name", late.name)
    late.start()
    for machine in (node1, node2):
        eventually(lambda m=machine: everybody_is_ready(m, 5), within=SOON)
    freed = blocks(node1)[gone.name]
    refused = node2.types("remove", gone.name)
    assert refused.returncode == 1
    assert "does not hold the authority's key" in refused.stderr
    assert "is ready" in node1.types("remove", gone.name).stderr

    gone.stop(signal.SIGKILL)
    said = node1.says("remove", gone.name, "--force")

    assert said.startswith(f"removed {gone.name}: its certificate is revoked")
    for machine in (node1, node2, node3, late):
        eventually(lambda m=machine: node(m, gone.name)["state"] == "removed", within=SOON)
        eventually(lambda m=machine: not routed_to(m, gone.name), within=SOON)
    # Everybody knows, so the block came back, and the one that waited for a block has it.
    eventually(lambda: blocks(node2)[late.name] == freed, within=2 * SOON)
    for machine in (node1, node2):
        eventually(lambda m=machine: gone.name not in talks_to(m), within=SOON)
    assert "was removed before" in node1.types("remove", gone.name).stderr
    # It does not come back, and is told nothing by those who do not listen; its name is free.
    shutil.rmtree(gone.state)
    gone.says("join", node1.ask("token")["token"], "--name", gone.name)


def talks_to(machine: Machine) -> list[str]:
    return [row["node"] for row in machine.get("sessions")]


# -- labs ------------------------------------------------------------------------------------------


def test_a_lab_of_eight_nodes_and_sixteen_pods_comes_up(make_lab: LabMaker) -> None:
    lab = make_lab(nodes=8, pods=2)
    assert len({pod.address for pod in lab.pods}) == 16
    assert len({pod.address6 for pod in lab.pods}) == 16
    for place in lab.nodes:
        eventually(lambda place=place: summary(lab, place.name) == ("ready", 8, 2), within=SOON)
        assert len(lab.get(place.name, "pods")) == 16
    first, last = lab["node1-pod1"], lab["node8-pod2"]
    with ThreadPoolExecutor(8) as hands:
        others = [pod for pod in lab.pods if pod != first]
        assert all(hands.map(lambda pod: is_answered(first, pod.address), others))
        assert all(hands.map(lambda pod: is_answered(pod, last.address6), lab.pods))


def summary(lab: Lab, node: str) -> tuple[str, int, int]:
    """How a node is, how many it sees ready, and how many pods it has."""
    status = lab.ask(node, "status")
    return status["state"], status["nodes"]["ready"], status["pods"]


def test_two_labs_of_the_same_addresses_do_not_hear_each_other(make_lab: LabMaker) -> None:
    left, right = make_lab(nodes=2, pods=1), make_lab(nodes=2, pods=1)
    assert left["node2-pod1"].address == right["node2-pod1"].address
    assert left.ask("node1", "status")["cluster"] != right.ask("node1", "status")["cluster"]
    left.cut("node1", "node2")
    assert not reaches(left["node1-pod1"], left["node2-pod1"].address)
    assert is_answered(right["node1-pod1"], right["node2-pod1"].address)
    left.heal()
    eventually(lambda: reaches(left["node1-pod1"], left["node2-pod1"].address), within=SOON)
    for lab in (left, right):
        assert len(lab.get("node1", "nodes")) == 2


# -- cuts ------------------------------------------------------------------------------------------


def test_a_cut_stops_traffic_and_shows_and_healing_brings_all_back(make_lab: LabMaker) -> None:
    lab = make_lab(nodes=3, pods=1)
    one, two, three = (lab[f"node{number}-pod1"] for number in (1, 2, 3))
    eventually(lambda: seen(lab, "node1", "node2") == ("ready", "direct"), within=SOON)
    lab.cut("node1", "node2")
    assert not reaches(one, two.address)
    assert not reaches(two, one.address6)
    assert is_answered(one, three.address)
    assert is_answered(three, two.address6)
    for here, there in (("node1", "node2"), ("node2", "node1")):
        # node3 reaches both, so both live; only the way between them is broken.
        eventually(lambda a=here, b=there: seen(lab, a, b) == ("ready", "none"), within=SOON)
        status = lab.ask(here, "status")
        assert status["state"] == "problem"
        assert [found["code"] for found in status["problems"]] == ["no-path"]
        assert there in status["problems"][0]["what"]
        assert seen(lab, here, "node3") == ("ready", "direct")
        pods = {pod["name"]: pod["state"] for pod in lab.get(here, "pods")}
        assert pods[f"{there}-pod1"] == "ready"
    assert lab.ask("node3", "status")["state"] == "ready"
    # What is routed where does not change by silence: only the owner gives blocks away.
    assert len(lab.get("node1", "routes")) == 6

    with background(one.netns, "ping", "-n", "-i0.2", two.address) as pinging:
        lab.heal()
        eventually(lambda: "bytes from" in pinging.line(SOON), within=SOON)
    for place in lab.nodes:
        eventually(lambda place=place: summary(lab, place.name)[0] == "ready", within=SOON)
    assert seen(lab, "node1", "node2") == ("ready", "direct")


def seen(lab: Lab, here: str, there: str) -> tuple[str, str]:
    """State and path of a node, as another sees it."""
    row = next(row for row in lab.get(here, "nodes") if row["name"] == there)
    return row["state"], row["path"]
