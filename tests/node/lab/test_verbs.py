from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from node.errors import NodeError
from node.lab import verbs
from node.lab.store import Cut, LabInfo, LabStore
from node.lab.topology import plan
from node.lab.verbs import lab_cut, lab_exec, lab_heal, lab_kill, lab_start, lab_status
from tests.support.privileged import NEEDS_KERNEL

TOPOLOGY = plan("lab", 3, 1, underlay="ipv4", mtu=1500, cidr="10.0.0.0/16")


class Bench:
    """A lab on paper."""

    def __init__(self, store: LabStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.info = store.save(store.create(TOPOLOGY, {}), complete=True)
        self.running = {"node1": 11, "node2": 12, "node3": 13}
        self.ready = {"node1", "node2", "node3"}
        self.in_force: tuple[Cut, ...] = ()
        self.signals: list[tuple[str, signal.Signals]] = []
        monkeypatch.setattr(verbs, "daemon_pid", lambda state: self.running.get(state.name))
        monkeypatch.setattr(verbs, "put_in_force", self.put_in_force)
        monkeypatch.setattr(verbs, "signal_daemon", self.signal_daemon)
        monkeypatch.setattr(verbs, "start_daemon", self.start_daemon)
        monkeypatch.setattr(verbs, "wait_for_daemon", lambda *_: None)
        monkeypatch.setattr(verbs, "ask", self.ask)

    def put_in_force(self, namespace: str, cuts: Sequence[Cut]) -> None:
        assert namespace == "lab-underlay"
        self.in_force = tuple(cuts)

    def signal_daemon(self, state: Path, number: signal.Signals, _: float) -> bool:
        self.signals.append((state.name, number))
        return self.running.pop(state.name, None) is not None

    def start_daemon(self, namespace: str, state: Path, *_: object) -> int:
        assert namespace == f"lab-{state.name}"
        self.running[state.name] = 99
        return 99

    def ask(self, info: LabInfo, node: str, method: str, kind: str = "") -> Any:
        if node not in self.ready:
            raise NodeError("silent")
        return {
            "": {"state": "ready", "address": "10.0.0.1", "address6": None},
            "nodes": [{"name": name, "state": "ready"} for name in sorted(self.ready)],
            "pods": [{"name": f"{node}-pod1", "address": "10.0.0.2", "address6": None}],
        }[kind]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(LabStore(tmp_path), monkeypatch)


def test_a_whole_lab_is_up(bench: Bench) -> None:
    status = lab_status("lab", store=bench.store)
    assert status["state"] == "up"
    assert [node["name"] for node in status["nodes"]] == ["node1", "node2", "node3"]
    first = status["nodes"][0]
    assert (first["state"], first["pid"], first["sees"]) == ("ready", 11, 2)
    assert first["underlay"] == "198.51.100.1"
    assert first["pods"] == [
        {
            "name": "node1-pod1",
            "address": "10.0.0.2",
            "address6": None,
            "netns": "lab-node1-pod1",
        }
    ]


def test_a_stopped_or_silent_node_degrades_the_lab(bench: Bench) -> None:
    del bench.running["node2"]
    bench.ready.discard("node3")
    status = lab_status("lab", store=bench.store)
    assert status["state"] == "degraded"
    assert [node["state"] for node in status["nodes"]] == ["ready", "stopped", "silent"]
    assert status["nodes"][1]["pods"][0]["address"] is None


def test_a_lab_that_never_came_up_says_so(bench: Bench) -> None:
    bench.store.save(bench.info, complete=False)
    assert lab_status("lab", store=bench.store)["state"] == "incomplete"


def test_cuts_add_up_and_heal_one_by_one_by_node_or_all(bench: Bench) -> None:
    store = bench.store
    for a, b in (("node2", "node1"), ("node1", "node2"), ("node3", "node1"), ("node2", "node3")):
        lab_cut("lab", a, b, store=store)
    assert bench.in_force == (("node1", "node2"), ("node1", "node3"), ("node2", "node3"))
    assert lab_status("lab", store=store)["cuts"] == [list(cut) for cut in bench.in_force]
    lab_heal("lab", "node3", "node2", store=store)
    assert bench.in_force == (("node1", "node2"), ("node1", "node3"))
    lab_heal("lab", "node3", store=store)
    assert bench.in_force == (("node1", "node2"),)
    lab_heal("lab", store=store)
    lab_heal("lab", store=store)
    assert bench.in_force == ()
    assert store.load("lab").cuts == ()


def test_a_cut_that_nft_refuses_is_not_noted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NodeError("the program nft is missing")

    monkeypatch.setattr(verbs, "put_in_force", refuse)
    with pytest.raises(NodeError):
        lab_cut("lab", "node1", "node2", store=bench.store)
    assert bench.store.load("lab").cuts == ()


def test_a_daemon_is_killed_and_started_again(bench: Bench) -> None:
    lab_kill("lab", "node2", store=bench.store)
    assert bench.signals == [("node2", signal.SIGKILL)]
    with pytest.raises(NodeError) as caught:
        lab_kill("lab", "node2", signal.SIGTERM, store=bench.store)
    assert caught.value.code == "not-running"
    lab_start("lab", "node2", store=bench.store)
    assert bench.running["node2"] == 99
    lab_start("lab", "node1", store=bench.store)
    assert bench.running["node1"] == 11


@pytest.mark.parametrize("verb", [lab_kill, lab_start])
def test_unknown_nodes_and_labs_are_named(bench: Bench, verb: Any) -> None:
    with pytest.raises(NodeError, match="has no 'node9'"):
        verb("lab", "node9", store=bench.store)
    with pytest.raises(NodeError, match="there is no lab 'nolab'"):
        verb("nolab", "node1", store=bench.store)


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    @pytest.fixture(autouse=True)
    def own_namespace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every name means the namespace that the test is in."""
        monkeypatch.setattr(verbs.netns, "path_of", lambda _: Path("/proc/self/ns/net"))

    def test_the_exit_code_is_that_of_the_command(self, bench: Bench) -> None:
        def code(script: str) -> int:
            return lab_exec("lab", "node1-pod1", ["sh", "-c", script], store=bench.store)

        assert code("exit 0") == 0
        assert code("exit 7") == 7
        assert code("kill -9 $$") == 128 + 9

    def test_commands_find_the_nodes_daemon(self, bench: Bench) -> None:
        script = f'test "$MUSLIN_STATE" = {bench.info.state("node1")}'
        assert lab_exec("lab", "node1", ["sh", "-c", script], store=bench.store) == 0

    def test_a_command_that_does_not_exist_is_an_error(self, bench: Bench) -> None:
        with pytest.raises(NodeError, match="running no-such-command: no such file"):
            lab_exec("lab", "node1", ["no-such-command"], store=bench.store)
        with pytest.raises(NodeError, match="has no 'node9'"):
            lab_exec("lab", "node9", [os.devnull], store=bench.store)
