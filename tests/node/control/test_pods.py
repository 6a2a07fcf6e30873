"""What people and runtimes ask for of pods, and what is left when it fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from node.control.handlers import Handlers
from node.control.pods import MOST_KEPT
from node.control.schema import ControlError
from node.errors import NodeError
from node.kernel.model import veth_macs
from overlay.errors import ConfigError, RefusedError
from overlay.views import Problem
from tests.support.control import ask
from tests.support.daemon import FACTS, FakeDaemon

CNI = {"owner": "cni", "container": "c1", "netns": "/ns/c1", "network": "pods"}


def test_a_pod_gets_a_namespace_of_its_own_unless_one_is_given(daemon) -> None:
    added = ask(daemon, "pod.add", name="new")
    assert added["netns"] == "/run/netns/muslin-00112233-node1-new"
    assert added["address"] == "10.244.0.9"
    assert ask(daemon, "pod.add", name="b", netns="mine")["netns"] == "/run/netns/mine"
    assert ask(daemon, "pod.add", name="c", netns="/proc/7/ns/net")["netns"] == "/proc/7/ns/net"
    assert daemon.attached == ["new", "b", "c"]
    assert daemon.kept == [b"added"] * 3


@pytest.mark.parametrize("name", ["\ud800", "Web", "a/b", "x" * 64])
def test_what_is_no_name_is_refused_before_anything_is_made_of_it(daemon, name) -> None:
    with pytest.raises(ConfigError, match="not a name"):
        ask(daemon, "pod.add", name=name)
    assert daemon.engine.calls == []


def test_the_pods_of_this_node_are_listed_as_they_are_shown(daemon) -> None:
    ask(daemon, "pod.add", name="new")
    rows = {row["name"]: row for row in ask(daemon, "get", kind="pods")}
    listed = ask(daemon, "pod.list")
    assert [row["name"] for row in listed] == ["web", "new"]
    assert [row | {"age": 0} for row in listed] == [
        rows[name] | {"age": 0} for name in ("web", "new")
    ]


def test_the_address_is_stored_before_the_kernel_learns_it(daemon) -> None:
    order: list[str] = []
    perform, attach = daemon.perform, daemon.attach_pod

    async def note_attach(pod) -> None:
        order.append("attach")
        await attach(pod)

    daemon.perform = lambda effects: (order.append("store"), perform(effects))
    daemon.attach_pod = note_attach
    ask(daemon, "pod.add", name="new")
    assert order == ["store", "attach"]


def test_a_pod_that_cannot_be_attached_leaves_nothing(daemon) -> None:
    daemon.attach_error = NodeError("there is no namespace x", code="no-netns")
    with pytest.raises(NodeError, match="no namespace"):
        ask(daemon, "pod.add", name="new", netns="x")
    assert [call[:2] for call in daemon.engine.calls] == [("add_pod", "new"), ("remove_pod", "new")]
    assert [pod.name for pod in daemon.engine.shot.pods] == ["web", "db"]
    assert daemon.kept == [b"added", b"removed"]


def test_a_pod_that_cannot_be_stored_is_not_attached(daemon) -> None:
    daemon.disk_full = True
    with pytest.raises(NodeError, match="no space"):
        ask(daemon, "pod.add", name="new")
    assert daemon.attached == []
    assert [pod.name for pod in daemon.engine.shot.pods] == ["web", "db"]


def test_a_second_pod_of_a_name_is_refused_with_a_stable_code(daemon) -> None:
    with pytest.raises(RefusedError) as caught:
        ask(daemon, "pod.add", name="web")
    assert caught.value.code == "pod-exists"
    assert daemon.attached == []


def test_a_pod_is_detached_before_its_address_goes_back(daemon) -> None:
    order: list[str] = []
    perform = daemon.perform

    async def note_detach(_: str) -> None:
        order.append("detach")

    daemon.perform = lambda effects: (order.append("store"), perform(effects))
    daemon.detach_pod = note_detach
    assert ask(daemon, "pod.del", name="web") == {"removed": True, "name": "web", "node": "node1"}
    assert order == ["detach", "store"]


def test_a_pod_that_cannot_be_detached_keeps_its_address(daemon) -> None:
    async def refuse(_: str) -> None:
        raise NodeError("the kernel is busy")

    daemon.detach_pod = refuse
    with pytest.raises(NodeError):
        ask(daemon, "pod.del", name="web")
    assert daemon.engine.calls == []


def most_at_once(daemon: FakeDaemon, *requests: tuple[str, dict[str, object]]) -> int:
    """How many changes of the kernel were under way at the same time."""
    inside = most = 0

    async def change(_: object) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(10):
            await asyncio.sleep(0)
        inside -= 1

    async def main() -> None:
        daemon.attach_pod = daemon.detach_pod = daemon.check_pod = change
        handlers = Handlers(daemon)
        await asyncio.gather(*(handlers.dispatch(method, params) for method, params in requests))

    asyncio.run(main())
    return most


def test_changes_of_different_pods_share_what_they_wait_for(daemon) -> None:
    requests = [("pod.add", {"name": f"pod{number}"}) for number in range(5)]
    assert most_at_once(daemon, *requests) == 5


def test_changes_of_one_pod_do_not_overlap(daemon) -> None:
    ask(daemon, "pod.add", **CNI)
    by_container, by_name = {"container": "c1"}, {"name": "cni-c1"}
    adding = ("pod.add", CNI)
    assert most_at_once(daemon, adding, ("pod.check", by_container), ("pod.del", by_name)) == 1
    assert most_at_once(daemon, adding, adding, ("pod.del", by_container), adding) == 1
    assert [pod.name for pod in daemon.engine.shot.pods] == ["web", "db", "cni-c1"]


def test_nobody_looks_while_a_change_is_half_done(daemon) -> None:
    looked: list[int] = []

    async def main() -> None:
        handlers = Handlers(daemon)

        async def attach(pod: object) -> None:
            await asyncio.sleep(0)
            assert looked == []

        async def look() -> None:
            async with handlers.turns.alone():
                looked.append(len(daemon.engine.shot.pods))

        daemon.attach_pod = attach
        adding = [handlers.dispatch("pod.add", {"name": f"pod{number}"}) for number in range(3)]
        await asyncio.gather(*adding, look())

    asyncio.run(main())
    assert looked == [5]


def test_a_pod_anywhere_can_be_looked_up(daemon) -> None:
    assert ask(daemon, "pod.get", name="db")["node"] == "node2"
    assert ask(daemon, "pod.get", name="web")["netns"] == "/run/netns/muslin-node1-web"


def test_a_runtime_is_told_all_that_its_plugin_must_answer(daemon) -> None:
    said = {
        "labels": {"pod": "web-0"},
        "ingress": {"bits": 1_000_000, "burst": 2_000_000},
        "egress": 80_000_000,
        "ports": [{"host_port": 8080, "port": 80}],
    }
    added = ask(daemon, "pod.add", **CNI, **said, interface="net1")
    assert added["name"] == "cni-c1"
    assert (added["address"], added["address6"]) == ("10.244.0.9", "fd00::9")
    assert (added["container"], added["interface"], added["network"]) == ("c1", "net1", "pods")
    assert (added["owner"], added["labels"], added["netns"]) == ("cni", {"pod": "web-0"}, "/ns/c1")
    assert added["ingress"] == {"bits": 1_000_000, "burst": 2_000_000}
    assert added["egress"] == {"bits": 80_000_000, "burst": 8_000_000}
    port = {"protocol": "tcp", "host_port": 8080, "port": 80, "host": None}
    assert added["ports"] == [port]
    assert added["mac"] == veth_macs("cni-c1").pod
    assert added["link_mac"] != added["mac"]
    assert (added["gateway"], added["gateway6"]) == ("169.254.1.1", "fe80::1")
    assert (added["mtu"], added["peer"], added["handed"]) == (1420, None, False)
    assert added["link"].startswith("mus")


def test_a_pod_that_is_handed_over_needs_no_namespace(daemon) -> None:
    added = ask(daemon, "pod.add", owner="docker", container="e1", handed=True)
    assert added["netns"] is None
    assert added["peer"] == added["link"].replace("mus", "mup", 1)
    again = ask(daemon, "pod.add", owner="docker", container="e1", handed=True)
    assert again["name"] == added["name"]


def test_a_runtime_that_asks_again_is_told_what_is_there(daemon) -> None:
    first = ask(daemon, "pod.add", **CNI)
    again = ask(daemon, "pod.add", **CNI, name="other", ip="10.244.0.200")
    assert (first.pop("repeated"), again.pop("repeated")) == (False, True)
    assert again == first
    assert [call[0] for call in daemon.engine.calls] == ["add_pod"]
    assert daemon.checked == [first["name"]]
    with pytest.raises(ControlError) as caught:
        ask(daemon, "pod.add", **(CNI | {"netns": "/ns/other"}))
    assert caught.value.code == "exists"


def test_a_container_whose_namespace_is_gone_gives_way_to_another_of_its_name(daemon) -> None:
    first = ask(daemon, "pod.add", **CNI)
    daemon.attached.clear()
    again = ask(daemon, "pod.add", **(CNI | {"netns": "/ns/other"}))
    assert (again["name"], again["netns"]) == (first["name"], "/ns/other")
    assert daemon.attached == [first["name"]]
    calls = [call[0] for call in daemon.engine.calls]
    assert calls == ["add_pod", "remove_pod", "add_pod"]
    assert daemon.kept == [b"added", b"removed", b"added"]


@pytest.mark.parametrize(
    ("method", "params", "word"),
    [
        ("pod.add", {}, "name"),
        ("pod.add", {"container": "c1"}, "netns"),
        ("pod.add", {**CNI, "interface": "lo"}, "interface"),
        ("pod.add", {**CNI, "handed": "yes"}, "handed"),
        ("pod.add", {**CNI, "container": 5}, "container"),
        ("pod.add", {**CNI, "container": "c" * 129}, "container"),
        ("pod.add", {**CNI, "labels": ["a"]}, "labels"),
        ("pod.add", {**CNI, "labels": {"a": 5}}, "labels"),
        ("pod.add", {**CNI, "ingress": "10M"}, "ingress"),
        ("pod.add", {**CNI, "ingress": True}, "ingress"),
        ("pod.add", {**CNI, "egress": {"burst": 5}}, "egress"),
        ("pod.add", {**CNI, "egress": 1}, "egress"),
        ("pod.add", {**CNI, "ports": {}}, "ports"),
        ("pod.add", {**CNI, "ports": [80]}, "ports"),
        ("pod.add", {**CNI, "ports": [{"port": 80}]}, "host_port"),
        ("pod.add", {**CNI, "ports": [{"port": 80, "host_port": 0}]}, "port"),
        ("pod.add", {**CNI, "ports": [{"port": 1, "host_port": 1, "protocol": "x"}]}, "protocol"),
        ("pod.add", {**CNI, "ports": [{"port": 1, "host_port": 1, "host": "here"}]}, "address"),
        ("pod.check", {}, "container"),
        ("pod.del", {}, "name"),
        ("pod.gc", {"network": "pods"}, "keep"),
        ("pod.gc", {"network": "pods", "keep": [["c1"]]}, "keep"),
        ("pod.gc", {"network": "pods", "keep": [["c", "e"]] * (MOST_KEPT + 1)}, "keep"),
        ("pod.gc", {"keep": []}, "network"),
        ("address.reserve", {}, "owner"),
        ("address.release", {"owner": "docker"}, "address"),
        ("address.release", {"owner": "docker", "address": "x"}, "address"),
    ],
)
def test_a_wrong_parameter_is_named_and_changes_nothing(daemon, method, params, word) -> None:
    with pytest.raises(ControlError, match=word) as caught:
        ask(daemon, method, **params)
    assert caught.value.code == "bad-request"
    assert daemon.engine.calls == []


def test_a_container_is_deleted_by_its_id_and_twice_is_fine(daemon) -> None:
    ask(daemon, "pod.add", **CNI)
    gone = {"removed": False, "name": None, "node": None}
    assert ask(daemon, "pod.del", container="c1", interface="net1") == gone
    assert ask(daemon, "pod.del", container="c1")["removed"]
    assert daemon.attached == []
    assert ask(daemon, "pod.del", container="c1") == gone


def test_a_check_answers_what_adding_did_and_says_what_is_lacking(daemon) -> None:
    added = ask(daemon, "pod.add", **CNI)
    del added["repeated"]
    assert ask(daemon, "pod.check", container="c1") == added
    assert ask(daemon, "pod.check", container="c1", netns="/ns/c1") == added
    with pytest.raises(RefusedError) as unknown:
        ask(daemon, "pod.check", container="c2")
    assert unknown.value.code == "no-such-pod"
    daemon.attach_error = NodeError("the veth is gone", "add it again")
    for wrong in ({"netns": "/ns/else"}, {"netns": "/ns/c1"}):
        with pytest.raises(ControlError) as caught:
            ask(daemon, "pod.check", container="c1", **wrong)
        assert caught.value.code == "not-attached"
    assert added["name"] in daemon.attached


def test_garbage_is_what_this_network_has_and_the_runtime_does_not_know(daemon) -> None:
    for container in ("c1", "c2"):
        ask(daemon, "pod.add", **(CNI | {"container": container}))
    ask(daemon, "pod.add", **(CNI | {"owner": "docker", "container": "c3"}))
    keep = [["c1", "eth0"], ["c2", "net1"]]
    assert ask(daemon, "pod.gc", network="other", keep=[]) == {"removed": []}
    assert ask(daemon, "pod.gc", network="pods", keep=keep) == {"removed": ["cni-c2"]}
    assert daemon.attached == ["cni-c1", "docker-c3"]


def test_garbage_that_cannot_be_removed_does_not_keep_the_rest(daemon) -> None:
    for container in ("c1", "c2"):
        ask(daemon, "pod.add", **(CNI | {"container": container}))
    detach = daemon.detach_pod

    async def refuse_one(name: str) -> None:
        if name == "cni-c1":
            raise NodeError("the kernel is busy")
        await detach(name)

    daemon.detach_pod = refuse_one
    with pytest.raises(NodeError, match="busy"):
        ask(daemon, "pod.gc", network="pods", keep=[])
    assert daemon.attached == ["cni-c1"]


def test_a_node_says_whether_a_pod_could_be_added(daemon, monkeypatch) -> None:
    assert ask(daemon, "pod.ready")["ready"]
    daemon.engine.unready = RefusedError("no-block", "no block yet", "wait")
    expected = {"ready": False, "code": "no-block", "why": "no block yet", "fix": "wait"}
    assert ask(daemon, "pod.ready") == expected
    gone = Problem("tun-gone", "the TUN is gone", "somebody removed it", "restart the daemon")
    monkeypatch.setattr(daemon, "facts", lambda: replace(FACTS, problems=(gone,)))
    assert ask(daemon, "pod.ready")["code"] == "tun-gone"


def test_deleting_in_another_network_spares_the_pod(daemon) -> None:
    ask(daemon, "pod.add", container="c0ffee01", network="pods", netns="x", owner="cni")
    spared = ask(daemon, "pod.del", container="c0ffee01", network="other")
    assert not spared["removed"]
    assert ask(daemon, "pod.del", container="c0ffee01", network="pods")["removed"]
