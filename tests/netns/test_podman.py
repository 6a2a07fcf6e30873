"""podman with its CNI backend, with `muslin cni install` and nothing else configured.

node1: web (port 80 published at 8080)  ==== pod network ====  node2: db
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import images
from tests.support.hosts import Host, hosting
from tests.support.labs import Place
from tests.support.machines import YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.runtimes import Podman, Remains, answering, asked_at, install, needs
from tests.support.traffic import copy, echo_datagrams, is_answered, reaches
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, needs("podman", "crun", "conmon", "iptables", "busybox")]

SOON = 20.0
PORT, HOST_PORT = 80, 8080
SIZE = 1 << 20
NETWORK = "muslin"


@pytest.fixture(scope="module")
def podmen(
    make_module_yard: YardMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Podman]]:
    image = images.write(tmp_path_factory.mktemp("images") / "box.tar")
    with hosting(make_module_yard(2)) as hosts:
        for host in hosts:
            install(host)
        yield [Podman(host, image) for host in hosts]


def row_of(host: Host, container: str) -> dict[str, Any]:
    """A pod as the daemon knows it, by the engine's id of its container."""
    (row,) = (row for row in host.machine.get("pods") if row["container"] == container)
    return dict(row)


def run(podman: Podman, name: str, *options: object) -> Place:
    """Run a container that says its name at PORT; where it is."""
    container = podman.run(name, NETWORK, *options, command=answering(PORT, name))
    row = row_of(podman.host, container)
    return podman.host.place(row["netns"], name, row["address"], row["address6"])


@pytest.fixture(scope="module")
def web(podmen: list[Podman]) -> Place:
    return run(podmen[0], "web", "--publish", f"{HOST_PORT}:{PORT}")


@pytest.fixture(scope="module")
def db(podmen: list[Podman]) -> Place:
    return run(podmen[1], "db")


def test_the_network_is_listed_and_inspected_with_the_daemons_addresses(
    podmen: list[Podman], web: Place
) -> None:
    listed = {row["name"]: row for row in json.loads(podmen[0]("network", "ls", "--format=json"))}
    assert listed[NETWORK]["driver"] == "muslin-cni"
    shown = podmen[0].networks("web")[NETWORK]
    assert (shown["IPAddress"], shown["GlobalIPv6Address"]) == (web.address, web.address6)
    assert (shown["IPPrefixLen"], shown["GlobalIPv6PrefixLen"]) == (32, 128)
    assert f"inet {web.address}/32" in podmen[0]("exec", "web", "ip", "address", "show", "eth0")


@pytest.mark.parametrize("family", [4, 6])
def test_containers_on_two_nodes_reach_each_other_by_their_own_addresses(
    podmen: list[Podman], web: Place, db: Place, family: int
) -> None:
    eventually(lambda: reaches(web, db.at(family)), within=SOON)
    for podman, source, target in ((podmen[0], web, db), (podmen[1], db, web)):
        copy(source, target, SIZE, family=family)
        echo_datagrams(source, target, [1, 1000, 9000], family=family)
        said = podman("exec", source.name, "nc", "-w5", target.at(family), PORT)
        assert said == target.name


def test_a_published_port_is_reached_from_outside_from_the_node_and_from_pods(
    podmen: list[Podman], web: Place, db: Place
) -> None:
    near, far = (podman.host.machine for podman in podmen)
    for namespace in (far.netns, near.netns, web.netns):
        assert asked_at(namespace, near.address, HOST_PORT) == "web"
    assert asked_at(near.netns, "127.0.0.1", HOST_PORT) == "web"
    status = near.ask("status")
    for address in (status["address"], status["address6"]):
        assert asked_at(db.netns, address, HOST_PORT) == "web"


def test_containers_of_a_pod_share_one_address_and_its_loopback(
    podmen: list[Podman], db: Place
) -> None:
    podman = podmen[0]
    before = Remains.of(podman.host)
    made = ("pod", "create", "--name", "shop", "--network", NETWORK, "--infra-image", images.NAME)
    podman(*made, "--publish", f"{HOST_PORT + 1}:{PORT}")
    for name, command in (("front", answering(PORT, "front")), ("back", answering(81, "back"))):
        podman("run", "--detach", "--pod", "shop", "--name", name, images.NAME, *command)
    for asking, port, word in (("front", 81, "back"), ("back", PORT, "front")):
        ask = ("exec", asking, "nc", "-w5", "127.0.0.1", port)
        assert eventually(lambda ask=ask: podman(*ask), within=SOON) == word
    rows = podman.host.machine.get("pods")
    (row,) = (row for row in rows if row["node"] == "node1" and row["name"] not in before.pods)
    for container in ("front", "back"):
        assert row["address"] in podman("exec", container, "ip", "address")
    assert podmen[1]("exec", "db", "nc", "-w5", row["address"], 81) == "back"
    assert asked_at(podmen[1].host.machine.netns, podman.host.machine.address, HOST_PORT + 1) == (
        "front"
    )
    podman("pod", "rm", "--force", "--time", 0, "shop")
    assert Remains.of(podman.host).pods == before.pods


def test_an_address_can_be_asked_for(podmen: list[Podman], web: Place) -> None:
    wanted = web.address.rsplit(".", 1)[0] + ".200"
    assert run(podmen[0], "chosen", "--ip", wanted).address == wanted
    taken = podmen[0].host.attempt(
        "podman", "run", "--rm", "--network", NETWORK, "--ip", wanted, images.NAME, "true"
    )
    assert taken.returncode != 0
    assert wanted in taken.stderr
    podmen[0]("rm", "--force", "--time", 0, "chosen")


def test_a_hardware_address_is_refused_in_a_line_and_nothing_is_left(podmen: list[Podman]) -> None:
    host = podmen[0].host
    before = Remains.of(host)
    asked = ("--network", NETWORK, "--mac-address", "02:00:00:00:00:01")
    refused = host.attempt("podman", "run", "--rm", *asked, images.NAME, "true")
    assert refused.returncode != 0
    assert "MAC=02:00:00:00:00:01 cannot be granted" in refused.stderr.splitlines()[-1]
    assert Remains.of(host) == before


def test_a_container_in_podmans_own_network_too_answers_in_both(
    podmen: list[Podman], db: Place
) -> None:
    podman = podmen[0]
    before = Remains.of(podman.host).pods
    podman.run("both", NETWORK, "--network", "podman", command=answering(PORT, "both"))
    shown = podman.networks("both")
    ask = ("exec", "db", "nc", "-w5", shown[NETWORK]["IPAddress"], PORT)
    assert eventually(lambda: podmen[1](*ask), within=SOON) == "both"
    near = podman.host.machine.netns
    assert asked_at(near, shown["podman"]["IPAddress"], PORT) == "both"
    podman("rm", "--force", "--time", 0, "both")
    assert Remains.of(podman.host).pods == before


def test_a_running_container_leaves_the_network_and_comes_back(
    podmen: list[Podman], db: Place
) -> None:
    podman = podmen[0]
    before = Remains.of(podman.host)
    run(podman, "guest")
    podman("network", "disconnect", NETWORK, "guest")
    assert "eth0" not in podman("exec", "guest", "ip", "link")
    assert Remains.of(podman.host).pods == before.pods
    podman("network", "connect", NETWORK, "guest")
    ask = ("exec", "guest", "nc", "-w5", db.address, PORT)
    assert eventually(lambda: podman(*ask), within=SOON) == "db"
    podman("rm", "--force", "--time", 0, "guest")
    assert Remains.of(podman.host) == before


def test_containers_go_on_after_the_daemon_was_killed(
    podmen: list[Podman], web: Place, db: Place
) -> None:
    near = run(podmen[0], "near")
    host = podmen[0].host
    host.down(kill=True)
    for family in (4, 6):
        assert is_answered(near, web.at(family))
    host.up()
    for family in (4, 6):
        eventually(lambda family=family: reaches(db, web.at(family)), within=SOON)
    assert asked_at(podmen[1].host.machine.netns, host.machine.address, HOST_PORT) == "web"
    podmen[0]("rm", "--force", "--time", 0, "near")


def test_a_stopped_container_gives_its_address_back_and_a_started_one_has_one(
    podmen: list[Podman], db: Place
) -> None:
    podman = podmen[0]
    first = run(podman, "again")
    podman("stop", "--time", 0, "again")
    assert first.address not in {row["address"] for row in podman.host.machine.get("pods")}
    podman("start", "again")
    shown = podman.networks("again")[NETWORK]
    assert shown["IPAddress"] != first.address
    assert podman("exec", "again", "nc", "-w5", db.address, PORT) == "db"
    podman("rm", "--force", "--time", 0, "again")


def test_a_container_leaves_nothing(podmen: list[Podman], web: Place) -> None:
    podman = podmen[0]
    before = Remains.of(podman.host)
    run(podman, "gone", "--publish", f"{HOST_PORT + 2}:{PORT}")
    assert Remains.of(podman.host) != before
    podman("rm", "--force", "--time", 0, "gone")
    assert Remains.of(podman.host) == before


def test_a_container_that_ends_while_no_daemon_runs_is_gone_when_it_is_back(
    podmen: list[Podman], web: Place
) -> None:
    podman = podmen[0]
    before = Remains.of(podman.host)
    run(podman, "ended", "--publish", f"{HOST_PORT + 3}:{PORT}")
    podman.host.down()
    podman("rm", "--force", "--time", 0, "ended")
    podman.host.up()
    eventually(lambda: Remains.of(podman.host) == before, within=SOON)


def test_the_network_goes_and_comes_with_the_plugin(podmen: list[Podman]) -> None:
    podman = podmen[1]

    def names() -> list[str]:
        return [row["name"] for row in json.loads(podman("network", "ls", "--format=json"))]

    assert podman.host.says("cni", "uninstall") == (
        "/etc/cni/net.d/10-muslin.conflist and /opt/cni/bin/muslin-cni removed\n"
    )
    assert names() == ["podman"]
    podman.host.says("cni", "install")
    assert names() == ["muslin", "podman"]
