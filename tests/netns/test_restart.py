"""Item 5: a daemon is killed under traffic and started again.

node1-pod1 ==== TCP and pings ==== node2-pod1      SIGKILL node2, start it, and everything is
                                                   as it was within three seconds
"""

from __future__ import annotations

import signal
import time

import pytest

from node.lab.verbs import lab_kill, lab_start
from tests.support.labs import Lab, LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.traffic import PORT, TOOL, background, copy, reaches, serving
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

FLOWS_WITHIN = 3.0
"""Seconds from the start of the process to the first packet that comes back."""

SIZE = 1 << 30
"""More than the stream can move before the kill: it is under way when it happens."""


def holdings(lab: Lab, node: str) -> dict[str, object]:
    """What a restart must not change, as another node sees it and as the node itself does."""
    row = next(row for row in lab.get(node, "nodes") if row["name"] == node)
    pods = [row for row in lab.get(node, "pods") if row["node"] == node]
    return {
        "cluster": lab.ask(node, "status")["cluster"],
        "address": (row["address"], row["address6"]),
        "blocks": row["blocks"],
        "pods": [(pod["name"], pod["address"], pod["address6"], pod["netns"]) for pod in pods],
    }


@pytest.fixture(scope="module")
def lab(make_module_lab: LabMaker) -> Lab:
    return make_module_lab(nodes=3, pods=2)


def restart(lab: Lab, node: str, number: signal.Signals) -> float:
    """End a daemon and start it again; seconds from its start until a remote pod answers."""
    here, there = lab["node1-pod1"], lab[f"{node}-pod1"]
    lab_kill(lab.name, node, number, store=lab.store)
    assert not reaches(here, there.address)
    started = time.monotonic()
    lab_start(lab.name, node, store=lab.store)
    eventually(lambda: reaches(here, there.address), within=3 * FLOWS_WITHIN)
    return time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_identity_blocks_and_pods_survive_and_traffic_flows_again_in_time(
    lab: Lab, number: signal.Signals
) -> None:
    before = holdings(lab, "node2")
    here, there = lab["node1-pod1"], lab["node2-pod1"]
    with (
        serving(there, "receive", PORT),
        background(here.netns, *TOOL, "send", there.address, str(PORT), str(SIZE)),
    ):
        eventually(lambda: lab.session("node1", "node2")["tx_bytes"] > 1 << 20, within=10.0)
        took = restart(lab, "node2", number)
        moved = lab.session("node1", "node2")["tx_bytes"]
        # The very connection that was cut off goes on: both kernels still have it.
        eventually(
            lambda: lab.session("node1", "node2")["tx_bytes"] > moved + (1 << 20), within=15.0
        )
    assert took <= FLOWS_WITHIN
    assert holdings(lab, "node2") == before
    assert reaches(lab["node2-pod1"], lab["node2-pod2"].address)
    copy(there, here, 8 << 20, family=6)


def test_a_node_that_restarts_while_it_is_cut_off_finds_the_others_when_the_cut_is_healed(
    lab: Lab,
) -> None:
    before = holdings(lab, "node3")
    for other in ("node1", "node2"):
        lab.cut("node3", other)
    try:
        lab_kill(lab.name, "node3", signal.SIGKILL, store=lab.store)
        lab_start(lab.name, "node3", store=lab.store)
        assert holdings(lab, "node3") == before
        assert reaches(lab["node3-pod1"], lab["node3-pod2"].address)
        assert not reaches(lab["node3-pod1"], lab["node1-pod1"].address)
    finally:
        lab.heal()
    eventually(lambda: reaches(lab["node1-pod1"], lab["node3-pod1"].address), within=15.0)
    eventually(lambda: reaches(lab["node3-pod2"], lab["node2-pod1"].address), within=15.0)
