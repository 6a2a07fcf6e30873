"""Item 5 of what Muslin promises: a daemon is killed under traffic and started again.

node1-pod1 ==== TCP and pings ==== node2-pod1     SIGKILL node2, start it, and everything is
                                                  as it was, as soon as the daemon is there

How long a start takes is the machine's affair, and of what else it does. So packets are not timed
by a clock but by the start itself: no wait of the protocol, which would be seconds, comes after it.
"""

from __future__ import annotations

import signal
import threading
import time

import pytest

from node.lab.processes import start_daemon
from node.lab.verbs import lab_kill, lab_start
from tests.support.labs import Lab, LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import background
from tests.support.streams import Stream
from tests.support.traffic import copy, is_answered, reaches
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone]

AT_ONCE = 1.0
"""Packets flow within so many times what the start of the daemon took."""

SOON = 20.0


def holdings(lab: Lab, node: str, *, seen_by: str = "") -> dict[str, object]:
    """What a restart must not change, as another node sees it or the node itself does."""
    asked = seen_by or node
    row = next(row for row in lab.get(asked, "nodes") if row["name"] == node)
    pods = [row for row in lab.get(asked, "pods") if row["node"] == node]
    return {
        "cluster": lab.ask(asked, "status")["cluster"],
        "id": row["id"],
        "address": (row["address"], row["address6"]),
        "blocks": row["blocks"],
        "pods": [(pod["name"], pod["address"], pod["address6"], pod["netns"]) for pod in pods],
        "routes": {r["prefix"] for r in lab.get(asked, "routes") if r["node"] == node},
    }


def is_well(lab: Lab, node: str) -> bool:
    return bool(lab.ask(node, "status")["state"] == "ready")


@pytest.fixture(scope="module")
def lab(make_module_lab: LabMaker) -> Lab:
    return make_module_lab(nodes=3, pods=2)


def kill(lab: Lab, node: str, number: signal.Signals = signal.SIGKILL) -> None:
    lab_kill(lab.name, node, number, store=lab.store)


def start(lab: Lab, node: str) -> None:
    lab_start(lab.name, node, store=lab.store)


def restart(lab: Lab, node: str, number: signal.Signals) -> float:
    """End a daemon and start it again, and wait until a remote pod answers.

    Returns:
        How long that took after the daemon answered, in parts of what the start took until then.
    """
    here, there = lab["node1-pod1"], lab[f"{node}-pod1"]
    kill(lab, node, number)
    assert not reaches(here, there.address)
    with background(here.netns, "ping", "-n", "-i0.1", there.address) as pinging:
        started = time.monotonic()
        start(lab, node)
        there_at = time.monotonic()
        while "bytes from" not in pinging.line(SOON):
            pass
        return (time.monotonic() - there_at) / (there_at - started)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_identity_blocks_and_pods_survive_and_traffic_flows_again_with_the_daemon(
    lab: Lab, number: signal.Signals
) -> None:
    views = [{"seen_by": name} for name in ("node1", "node2", "node3")]
    before = [holdings(lab, "node2", **view) for view in views]
    with Stream(lab["node1-pod1"], lab["node2-pod1"]) as stream:
        assert restart(lab, "node2", number) <= AT_ONCE
        # The very connection that was cut off goes on: both kernels still have it.
        stream.moves()
    assert [holdings(lab, "node2", **view) for view in views] == before
    for node in ("node1", "node2", "node3"):
        eventually(lambda node=node: is_well(lab, node), within=SOON)
    assert is_answered(lab["node2-pod1"], lab["node2-pod2"].address)
    copy(lab["node2-pod2"], lab["node3-pod1"], 8 << 20, family=6)


def test_pods_of_a_node_whose_daemon_is_dead_still_reach_each_other(lab: Lab) -> None:
    kill(lab, "node3")
    try:
        assert is_answered(lab["node3-pod1"], lab["node3-pod2"].address)
        assert is_answered(lab["node3-pod2"], lab["node3-pod1"].address6)
    finally:
        start(lab, "node3")


def test_a_daemon_killed_again_and_again_while_it_starts_loses_nothing(lab: Lab) -> None:
    before = holdings(lab, "node2")
    node = lab.info.topology.node("node2")
    for moment in (0.3, 0.5, 0.7, 0.9):  # of a start that takes about a second
        kill(lab, "node2")
        start_daemon(node.netns, lab.info.state("node2"), lab.info.log("node2"), {})
        threading.Event().wait(moment)
    assert restart(lab, "node2", signal.SIGKILL) <= AT_ONCE
    assert holdings(lab, "node2") == before


def test_a_node_that_restarts_while_it_is_cut_off_finds_the_others_after_the_cut(lab: Lab) -> None:
    before = holdings(lab, "node3")
    for other in ("node1", "node2"):
        lab.cut("node3", other)
    try:
        kill(lab, "node3")
        start(lab, "node3")
        assert holdings(lab, "node3") == before
        assert is_answered(lab["node3-pod1"], lab["node3-pod2"].address)
        assert is_answered(lab["node3"], lab["node3-pod1"].address6)
        assert not reaches(lab["node3-pod1"], lab["node1-pod1"].address)
    finally:
        lab.heal()
    eventually(lambda: reaches(lab["node1-pod1"], lab["node3-pod1"].address), within=SOON)
    eventually(lambda: reaches(lab["node3-pod2"], lab["node2-pod1"].address6), within=SOON)


def test_a_whole_cluster_that_loses_power_comes_back_as_it_was(lab: Lab) -> None:
    names = [node.name for node in lab.nodes]
    before = [holdings(lab, name) for name in names]
    for name in names:
        kill(lab, name)
    for name in names:
        start(lab, name)
    for name in names:
        eventually(lambda name=name: is_well(lab, name), within=SOON)
    assert [holdings(lab, name) for name in names] == before
    for a, b in ((1, 2), (2, 3), (3, 1)):
        assert is_answered(lab[f"node{a}-pod1"], lab[f"node{b}-pod2"].address)
