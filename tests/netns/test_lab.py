"""A lab of real daemons: comes up whole, breaks where told, heals, and leaves nothing behind.

kq-node1 (2 pods)    kq-node2 (2 pods)    kq-node3 (2 pods)
    +--------------------+--------------------+            bridge in kq-underlay
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from node.errors import NodeError
from node.kernel import netns
from node.lab.build import lab_down, lab_up
from node.lab.processes import daemon_pid
from node.lab.readiness import ask
from node.lab.store import LabInfo, LabStore
from node.lab.topology import belongs_to
from node.lab.verbs import lab_cut, lab_exec, lab_heal, lab_kill, lab_start, lab_status
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone("netns")]

LAB = f"kq{os.getpid()}"
SECOND = f"{LAB}-node1"  # a name made to be confused with a namespace of the first lab


def machine() -> str:
    """Everything about the machine's own network that a lab could touch by mistake."""
    commands = (
        "ip -o link",
        "ip -o addr",
        "ip route",
        "ip -6 route",
        "ip rule",
        "nft list ruleset",
    )
    shown = [
        subprocess.run(command.split(), capture_output=True, text=True, check=False).stdout
        for command in commands
    ]
    # Lifetimes of advertised addresses and routes count down by themselves.
    return "\n".join(" ".join(part for part in text.split() if "sec" not in part) for text in shown)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabInfo]:
    store = LabStore()
    try:
        yield lab_up(LAB, 3, 2, store=store)
    finally:
        lab_down(LAB, store=store)


def ping(namespace: str, target: str, *options: str) -> str:
    argv = ["ping", "-c1", *options, target]
    done = netns.run_in(
        namespace, subprocess.run, argv, capture_output=True, text=True, check=False
    )
    return str(done.stdout + done.stderr)


def answered(namespace: str, target: str, wait: int = 10) -> bool:
    """Whether one ping is answered, however busy the machine is; `wait` if none shall be."""
    return "bytes from" in ping(namespace, target, f"-W{wait}")


def soon(holds: Callable[[], bool]) -> None:
    eventually(holds, within=PATIENCE)


def places(name: str) -> dict[str, dict[str, Any]]:
    """All nodes and pods of a lab by name: netns, address, address6."""
    nodes = lab_status(name)["nodes"]
    return {place["name"]: place for node in nodes for place in (node, *node["pods"])}


def test_everything_reaches_everything(lab: LabInfo) -> None:
    found = places(LAB)
    assert len(found) == 9
    pairs = [
        (source, target, family)
        for source in found.values()
        for target in found.values()
        for family in ("address", "address6")
    ]
    with ThreadPoolExecutor(4) as hands:
        results = hands.map(lambda pair: answered(pair[0]["netns"], pair[1][pair[2]]), pairs)
        silent = [
            (source["name"], target["name"], family)
            for (source, target, family), result in zip(pairs, results, strict=True)
            if not result
        ]
    assert silent == []


@pytest.mark.parametrize("family", ["address", "address6"])
def test_hops_are_counted_and_shown(lab: LabInfo, family: str) -> None:
    found = places(LAB)
    source, target = found["node1-pod1"]["netns"], found["node3-pod2"][family]
    assert "ttl=62 " in ping(source, target)
    assert f"From {found['node1'][family]} " in ping(source, target, "-t1")
    assert f"From {found['node3'][family]} " in ping(source, target, "-t2")


def test_status_shows_a_lab_that_is_up(lab: LabInfo) -> None:
    soon(lambda: lab_status(LAB)["state"] == "up")
    status = lab_status(LAB)
    assert [node["sees"] for node in status["nodes"]] == [2, 2, 2]
    assert len({pod["address"] for node in status["nodes"] for pod in node["pods"]}) == 6


def test_exec_runs_inside_nodes_and_pods(lab: LabInfo, capfd: pytest.CaptureFixture[str]) -> None:
    assert lab_exec(LAB, "node2-pod1", ["ip", "-o", "-4", "addr", "show", "eth0"]) == 0
    assert places(LAB)["node2-pod1"]["address"] in capfd.readouterr().out
    assert lab_exec(LAB, "node2", ["ip", "-o", "link", "show", "muslin0"]) == 0
    assert lab_exec(LAB, "node2", ["false"]) == 1


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_a_cut_separates_two_nodes_and_healing_joins_them(lab: LabInfo) -> None:
    found = places(LAB)
    one, two, three = (found[f"node{number}-pod1"] for number in (1, 2, 3))
    lab_cut(LAB, "node1", "node2")
    assert lab_status(LAB)["cuts"] == [["node1", "node2"]]
    assert not answered(one["netns"], two["address"], 1)
    assert not answered(two["netns"], one["address"], 1)
    assert answered(one["netns"], three["address"])
    assert answered(two["netns"], three["address"])
    lab_heal(LAB)
    soon(lambda: answered(one["netns"], two["address"], 1))
    soon(lambda: lab_status(LAB)["state"] == "up")


def test_a_killed_daemon_comes_back_as_the_same_node(lab: LabInfo) -> None:
    before = places(LAB)
    identity = ask(lab, "node2", "get", kind="nodes")
    lab_kill(LAB, "node2")
    assert lab_status(LAB)["state"] == "degraded"
    # The others are well until they miss it, and that may be soon.
    stopped = [node["state"] == "stopped" for node in lab_status(LAB)["nodes"]]
    assert stopped == [False, True, False]
    lab_start(LAB, "node2")
    after = places(LAB)
    assert {name: place["address"] for name, place in after.items()} == {
        name: place["address"] for name, place in before.items()
    }
    own = [
        [row["id"] for row in rows if row["local"]]
        for rows in (identity, ask(lab, "node2", "get", kind="nodes"))
    ]
    assert own[0] == own[1]
    soon(lambda: answered(before["node1-pod1"]["netns"], before["node2-pod1"]["address"], 1))
    soon(lambda: lab_status(LAB)["state"] == "up")


def test_pods_of_a_stopped_node_still_reach_each_other(lab: LabInfo) -> None:
    found = places(LAB)
    lab_kill(LAB, "node3", signal.SIGTERM)
    try:
        assert answered(found["node3-pod1"]["netns"], found["node3-pod2"]["address"])
        away = ping(found["node3-pod1"]["netns"], found["node1-pod1"]["address"])
        assert "nreachable" in away
    finally:
        lab_start(LAB, "node3")
    soon(lambda: lab_status(LAB)["state"] == "up")


def test_two_labs_run_side_by_side_and_the_machine_notices_neither(lab: LabInfo) -> None:
    before = machine()
    try:
        lab_up(SECOND, 2, 1, underlay="ipv6", mtu=1400)
        assert machine() == before
        soon(lambda: lab_status(SECOND)["state"] == "up")
        found = places(SECOND)
        assert answered(found["node1-pod1"]["netns"], found["node2-pod1"]["address"])
    finally:
        assert lab_down(SECOND)
    assert machine() == before
    soon(lambda: lab_status(LAB)["state"] == "up")
    assert not [name for name in netns.names() if belongs_to(SECOND, name)]


def test_a_dead_lab_is_removed_all_the_same(tmp_path: Path) -> None:
    store = LabStore(tmp_path)
    name = f"{LAB}-dead"
    info = lab_up(name, 2, 1, store=store)
    try:
        lab_kill(name, "node1", store=store)
        netns.delete(f"{name}-node2")
        (info.folder / "lab.json").write_text("")
    finally:
        assert lab_down(name, store=store)
    assert not lab_down(name, store=store)
    assert daemon_pid(info.state("node2")) is None
    assert not [left for left in netns.names() if belongs_to(name, left)]


def test_a_lab_that_does_not_come_up_leaves_only_its_logs(tmp_path: Path) -> None:
    store = LabStore(tmp_path)
    name = f"{LAB}-bad"
    with pytest.raises(NodeError) as caught:
        # The cluster's range contains the underlay: founding the cluster is refused.
        lab_up(name, 2, 1, cidr="198.51.0.0/16", store=store)
    assert caught.value.why.startswith("node1 cannot found the cluster:")
    assert "overlaps" in caught.value.why
    assert not store.exists(name)
    assert not [left for left in netns.names() if belongs_to(name, left)]
    with pytest.raises(NodeError):
        lab_up(name, 1, 1, settings={"MUSLIN_LISTEN": "203.0.113.9:6875"}, store=store)
    assert (tmp_path / "lab-logs" / name / "node1.log").exists()


def test_an_interrupted_start_leaves_nothing(tmp_path: Path) -> None:
    store = LabStore(tmp_path)
    name = f"{LAB}-int"

    def interrupt(step: str) -> None:
        if "founded" in step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab_up(name, 2, 1, store=store, progress=interrupt)
    assert not store.exists(name)
    assert daemon_pid(store.folder(name) / "node1") is None
    assert not [left for left in netns.names() if belongs_to(name, left)]
