from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from node.control.schema import ControlError
from node.errors import NodeError
from node.lab import readiness
from node.lab.readiness import View, what_is_missing
from node.lab.store import LabInfo
from node.lab.topology import plan

NODES = ["node1", "node2"]
POD = {"name": "web", "node": "node2", "address": "10.244.2.2", "address6": "fd00:0:0:2::2"}
WHOLE = View(
    nodes=[{"name": name, "state": "ready"} for name in NODES],
    routes=[
        {"prefix": "10.244.2.0/24", "node": "node2"},
        {"prefix": "fd00:0:0:2::/64", "node": "node2"},
    ],
    pods=[POD],
)
LAB = LabInfo(plan("lab", 2, 0, underlay="ipv4", mtu=1500, cidr="10.0.0.0/16"), Path("/none"))


def missing(view: View, pods: list[dict[str, Any]]) -> str:
    return what_is_missing("node1", view, NODES, pods)


def test_a_node_that_sees_all_and_reaches_all_is_whole() -> None:
    assert missing(WHOLE, [POD]) == ""


def test_an_unknown_or_silent_member_is_missing() -> None:
    assert missing(View([], WHOLE.routes, []), []) == "node1 does not know node2"
    suspect = View([{"name": "node2", "state": "suspect"}], WHOLE.routes, [])
    assert missing(suspect, []) == "node1 sees node2 as suspect"


@pytest.mark.parametrize("left", [0, 1])
def test_a_route_of_either_family_is_missed(left: int) -> None:
    address = ["fd00:0:0:2::2", "10.244.2.2"][left]
    view = View(WHOLE.nodes, [WHOLE.routes[left]], [POD])
    assert missing(view, [POD]) == f"node1 has no route to {address} of pod web"


def test_a_route_to_the_wrong_node_is_none() -> None:
    view = View(WHOLE.nodes, [{**route, "node": "node3"} for route in WHOLE.routes], [POD])
    assert missing(view, [POD]).startswith("node1 has no route")


def test_own_pods_need_no_route_and_ipv4_pods_no_ipv6_route() -> None:
    own = {**POD, "node": "node1"}
    assert missing(View(WHOLE.nodes, [], [own]), [own]) == ""
    only4 = {**POD, "address6": None}
    assert missing(View(WHOLE.nodes, WHOLE.routes[:1], [only4]), [only4]) == ""


def test_a_pod_that_is_routed_but_not_listed_is_missing() -> None:
    view = View(WHOLE.nodes, WHOLE.routes, [])
    assert missing(view, [POD]) == "node1 does not know pod web"


def test_waiting_ends_when_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "POLL", 0.0)
    answers = ["this", "that", ""]
    readiness.wait_until(lambda: answers.pop(0), 60.0, threading.Event())
    assert answers == []


def test_waiting_too_long_says_what_is_still_missing() -> None:
    with pytest.raises(NodeError, match="a route is missing, after 0 s"):
        readiness.wait_until(lambda: "a route is missing", 0.0, threading.Event())


def test_waiting_can_be_called_off() -> None:
    abort = threading.Event()
    abort.set()
    with pytest.raises(NodeError, match="given up"):
        readiness.wait_until(lambda: "something", 60.0, abort)


class Daemons:
    """Answers for control sockets, by node."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def __call__(self, socket: Path) -> Daemons:
        self.node = socket.parent.name
        return self

    def call(self, method: str, **params: object) -> Any:
        answer = self.answers[self.node].pop(0)
        if isinstance(answer, ControlError):
            raise answer
        return answer


def test_a_refusal_names_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Daemons(node1=[ControlError("pod-exists", "there is a pod web", "choose another")])
    monkeypatch.setattr(readiness, "ControlClient", refusing)
    with pytest.raises(NodeError) as caught:
        readiness.ask(LAB, "node1", "pod.add", name="web")
    assert caught.value.why == "node1: there is a pod web"
    assert (caught.value.fix, caught.value.code) == ("choose another", "pod-exists")


def test_a_daemon_is_waited_for_until_it_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = ControlError("not-running", "no daemon is running")
    answers = [silent, {"address": None}, {"address": "10.244.0.1"}]
    monkeypatch.setattr(readiness, "ControlClient", Daemons(node1=answers))
    monkeypatch.setattr(readiness, "POLL", 0.0)
    monkeypatch.setattr(readiness, "has_ended", lambda _: False)
    readiness.wait_for_daemon(LAB, "node1", 1, threading.Event())
    assert answers == []


def test_a_daemon_that_ends_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab = LabInfo(LAB.topology, tmp_path)
    lab.log("node1").write_text("starting\nmuslin: cannot run the daemon: port in use\n")
    monkeypatch.setattr(readiness, "has_ended", lambda _: True)
    with pytest.raises(NodeError) as caught:
        readiness.wait_for_daemon(lab, "node1", 1, threading.Event())
    assert str(caught.value) == ("the daemon of node1 ended: cannot run the daemon: port in use")
    assert readiness.last_line(tmp_path / "nothing") == "it said nothing"


def test_all_nodes_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "POLL", 0.0)
    both = [[{"name": name, "state": "ready"} for name in NODES], [], []]
    one = [[{"name": "node2", "state": "ready"}], [], []]
    answers = {"node1": [*both], "node2": [*one, *both]}
    monkeypatch.setattr(readiness, "ControlClient", Daemons(**answers))
    readiness.wait_until_whole(LAB, [], 60.0, threading.Event())
    assert answers == {"node1": [], "node2": []}
