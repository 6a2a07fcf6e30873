"""A daemon is replaced, or killed, under the containers of two real engines.

    node1                                        node2
    containerd: web  <--- TCP, datagrams ---  containerd: db
    Docker: alpha    --- TCP, datagrams --->  Docker: beta
            web <--- datagrams ---> alpha

The daemon of node1 is taken over by another, and then killed and started. Both engines go on, ask
the next daemon through the same sockets, and are told of nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support import images
from tests.support.cri import Sandbox
from tests.support.docker import NEEDS_DOCKER, Docker, remove_cgroups, starting
from tests.support.hosts import Host
from tests.support.labs import Place
from tests.support.machines import MUSLIN, YardMaker
from tests.support.numbered import Numbered
from tests.support.privileged import NEEDS_KERNEL
from tests.support.runtimes import Containerd, Remains, answering, asked_at, install, needs
from tests.support.streams import Stream
from tests.support.traffic import reaches
from tests.support.waiting import eventually

pytestmark = [
    *NEEDS_KERNEL,
    NEEDS_DOCKER,
    needs("containerd", "ctr", "runc", "curl", "busybox"),
]

NETWORK = "pods"
PORT, HOST_PORT = 80, 8080
SOON = 20.0
MOST_LOST = 5
"""Of the datagrams of one flow, when a daemon is taken over."""


@dataclass
class Node:
    """A host with both engines, and its containers by name."""

    host: Host
    containerd: Containerd
    docker: Docker
    places: dict[str, Place] = field(default_factory=dict)
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)

    def run_pod(self, name: str) -> Place:
        """Run a pod of containerd's."""
        sandbox = self.containerd.cri.run_pod(name)
        self.sandboxes[name] = sandbox
        (row,) = (row for row in self.pods() if row["container"] == sandbox.id)
        assert sandbox.addresses == (row["address"], row["address6"])
        return self._place(name, row["netns"], row["address"])

    def run_container(self, name: str, *options: object) -> Place:
        """Run a container of Docker's."""
        command = answering(PORT, name)
        words = ("run", "--detach", "--stop-signal=KILL", f"--name={name}", f"--network={NETWORK}")
        self.docker(*words, *options, images.NAME, *command)
        shown = self.docker.inspect("container", name)["NetworkSettings"]
        address = shown["Networks"][NETWORK]["IPAddress"]
        return self._place(name, shown["SandboxKey"], address)

    def _place(self, name: str, path: str, address: str) -> Place:
        place = self.places[name] = self.host.place(path, name, address, "")
        return place

    def remove(self, *names: str) -> None:
        """End containers, of either engine."""
        for name in names:
            del self.places[name]
            if name in self.sandboxes:
                self.containerd.cri.remove_pod(self.sandboxes.pop(name))
            else:
                self.docker("rm", "--force", name)

    def pods(self) -> list[dict[str, Any]]:
        """The node's own pods as the daemon knows them, but for their age."""
        rows = (dict(row) for row in self.host.machine.get("pods") if row["local"])
        return [{key: value for key, value in row.items() if key != "age"} for row in rows]

    def shown(self) -> dict[str, object]:
        """What the engines and the daemon say of all that runs."""
        containers = [name for name in self.places if name not in self.sandboxes]
        network = self.docker.inspect("network", NETWORK)
        return {
            "network": network,
            "containers": [self.docker.inspect("container", name) for name in containers],
            "pods": [self.containerd.cri.pod_status(pod.id) for pod in self.sandboxes.values()],
            "ready": self.containerd.cri.network_ready(),
            "daemon": sorted(self.pods(), key=lambda row: str(row["name"])),
            "links": links(self.host),
        }

    def remains(self) -> tuple[Remains, object]:
        """All that containers can leave behind."""
        return Remains.of(self.host), self.host.machine.ask("ipam.check")


def links(host: Host) -> list[tuple[int, str]]:
    """Numbers and names: a link that was made anew has another number."""
    return [(link["ifindex"], link["ifname"]) for link in json.loads(host.run("ip", "-j", "link"))]


@pytest.fixture(scope="module")
def nodes(
    make_module_yard: YardMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, Node]]:
    """Two nodes with both engines. With the tests nothing of a container is left."""
    image = images.write(tmp_path_factory.mktemp("image") / "box.tar")
    first, second = make_module_yard(2).machines
    try:
        with ExitStack() as stack:
            one, other = stack.enter_context(Host(first)), stack.enter_context(Host(second))
            first.says("init", "--name", first.name)
            second.state.parent.mkdir(exist_ok=True)
            found = []
            for host in (one, other):
                host.machine.joins(first)
                (host.machine.state / "config.toml").write_text("docker = true\n")
                host.up()
                install(host)
                containerd = stack.enter_context(Containerd(host, image))
                docker = stack.enter_context(starting(host))
                docker("load", "--input", image)
                docker("network", "create", "-d", "muslin", "--ipam-driver", "muslin", NETWORK)
                found.append(Node(host, containerd, docker))
            before = [node.remains() for node in found]
            yield found[0], found[1]
            for node in found:
                node.remove(*list(node.places))
            assert [node.remains() for node in found] == before
    finally:
        remove_cgroups()


@pytest.fixture(scope="module")
def one(nodes: tuple[Node, Node]) -> Node:
    nodes[0].run_pod("web")
    nodes[0].run_container("alpha", f"--publish={HOST_PORT}:{PORT}")
    return nodes[0]


@pytest.fixture(scope="module")
def other(nodes: tuple[Node, Node]) -> Node:
    nodes[1].run_pod("db")
    nodes[1].run_container("beta")
    return nodes[1]


@dataclass
class Load:
    """What flows between containers.

    Attributes:
        across: between the nodes.
        within: on node1.
    """

    across: list[Numbered]
    within: list[Numbered]
    streams: list[Stream]

    def goes_on(self) -> None:
        for flow in (*self.across, *self.within):
            flow.flows()
        for stream in self.streams:
            stream.moves()


@contextmanager
def loaded(one: Node, other: Node) -> Iterator[Load]:
    """The traffic of the picture; who receives it always sees the address of who sends it."""
    web, alpha, db, beta = (
        *(one.places[name] for name in ("web", "alpha")),
        *(other.places[name] for name in ("db", "beta")),
    )
    ends = [(db, web), (alpha, beta)]
    across = [Numbered(*pair) for pair in ends]
    within = [Numbered(web, alpha), Numbered(alpha, web)]
    with ExitStack() as stack:
        streams = [stack.enter_context(Stream(*pair)) for pair in ends]
        for flow in (*across, *within):
            stack.enter_context(flow)
        yield (load := Load(across, within, streams))
        load.goes_on()
    senders = [db, alpha, web, alpha]
    assert [flow.sources for flow in (*across, *within)] == [{one.address} for one in senders]
    assert [stream.peer for stream in streams] == [source.address for source, _ in ends]
    assert sum(flow.again for flow in (*across, *within)) == 0
    assert [flow.lost for flow in within] == [0, 0]
    assert sum(flow.refused for flow in (*across, *within)) == 0


def taken_over(host: Host) -> None:
    host.take_over()


def killed(host: Host) -> None:
    host.down(kill=True)
    host.up()


@pytest.mark.alone
@pytest.mark.parametrize("how", [taken_over, killed])
def test_containers_and_engines_notice_nothing(
    one: Node, other: Node, how: Callable[[Host], None]
) -> None:
    one.run_pod("old-pod")
    one.run_container("old-container")
    with loaded(one, other) as load:
        before = one.shown()
        how(one.host)
        assert one.shown() == before
        # Right after: the engines speak with the next daemon as if it were the one before.
        added = (one.run_pod("new-pod"), one.run_container("new-container"))
        one.remove("old-pod", "old-container")
        for place in added:
            for far in other.places.values():
                eventually(lambda a=place, b=far: reaches(a, b.address), within=SOON)
                eventually(lambda a=far, b=place: reaches(a, b.address), within=SOON)
        load.goes_on()
    if how is taken_over:
        assert [flow.lost for flow in load.across if flow.lost > MOST_LOST] == []
    assert asked_at(other.host.machine.netns, one.host.machine.address, HOST_PORT) == "alpha"
    assert {row["address"] for row in one.pods()} == {p.address for p in one.places.values()}
    one.remove("new-pod", "new-container")


@pytest.mark.parametrize("where", ["/proc/nowhere/muslin.sock", "/etc/passwd"])
def test_one_that_cannot_serve_docker_does_not_take_over(one: Node, where: str) -> None:
    machine = one.host.machine
    pid, before = machine.ask("status")["pid"], one.host.run("cat", "/etc/passwd")
    done = one.host.attempt(MUSLIN, "--state", machine.state, "up", "--docker", where)
    assert done.returncode == 1
    assert done.stderr.startswith("muslin: cannot run the daemon: ")
    assert done.stderr.count("\n") == 1
    assert machine.ask("status")["pid"] == pid
    assert one.host.run("cat", "/etc/passwd") == before


def test_containers_come_and_go_while_a_daemon_is_taken_over(one: Node, other: Node) -> None:
    """Neither engine is refused anything, whatever the moment in which it asks."""
    done = [False]
    counts = {"passing-pod": 0, "passing-container": 0}

    def churn(run: Callable[[str], Place], name: str) -> None:
        while not done[0]:
            run(name)
            one.remove(name)
            counts[name] += 1

    with ThreadPoolExecutor() as executor:
        churned = [
            executor.submit(churn, one.run_pod, "passing-pod"),
            executor.submit(churn, one.run_container, "passing-container"),
        ]
        try:
            for _ in range(3):
                one.host.take_over()
            while min(counts.values()) < 2 and not any(job.done() for job in churned):
                one.host.take_over()
        finally:
            done[0] = True
    for job in churned:
        job.result()
    assert one.host.machine.ask("ipam.check")["findings"] == []
