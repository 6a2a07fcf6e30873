from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from node.errors import NodeError
from node.lab import build
from node.lab.build import lab_down, lab_up
from node.lab.store import LabInfo, LabStore
from node.lab.topology import Topology
from node.lab.wiring import namespaces
from overlay.errors import ConfigError


class Machine:
    """Namespaces, processes and daemons that exist only on paper."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.namespaces: set[str] = set()
        self.ended: list[str] = []
        self.steps: list[tuple[str, str]] = []
        self.fail: Callable[[str, str], bool] = lambda *_: False
        self.lock = threading.Lock()
        monkeypatch.setattr(build.os, "geteuid", lambda: 0)
        monkeypatch.setattr(build.netns, "names", lambda: sorted(self.namespaces))
        monkeypatch.setattr(build.netns, "exists", lambda name: name in self.namespaces)
        monkeypatch.setattr(build.netns, "delete", lambda name: self.namespaces.discard(name))
        monkeypatch.setattr(build, "wire", self.wire)
        monkeypatch.setattr(build, "run_command", self.run_command)
        monkeypatch.setattr(build, "start_daemon", self.start_daemon)
        monkeypatch.setattr(build, "end_all", self.end_all)
        monkeypatch.setattr(build, "ask", self.ask)
        monkeypatch.setattr(build.readiness, "wait_for_daemon", lambda *_: None)
        monkeypatch.setattr(build.readiness, "wait_until_whole", self.wait_until_whole)

    def step(self, node: str, what: str) -> None:
        with self.lock:
            self.steps.append((node, what))
        if self.fail(node, what):
            raise NodeError(f"cannot {what}: no luck")

    def wire(self, topology: Topology) -> None:
        self.namespaces.update(namespaces(topology))
        self.step("", "wire")

    def run_command(
        self, namespace: str, argv: Sequence[str], _: Mapping[str, str], given: str
    ) -> str:
        # A token must not be among the arguments: everybody can read them.
        assert ("join" in argv) == (given == "for node1")
        assert not any("for node1" in word for word in argv)
        self.step(namespace.removeprefix("lab-"), argv[5])
        return ""

    def start_daemon(self, namespace: str, state: Path, log: Path, *_: object) -> int:
        state.mkdir(exist_ok=True)
        log.write_text("hello")
        self.step(namespace.removeprefix("lab-"), "up")
        return 1

    def end_all(self, folder: Path) -> None:
        self.ended.append(folder.name)

    def ask(self, info: LabInfo, node: str, method: str, **params: object) -> Any:
        self.step(node, method)
        if method == "pod.add":
            self.namespaces.add("muslin-c0ffee00-node1-extra")
            return {"node": node, **params}
        return {"token": f"for {node}", "cluster": "c0ffee0011223344"}

    def wait_until_whole(self, _: LabInfo, pods: Sequence[Any], *__: object) -> None:
        self.pods = sorted(pod["name"] for pod in pods)
        self.step("", "whole")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> LabStore:
    return LabStore(tmp_path)


def test_the_first_founds_and_the_others_join_then_all_add_their_pods(
    machine: Machine, store: LabStore
) -> None:
    told: list[str] = []
    info = lab_up("lab", 3, 2, store=store, progress=told.append)
    by_node = {
        node: [what for n, what in machine.steps if n == node] for node in ("node1", "node3")
    }
    assert by_node["node1"] == ["init", "up", "pod.add", "pod.add", "status", "token", "token"]
    assert by_node["node3"] == ["join", "up", "pod.add", "pod.add"]
    assert machine.pods == [f"node{n}-pod{p}" for n in (1, 2, 3) for p in (1, 2)]
    assert machine.ended == []
    assert store.load("lab") == info
    assert (info.complete, info.cluster) == (True, "c0ffee0011223344")
    assert told[0] == "10 namespaces are wired"
    assert told[-1] == "every node sees every other node and every pod"


@pytest.mark.parametrize(
    ("node", "step"),
    [("", "wire"), ("node1", "init"), ("node1", "up"), ("node2", "join"), ("node3", "up"),
     ("node2", "pod.add"), ("", "whole")],
)  # fmt: skip
def test_a_failure_at_any_step_leaves_nothing_but_logs(
    machine: Machine, store: LabStore, tmp_path: Path, node: str, step: str
) -> None:
    machine.fail = lambda *failing: failing == (node, step)
    with pytest.raises(NodeError) as caught:
        lab_up("lab", 3, 1, store=store)
    assert machine.namespaces == set()
    assert not store.exists("lab")
    assert caught.value.fix == f"see the logs in {tmp_path / 'lab-logs' / 'lab'}"


def test_a_failed_join_says_which_node_failed_at_what(machine: Machine, store: LabStore) -> None:
    machine.fail = lambda *failing: failing == ("node2", "join")
    with pytest.raises(NodeError) as caught:
        lab_up("lab", 2, 1, store=store)
    assert caught.value.why == "node2 cannot join: no luck"
    assert "lab" in machine.ended


def test_an_interrupted_start_leaves_nothing(machine: Machine, store: LabStore) -> None:
    def interrupt(step: str) -> None:
        if "joined" in step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab_up("lab", 3, 1, store=store, progress=interrupt)
    assert machine.namespaces == set()
    assert not store.exists("lab")
    assert "lab" in machine.ended


def test_a_lab_is_not_built_twice(machine: Machine, store: LabStore) -> None:
    lab_up("lab", 1, 0, store=store)
    with pytest.raises(NodeError) as caught:
        lab_up("lab", 1, 0, store=store)
    assert caught.value.code == "lab-exists"
    assert store.load("lab").complete


def test_namespaces_of_somebody_else_are_not_taken(machine: Machine, store: LabStore) -> None:
    machine.namespaces.add("lab-node1")
    with pytest.raises(NodeError, match="there is a namespace lab-node1 already"):
        lab_up("lab", 1, 0, store=store)
    assert machine.namespaces == {"lab-node1"}
    assert not lab_down("lab", store=store)
    assert machine.namespaces == {"lab-node1"}


def test_down_ends_processes_and_removes_what_belongs_to_the_lab(
    machine: Machine, store: LabStore
) -> None:
    machine.namespaces |= {"other-node1", "muslin-0badcafe-node1-web", "lab-x"}
    lab_up("lab", 2, 1, store=store)
    assert lab_down("lab", store=store)
    assert machine.ended == ["lab"]
    assert machine.namespaces == {"other-node1", "muslin-0badcafe-node1-web", "lab-x"}
    assert not lab_down("lab", store=store)


def test_down_works_on_a_damaged_or_folderless_lab(machine: Machine, store: LabStore) -> None:
    info = lab_up("lab", 2, 1, store=store)
    (info.folder / "lab.json").write_text("{")
    assert lab_down("lab", store=store)
    machine.namespaces = {"lab-underlay", "lab-node1"}
    assert lab_down("lab", store=store)
    assert machine.namespaces == set()


def test_names_are_checked_before_anything_is_done(machine: Machine, store: LabStore) -> None:
    for verb in (lambda: lab_up("../x", 1, 1, store=store), lambda: lab_down("../x", store=store)):
        with pytest.raises(ConfigError):
            verb()


def test_a_lab_needs_root(
    machine: Machine, store: LabStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build.os, "geteuid", lambda: 1000)
    with pytest.raises(NodeError, match="a lab needs network namespaces"):
        lab_up("lab", 1, 1, store=store)
