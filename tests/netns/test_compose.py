"""The image and the compose file for testers: three nodes as containers, with pods inside.

The base image is made of this machine's own files, so that nothing is downloaded; and the build has
no network, so that nothing could be.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.arch.project import ROOT
from tests.support import roots
from tests.support.docker import NEEDS_DOCKER, Docker, remove_cgroups, starting
from tests.support.hosts import Host
from tests.support.machines import YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.runtimes import needs
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, NEEDS_DOCKER, needs("docker-compose")]

PATIENCE = 120.0
POLL = 1.0
"""Each look is a process in a container."""

FILE = ROOT / "deploy" / "compose.yaml"
NODES = ("node1", "node2", "node3")


@pytest.fixture(scope="module")
def docker(
    make_module_yard: YardMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Docker]:
    """An engine with the image, built."""
    base = roots.write(tmp_path_factory.mktemp("base") / "base.tar")
    (machine,) = make_module_yard(1).machines
    try:
        with Host(machine) as host, starting(host) as docker:
            docker("import", "--change", f"ENV PYTHONPATH={roots.PACKAGES}", base, "base")
            base.unlink()
            docker(
                "build", "--network=none", "--build-arg=BASE=base", "--tag=muslin",
                f"--file={ROOT}/deploy/Dockerfile", ROOT,
            )  # fmt: skip
            yield docker
    finally:
        remove_cgroups()


@pytest.fixture(scope="module")
def cluster(docker: Docker) -> Iterator[Docker]:
    """The three nodes, up."""
    compose(docker, "up", "--detach", "--no-build")
    try:
        yield docker
    finally:
        compose(docker, "down", "--volumes", "--timeout=1")


def compose(docker: Docker, *words: object) -> str:
    return docker.host.run("docker-compose", "--file", FILE, *words, timeout=PATIENCE)


def inside(docker: Docker, node: str, *words: object) -> str:
    (container,) = docker("ps", "-q", f"--filter=label=com.docker.compose.service={node}").split()
    return docker("exec", container, *words)


def shows(docker: Docker, node: str, kind: str) -> dict[str, Any]:
    """What `muslin get KIND` lists on a node, by node."""
    rows = json.loads(inside(docker, node, "muslin", "get", kind, "-o", "json"))
    return {row["node" if kind == "pods" else "name"]: row for row in rows}


def pings(docker: Docker, node: str, other: str, key: str = "address") -> None:
    address = shows(docker, node, "pods")[other][key]
    words = ("muslin", "exec", f"{node}-pod1", "--", "ping", "-c1", "-W30", address)
    assert "1 received" in inside(docker, node, *words)


def test_three_containers_are_a_cluster(cluster: Docker) -> None:
    for node in NODES:
        eventually(
            lambda node=node: set(shows(cluster, node, "pods")) == {*NODES},
            within=PATIENCE,
            poll=POLL,
        )
    said = compose(cluster, "exec", "-T", "node1", "muslin", "get", "nodes")
    assert [line.split()[:2] for line in said.splitlines()[1:]] == [[n, "ready"] for n in NODES]
    assert inside(cluster, "node3", "ls", "/run/muslin-tokens") == "", "tokens are used up"


@pytest.mark.parametrize("key", ["address", "address6"])
def test_their_pods_reach_each_other_under_their_own_addresses(cluster: Docker, key: str) -> None:
    for node, other in itertools.permutations(NODES, 2):
        pings(cluster, node, other, key)


def test_they_are_healthy(cluster: Docker) -> None:
    names = cluster("ps", "--quiet").split()
    assert len(names) == len(NODES)

    def healthy() -> bool:
        states = [cluster.inspect("container", name)["State"] for name in names]
        return all(state["Health"]["Status"] == "healthy" for state in states)

    eventually(healthy, within=PATIENCE, poll=POLL)


def test_a_node_that_is_started_again_is_the_same_node_with_a_pod(cluster: Docker) -> None:
    before = {name: row["id"] for name, row in shows(cluster, "node1", "nodes").items()}
    compose(cluster, "restart", "--timeout=5", "node2")
    eventually(lambda: pinged(cluster, "node2", "node1"), within=PATIENCE, poll=POLL)
    assert {name: row["id"] for name, row in shows(cluster, "node2", "nodes").items()} == before
    eventually(lambda: pinged(cluster, "node1", "node2"), within=PATIENCE, poll=POLL)


def pinged(docker: Docker, node: str, other: str) -> bool:
    pings(docker, node, other)  # an AssertionError means: not yet
    return True


def test_nothing_is_left_of_the_build_but_the_product(docker: Docker) -> None:
    entry = ("run", "--rm", "--network=none", "--entrypoint=ls", "muslin", "-A", "/opt/muslin")
    kept = {"LICENSE", "README.md", "deploy", "node", "overlay", "pyproject.toml"}
    assert set(docker(*entry).split()) == kept | {"requirements.lock", "scripts"}
