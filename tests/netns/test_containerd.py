"""containerd, asked as a kubelet asks it, with `muslin cni install` and nothing else configured.

    node1: web                       ==== pod network ====      node2: db
           port 80 at 8080, by portmap                                 the same, by the daemon

Both nodes' ports are published, each in one of the two ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import images
from tests.support.cri import TCP, Sandbox
from tests.support.hosts import Host, hosting
from tests.support.labs import Place
from tests.support.machines import YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.runtimes import Containerd, Remains, answering, asked_at, install, needs
from tests.support.traffic import copy, echo_datagrams, is_answered, reaches
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, needs("containerd", "ctr", "runc", "curl", "iptables", "busybox")]

SOON = 60.0
PORT, HOST_PORT = 80, 8080
SIZE = 1 << 20


@dataclass(frozen=True)
class Node:
    """A host with its engine, and a pod on it."""

    host: Host
    engine: Containerd
    sandbox: Sandbox
    server: str
    place: Place

    def execute(self, *command: str) -> str:
        """What a command prints in the pod's first container."""
        return self.engine.cri.execute(self.server, *command)


@pytest.fixture(scope="module")
def engines(
    make_module_yard: YardMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Containerd]]:
    image = images.write(tmp_path_factory.mktemp("images") / "box.tar")
    with hosting(make_module_yard(2)) as (first, second):
        assert "the plugin portmap publishes ports" in install(first)
        assert "the daemon publishes ports" in install(second, "--no-portmap")
        with Containerd(first, image) as one, Containerd(second, image) as two:
            yield [one, two]


def run(engine: Containerd, name: str, *ports: tuple[int, int, int]) -> Node:
    """Run a pod with a container that says the pod's name at PORT, and wait until it does."""
    sandbox = engine.cri.run_pod(name, ports)
    server = engine.cri.run_container(sandbox, "server", *answering(PORT, name))
    ask = ("nc", "-w5", "127.0.0.1", str(PORT))
    eventually(lambda: engine.cri.execute(server, *ask).strip() == name, within=SOON)
    row = row_of(engine.host, sandbox)
    place = engine.host.place(row["netns"], name, row["address"], row["address6"])
    return Node(engine.host, engine, sandbox, server, place)


def row_of(host: Host, sandbox: Sandbox) -> dict[str, Any]:
    """A pod as the daemon knows it."""
    (row,) = (row for row in host.machine.get("pods") if row["container"] == sandbox.id)
    return dict(row)


@pytest.fixture(scope="module")
def web(engines: list[Containerd]) -> Node:
    return run(engines[0], "web", (TCP, PORT, HOST_PORT))


@pytest.fixture(scope="module")
def db(engines: list[Containerd]) -> Node:
    return run(engines[1], "db", (TCP, PORT, HOST_PORT))


def test_the_engine_finds_the_network_and_says_what_the_daemon_says(
    engines: list[Containerd], web: Node
) -> None:
    assert engines[0].cri.network_ready()
    row = row_of(web.host, web.sandbox)
    assert web.sandbox.addresses == (row["address"], row["address6"])
    assert (row["name"], row["owner"]) == ("default-web", "cni")
    assert f"inet {row['address']}/32" in web.execute("ip", "address", "show", "eth0")


@pytest.mark.parametrize("family", [4, 6])
def test_pods_on_two_nodes_reach_each_other_by_their_own_addresses(
    web: Node, db: Node, family: int
) -> None:
    eventually(lambda: reaches(web.place, db.place.at(family)), within=SOON)
    for source, target in ((web, db), (db, web)):
        assert " 0% packet loss" in source.execute("ping", "-c1", "-W15", target.place.at(family))
        copy(source.place, target.place, SIZE, family=family)
        echo_datagrams(source.place, target.place, [1, 1000, 9000], family=family)
        said = source.execute("nc", "-w15", target.place.at(family), str(PORT))
        assert said.strip() == target.place.name


@pytest.mark.parametrize("by", ["portmap", "the daemon"])
def test_a_published_port_is_reached_from_outside_from_the_node_and_from_pods(
    web: Node, db: Node, by: str
) -> None:
    to, other = (web, db) if by == "portmap" else (db, web)
    near, far = to.host.machine, other.host.machine
    for namespace in (far.netns, near.netns, to.place.netns):
        assert asked_at(namespace, near.address, HOST_PORT) == to.place.name
    assert asked_at(near.netns, "127.0.0.1", HOST_PORT) == to.place.name
    status = near.ask("status")
    for address in (status["address"], status["address6"]):
        assert asked_at(other.place.netns, address, HOST_PORT) == to.place.name


def test_containers_of_a_pod_share_its_loopback(web: Node) -> None:
    cri = web.engine.cri
    cri.run_container(web.sandbox, "second", *answering(81, "second"))
    other = cri.run_container(web.sandbox, "other", "sleep", "1000")
    for port, word in (("80", "web"), ("81", "second")):
        ask = ("nc", "-w5", "127.0.0.1", port)
        assert eventually(lambda ask=ask: cri.execute(other, *ask), within=SOON).strip() == word
    assert web.sandbox.addresses[0] in cri.execute(other, "ip", "address")


def test_a_limit_that_is_written_on_a_pod_is_the_daemons(engines: list[Containerd]) -> None:
    cri = engines[0].cri
    sandbox = cri.run_pod("slow", annotations={"kubernetes.io/egress-bandwidth": "8M"})
    row = row_of(engines[0].host, sandbox)
    assert (row["egress"]["bits"], row["ingress"]) == (8_000_000, None)
    cri.remove_pod(sandbox)


def test_pods_go_on_without_the_engine_and_after_a_daemon_was_killed(web: Node, db: Node) -> None:
    near = run(web.engine, "near")
    web.engine.stop()
    web.host.down(kill=True)
    for family in (4, 6):
        assert is_answered(near.place, web.place.at(family))
    web.host.up()
    for family in (4, 6):
        eventually(lambda family=family: reaches(db.place, web.place.at(family)), within=SOON)
    web.engine.start()
    assert web.engine.cri.network_ready()
    assert " 0% packet loss" in web.execute("ping", "-c1", "-W15", db.place.address)
    assert asked_at(db.host.machine.netns, web.host.machine.address, HOST_PORT) == "web"
    assert row_of(web.host, web.sandbox)["address"] == web.place.address
    web.engine.cri.remove_pod(near.sandbox)


@pytest.mark.parametrize("node", [0, 1], ids=["portmap", "the daemon"])
def test_a_pod_leaves_nothing_and_its_address_rests(engines: list[Containerd], node: int) -> None:
    engine = engines[node]
    # Chains of portmap stay for the next port; they are there from the first one on.
    engine.cri.remove_pod(run(engine, "first", (TCP, PORT, HOST_PORT + 1)).sandbox)
    before = Remains.of(engine.host)
    gone = run(engine, "gone", (TCP, PORT, HOST_PORT + 1))
    assert Remains.of(engine.host) != before
    engine.cri.stop_pod(gone.sandbox)
    engine.cri.remove_pod(gone.sandbox)
    assert Remains.of(engine.host) == before
    again = run(engine, "gone")
    assert again.place.address != gone.place.address, "somebody may still remember the old pod"
    engine.cri.remove_pod(again.sandbox)
    assert Remains.of(engine.host) == before


def test_a_pod_that_ends_while_no_daemon_runs_is_gone_when_it_is_back(
    engines: list[Containerd],
) -> None:
    engine = engines[0]
    engine.cri.remove_pod(run(engine, "first", (TCP, PORT, HOST_PORT + 1)).sandbox)
    before = Remains.of(engine.host)
    ended = run(engine, "ended", (TCP, PORT, HOST_PORT + 1))
    engine.host.down()
    engine.cri.remove_pod(ended.sandbox)
    engine.host.up()
    eventually(lambda: Remains.of(engine.host) == before, within=SOON)


def test_a_pod_is_refused_in_one_line_while_no_daemon_runs(engines: list[Containerd]) -> None:
    engine = engines[1]
    before = Remains.of(engine.host)
    engine.host.down()
    with pytest.raises(AssertionError, match=r"muslin-cni.*\(add\): no daemon is running"):
        engine.cri.run_pod("early")
    engine.host.up()
    eventually(lambda: Remains.of(engine.host) == before, within=SOON)


def test_the_engines_own_client_runs_a_container_in_the_network(
    engines: list[Containerd], db: Node
) -> None:
    engine = engines[0]
    node = Place("", "", engine.host.machine.netns, "", "")
    eventually(lambda: reaches(node, db.place.address), within=SOON)
    before = Remains.of(engine.host)
    words = ("run", "--rm", "--cgroup", "", "--cni", images.NAME, "one")
    said = engine.ctr(*words, "ping", "-c1", "-W15", db.place.address)
    assert " 0% packet loss" in said
    assert Remains.of(engine.host) == before


def test_a_container_that_ctr_forgot_gives_way_to_the_next_of_its_name(
    engines: list[Containerd],
) -> None:
    """What `ctr run --detach` starts is never said to have ended."""
    engine, words = engines[0], ("run", "--detach", "--cgroup", "", "--cni", images.NAME, "lazy")
    addresses = []
    for _ in range(2):
        engine.ctr(*words, "sleep", "1000")
        pods = engine.host.machine.get("pods")
        addresses += [pod["address"] for pod in pods if pod["container"] == "default-lazy"]
        engine.ctr("tasks", "kill", "--signal", "KILL", "lazy")
        eventually(lambda: "STOPPED" in engine.ctr("tasks", "ls"), within=SOON)
        engine.host.attempt("ctr", "tasks", "rm", "lazy")  # says 137, as the container did
        engine.ctr("containers", "rm", "lazy")
    assert len(set(addresses)) == 2
    engine.host.says("pod", "del", "cni-default-lazy")
