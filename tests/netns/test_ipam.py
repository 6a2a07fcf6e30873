"""Addresses that never leak and identities that are never doubled, on real nodes.

node1 -- founded the cluster     node2 -- its pods come and go     node3 -- gets a copy of node2
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from node.control.schema import ControlError
from node.errors import NodeError
from node.kernel import netns
from node.kernel.model import is_veth_name, veth_name
from tests.support.machines import Machine, Yard
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import links
from tests.support.traffic import reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SOON = 60.0
RECOGNISED_WITHIN = 10.0
IN_TOUCH_FOR = 6.0
"""Seconds after which a node is the one that others route to (`SETTLED_AFTER`)."""


def pods(machine: Machine, node: str = "node2") -> dict[str, str]:
    return {pod["name"]: pod["netns"] for pod in machine.get("pods") if pod["node"] == node}


def findings(machine: Machine, *words: str) -> list[tuple[str, str]]:
    shown = machine.ask("ipam.check", fix="--fix" in words)["findings"]
    return [(finding["code"], finding["frees"]) for finding in shown]


def test_a_namespace_that_vanished_is_shown_and_freed_only_on_request(
    node1: Machine, node2: Machine
) -> None:
    node2.says("pod", "add", "gone")
    eventually(lambda: "gone" in pods(node1), within=SOON)
    assert node2.types("ipam", "check").returncode == 0
    netns.delete(Path(pods(node2)["gone"]).name)
    eventually(lambda: "pod-lost" in node2.problems(), within=SOON)
    checked = node2.types("ipam", "check")
    assert (checked.returncode, "pod gone" in checked.stdout) == (1, True)
    assert "gone" in pods(node2)
    assert not netns.exists("muslin-gone"), "a lost namespace is not made anew"
    assert node2.types("ipam", "check", "--fix").returncode == 0
    assert "gone" not in pods(node2)
    eventually(lambda: "gone" not in pods(node1), within=SOON)
    eventually(lambda: node2.problems() == set(), within=SOON)


def test_what_vanished_while_the_daemon_was_dead_is_taken_back_at_its_start(
    node1: Machine, node2: Machine
) -> None:
    for name in ("kept", "lost"):
        node2.says("pod", "add", name)
    before = pods(node2)
    node2.stop(signal.SIGKILL)
    netns.delete(Path(before["lost"]).name)
    node2.up()
    assert pods(node2) == {"kept": before["kept"]}
    assert "pod.reconciled" in node2.log.read_text()
    eventually(lambda: "lost" not in pods(node1), within=SOON)
    kept, web = node2.place("kept"), node1.place("web")
    eventually(lambda: reaches(kept, web.address), within=SOON)
    assert findings(node2) == []
    node2.says("pod", "del", "kept")


def test_pods_of_an_earlier_boot_are_taken_back(node2: Machine, monkeypatch) -> None:
    node2.says("pod", "add", "old")
    path = pods(node2)["old"]
    node2.stop()
    state = next(entry for entry in node2.state.iterdir() if entry.name == "state")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert boot.encode() in state.read_bytes()
    node2.up()
    assert pods(node2) == {"old": path}
    node2.says("pod", "del", "old")
    assert not netns.exists(path)


def test_requests_in_parallel_repeated_and_killed_leak_nothing(node2: Machine) -> None:
    for round_ in range(3):
        with node2.running("pod", "add", f"p{round_}"), node2.running("pod", "add", "same"):
            with node2.running("pod", "del", f"p{round_ - 1}"):
                node2.types("pod", "add", "same")
            node2.stop(signal.SIGKILL)
        node2.up()
        held = pods(node2)
        for name, path in held.items():
            assert netns.exists(path)
            eventually(lambda name=name: veth_name(name) in links(node2.netns), within=SOON)
        assert findings(node2) == []
    for name in pods(node2):
        node2.says("pod", "del", name)
    assert not [link for link in links(node2.netns) if is_veth_name(link)]
    assert findings(node2) == []


def refused(machine: Machine) -> str:
    with pytest.raises((ControlError, NodeError)) as caught:
        machine.ask("pod.add", name="new")
    return str(caught.value.code)


def answers(machine: Machine) -> bool:
    try:
        return bool(machine.ask("status"))
    except NodeError:
        return False


@pytest.mark.alone  # two that have one identity take turns in being reached: on a busy core rarely
def test_a_copied_state_folder_is_recognised_on_both_machines_and_by_all_others(
    yard: Yard, node1: Machine, node2: Machine
) -> None:
    node2.says("pod", "add", "mine")
    mine = node2.place("mine")
    eventually(lambda: node2.ask("status")["uptime"] > IN_TOUCH_FOR, within=SOON)
    copy = yard.machines[2]
    ignore = shutil.ignore_patterns("*.sock", "lock")
    shutil.copytree(node2.state, copy.state, ignore=ignore, dirs_exist_ok=True)
    copy.start()
    eventually(lambda: answers(copy), within=SOON)
    began = time.monotonic()
    for machine, code in (
        (copy, "identity-conflict"),
        (node2, "identity-conflict"),
        (node1, "node-identity-conflict"),
    ):
        left = RECOGNISED_WITHIN - (time.monotonic() - began)
        eventually(lambda machine=machine, code=code: code in machine.problems(), within=left)
    assert refused(copy) == refused(node2) == "identity-conflict"
    said = node2.types("pod", "add", "new")
    assert said.returncode == 1
    assert said.stderr.count("\n") == 1
    assert "muslin ipam claim" in said.stderr
    web = node1.place("web")
    eventually(lambda: reaches(web, mine.address), within=SOON)
    copy.stop(signal.SIGKILL)
    claimed = node2.says("ipam", "claim")
    assert "node2" in claimed
    eventually(lambda: node2.problems() | node1.problems() == set(), within=SOON)
    node2.says("pod", "add", "new")
    for name in ("mine", "new"):
        node2.says("pod", "del", name)


@pytest.mark.alone
def test_a_backup_of_the_present_start_is_recognised_once_it_is_put_back(
    tmp_path: Path, node1: Machine, node2: Machine
) -> None:
    """Its next start counts higher than all that node2 has said since: node1 knows better."""
    backup = tmp_path / "backup"
    shutil.copytree(node2.state, backup, ignore=shutil.ignore_patterns("*.sock", "lock"))
    node2.says("pod", "add", "since")
    eventually(lambda: "since" in pods(node1), within=SOON)
    node2.stop(signal.SIGKILL)
    shutil.rmtree(node2.state)
    shutil.copytree(backup, node2.state)
    node2.start()
    eventually(lambda: answers(node2), within=SOON)
    eventually(lambda: "identity-conflict" in node2.problems(), within=RECOGNISED_WITHIN)
    eventually(lambda: "node-identity-conflict" in node1.problems(), within=RECOGNISED_WITHIN)
    assert refused(node2) == "identity-conflict"
    node2.says("ipam", "claim")
    eventually(lambda: node2.problems() | node1.problems() == set(), within=SOON)
    node2.says("pod", "add", "new")
    node2.says("pod", "del", "new")
