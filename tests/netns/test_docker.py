"""Two real Docker engines on two nodes, with Muslin as their network and address driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.docker import NEEDS_DOCKER, Docker, remove_cgroups, starting
from tests.support.hosts import Host
from tests.support.machines import YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE
from tests.support.runtimes import answering
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, NEEDS_DOCKER]

CIDR, CIDR6 = "10.244.0.0/16", "fd00:244::/48"
NETWORK = "pods"
CREATE = ("network", "create", "--driver=muslin", "--ipam-driver=muslin")
GREETING = "hello from the container"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.write(tmp_path_factory.mktemp("image") / "box.tar")


@pytest.fixture(scope="module")
def hosts(make_module_yard: YardMaker) -> Iterator[list[Host]]:
    """Two nodes whose daemons serve Docker."""
    first, second = make_module_yard(2).machines
    try:
        with Host(first) as one, Host(second) as other:
            first.says("init", "--name", first.name, "--cidr", CIDR, "--cidr6", CIDR6)
            serve_docker(one, "true")
            second.joins(first)
            # Where the daemon may not write to Docker's folder, a file there says where it is.
            socket = second.state / "docker.sock"
            other.write("/etc/docker/plugins/muslin.spec", f"unix://{socket}")
            serve_docker(other, f'"{socket}"')
            yield [one, other]
    finally:
        remove_cgroups()


def serve_docker(host: Host, how: str) -> None:
    (host.machine.state / "config.toml").write_text(f"docker = {how}\nquarantine = 1\n")
    host.up()


@pytest.fixture(scope="module")
def engines(hosts: list[Host], image: Path) -> Iterator[list[Docker]]:
    """Docker on both. One network is dual and names its ranges, the other does neither.

    The second engine is as Docker comes, with its own bridge and its own rules, but that it leaves
    its containers running when it ends.
    """
    with (
        starting(hosts[0]) as one,
        starting(hosts[1], live_restore=True, iptables=True, bridge="") as other,
    ):
        one("load", "--input", image)
        other("load", "--input", image)
        create(one)
        other(*CREATE, NETWORK)
        yield [one, other]


def create(docker: Docker) -> None:
    docker(*CREATE, f"--subnet={CIDR}", "--ipv6", f"--subnet={CIDR6}", NETWORK)


@pytest.fixture
def one(engines: list[Docker]) -> Iterator[Docker]:
    """The first engine; without containers afterwards, and with nothing left of them."""
    yield engines[0]
    clear(engines[0])


@pytest.fixture
def other(engines: list[Docker]) -> Iterator[Docker]:
    """The second; as the first."""
    yield engines[1]
    clear(engines[1])


def clear(docker: Docker) -> None:
    if names := docker("ps", "--all", "--quiet").split():
        docker("rm", "--force", *names)
    assert pods(docker) == {}
    assert reserved(docker) == []
    assert links(docker) == []


def run(
    docker: Docker,
    name: str,
    *options: object,
    network: str = NETWORK,
    command: tuple[str, ...] = (),
) -> str:
    """Run a container in the background; its address in the pod network, if it has one."""
    words = ("run", "--detach", "--stop-signal=KILL", f"--name={name}", f"--network={network}")
    docker(*words, *options, images.NAME, *command)
    return address(docker, name) if network == NETWORK else ""


def address(docker: Docker, name: str, key: str = "IPAddress") -> str:
    shown = docker.inspect("container", name)["NetworkSettings"]["Networks"][NETWORK]
    return str(shown[key])


def pods(docker: Docker) -> dict[str, dict[str, Any]]:
    """The node's own pods that are Docker's, by address."""
    rows = docker.host.machine.get("pods")
    return {row["address"]: row for row in rows if row["local"] and row["owner"] == "docker"}


def reserved(docker: Docker) -> list[str]:
    held = docker.host.machine.ask("ipam.check")["reserved"]
    return [row["address"] for row in held]


def links(docker: Docker) -> list[str]:
    """Ends of veths in the namespace of the host that are not of its people's pods."""
    rows = docker.host.machine.get("pods")
    known = {row["link"] for row in rows if row["local"] and row["owner"] != "docker"}
    shown = json.loads(docker.host.run("ip", "-j", "link"))
    names = {row["ifname"] for row in shown if row["ifname"].startswith(("mus", "mup"))}
    return sorted(names - known - {"muslin0"})


def ping(docker: Docker, name: str, target: str) -> None:
    """A container reaches an address."""
    docker("exec", name, "ping", "-c1", f"-W{PATIENCE:.0f}", target)


def reaches(host: Host, target: str) -> None:
    """The host itself reaches an address."""
    host.run("ping", "-c1", f"-W{PATIENCE:.0f}", target)


def refused(text: str) -> str:
    """What an error says beside Docker's own words."""
    assert "muslin: " in text, text
    return text.partition("muslin: ")[2].strip()


def test_containers_of_two_engines_reach_each_other_under_the_addresses_they_see(
    one: Docker, other: Docker
) -> None:
    a, b = run(one, "alpha"), run(other, "beta")
    ping(one, "alpha", b)
    ping(other, "beta", a)
    for docker, name, own in ((one, "alpha", a), (other, "beta", b)):
        assert f"inet {own}/32 scope global eth0" in docker("exec", name, "ip", "address")
        assert {own} == set(pods(docker))
    placed = {(a, one.host.name), (b, other.host.name)}
    eventually(lambda: placed <= everywhere(one), within=PATIENCE)


def everywhere(docker: Docker) -> set[tuple[str, str]]:
    """Addresses and nodes of all pods, as one node sees them."""
    return {(row["address"], row["node"]) for row in docker.host.machine.get("pods")}


def test_containers_of_one_engine_reach_each_other_and_themselves(one: Docker) -> None:
    a, b = run(one, "alpha"), run(one, "beta")
    ping(one, "alpha", b)
    ping(one, "beta", a)
    ping(one, "alpha", a)
    ping(one, "beta", "alpha")  # Docker's own names


def test_containers_pods_and_nodes_reach_each_other(one: Docker, other: Docker) -> None:
    a = run(one, "alpha")
    for host in (one.host, other.host):
        host.says("pod", "add", "plain")
        try:
            place = host.machine.place("plain")
            ping(one, "alpha", place.address)
            host.says("exec", "plain", "--", "ping", "-c1", f"-W{PATIENCE:.0f}", a)
        finally:
            host.says("pod", "del", "plain")
        reaches(host, a)


def test_a_network_with_ipv6_has_both_halves_of_a_pods_addresses(
    one: Docker, other: Docker
) -> None:
    a = run(one, "alpha")
    a6 = address(one, "alpha", "GlobalIPv6Address")
    assert pods(one)[a]["address6"] == a6
    other.host.says("pod", "add", "plain")
    try:
        ping(one, "alpha", other.host.machine.place("plain").address6)
        other.host.says("exec", "plain", "--", "ping", "-c1", f"-W{PATIENCE:.0f}", a6)
    finally:
        other.host.says("pod", "del", "plain")
    reaches(one.host, a6)


def test_a_container_that_asks_for_its_neighbours_is_no_liar(one: Docker) -> None:
    before = spoofed(one)
    run(one, "alpha")
    # Its kernel asks who else has its address and where routers are, and says so when it is sure.
    eventually(lambda: "tentative" not in one("exec", "alpha", "ip", "address"), within=PATIENCE)
    one("exec", "alpha", "ip", "neigh", "flush", "dev", "eth0")
    (row,) = (row for row in one.host.machine.get("nodes") if row["local"])
    ping(one, "alpha", row["address6"])
    assert spoofed(one) == before


def spoofed(docker: Docker) -> int:
    """Packets that the node's filter has dropped because of their source."""
    return int(docker.host.machine.ask("status")["guard"]["drops"].get("spoofed", 0))


def test_docker_leaves_forwarding_on_where_the_daemon_was_there_first(other: Docker) -> None:
    """Docker closes it (policy DROP) only where it had to switch it on by itself."""
    assert "-P FORWARD ACCEPT" in other.host.run("iptables", "-S", "FORWARD")
    assert "DOCKER-USER" in other.host.run("iptables", "-S", "FORWARD")


def test_a_network_without_ipv6_has_none(other: Docker) -> None:
    run(other, "beta")
    assert address(other, "beta", "GlobalIPv6Address") == ""
    assert "inet6 fd" not in other("exec", "beta", "ip", "address")


def test_docker_shows_the_network_and_its_containers(one: Docker) -> None:
    a = run(one, "alpha")
    shown = one.inspect("network", NETWORK)
    assert (shown["Driver"], shown["IPAM"]["Driver"]) == ("muslin", "muslin")
    assert shown["Scope"] == "local"
    (container,) = shown["Containers"].values()
    assert (container["Name"], container["IPv4Address"]) == ("alpha", f"{a}/32")
    (pod,) = pods(one).values()
    assert (pod["container"], pod["network"]) == (container["EndpointID"], shown["Id"])
    assert pod["name"] == f"docker-{container['EndpointID'][:12]}"


def test_an_address_can_be_fixed_where_the_range_was_named(one: Docker) -> None:
    (block,) = next(
        row["blocks"] for row in one.host.machine.get("nodes") if row["name"] == one.host.name
    )
    wanted = block.replace(".0/24", ".77")
    assert run(one, "alpha", f"--ip={wanted}") == wanted
    ping(one, "alpha", wanted)
    taken = one.refuses("run", f"--network={NETWORK}", f"--ip={wanted}", images.NAME)
    assert "address-taken" in refused(taken)
    one("rm", "--force", "alpha")
    assert run(one, "again", f"--ip={wanted}") == wanted, "a moment after it was given back"


def test_an_address_of_another_nodes_block_is_refused(one: Docker, other: Docker) -> None:
    b = run(other, "beta")
    why = one.refuses("run", f"--network={NETWORK}", f"--ip={b}", images.NAME)
    assert "address-not-ours" in refused(why)


def test_a_half_that_is_no_partner_is_refused_and_leaves_nothing(one: Docker) -> None:
    why = one.refuses("run", f"--network={NETWORK}", "--ip6=fd00:244:0:9::9", images.NAME)
    assert "not-a-pair" in refused(why)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--driver=muslin",), "other-ipam"),
        ((*CREATE[2:], "--subnet=10.0.0.0/24"), "other-range"),
        ((*CREATE[2:], f"--subnet={CIDR}", "--ip-range=10.244.3.0/24"), "other-range"),
        ((*CREATE[2:], f"--subnet={CIDR}", "--gateway=10.244.0.1"), "other-gateway"),
        ((*CREATE[2:], "--opt=mtu=1400"), "unknown-option"),
        ((*CREATE[2:], "--internal"), "unknown-option"),
    ],
)
def test_a_network_that_cannot_be_is_refused_in_words(
    one: Docker, options: tuple[str, ...], code: str
) -> None:
    why = refused(one.refuses("network", "create", *options, "wrong"))
    assert f"({code}): " in why
    assert "\n" not in why


def test_a_node_has_one_network(one: Docker) -> None:
    run(one, "alpha")
    assert "other-network" in refused(one.refuses(*CREATE, "second"))


def test_a_container_is_connected_and_disconnected_while_it_runs(
    one: Docker, other: Docker
) -> None:
    b = run(other, "beta")
    run(one, "alpha", network="none")
    one("network", "disconnect", "none", "alpha")
    for _ in range(2):
        one("network", "connect", NETWORK, "alpha")
        ping(one, "alpha", b)
        ping(other, "beta", address(one, "alpha"))
        one("network", "disconnect", NETWORK, "alpha")
        assert pods(one) == {}
        assert one.attempt("exec", "alpha", "ping", "-c1", "-W1", b).returncode != 0


def test_a_container_that_is_killed_leaves_nothing(one: Docker) -> None:
    run(one, "alpha")
    pid = one.inspect("container", "alpha")["State"]["Pid"]
    one.host.run("kill", "-9", str(pid))
    eventually(lambda: pods(one) == {}, within=PATIENCE)
    one("start", "alpha")
    ping(one, "alpha", address(one, "alpha"))


def test_a_restarted_container_is_a_pod_again(one: Docker, other: Docker) -> None:
    b = run(other, "beta")
    run(one, "alpha")
    one("restart", "--time=0", "alpha")
    ping(one, "alpha", b)
    assert set(pods(one)) == {address(one, "alpha")}


def test_a_pod_that_was_deleted_by_hand_comes_back_with_its_container(one: Docker) -> None:
    run(one, "alpha")
    (pod,) = pods(one).values()
    one.host.says("pod", "del", pod["name"])
    assert one.attempt("exec", "alpha", "ip", "link", "show", "eth0").returncode != 0
    one("restart", "--time=0", "alpha")
    ping(one, "alpha", address(one, "alpha"))


# -- restarts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [False, True])
def test_containers_outlive_the_daemon_of_the_node(
    one: Docker, other: Docker, *, kill: bool
) -> None:
    a, b = run(one, "alpha"), run(other, "beta")
    one.host.down(kill=kill)
    one.host.up()
    ping(one, "alpha", b)
    ping(other, "beta", a)
    run(one, "later")
    ping(one, "later", a)


def test_docker_waits_for_a_daemon_that_is_away_for_a_moment(one: Docker) -> None:
    one.host.down()
    words = ("run", "--detach", "--name=alpha", f"--network={NETWORK}", images.NAME)
    client = one.host.start(one.log.with_suffix(".client"), "docker", *words)
    eventually(lambda: "Unable to connect to plugin" in one.log.read_text(), within=PATIENCE)
    one.host.up()
    assert client.wait(PATIENCE) == 0
    ping(one, "alpha", address(one, "alpha"))


def test_a_docker_that_ended_and_came_back_has_its_network(one: Docker, other: Docker) -> None:
    b = run(other, "beta")
    run(one, "alpha")
    one.stop()
    assert pods(one) == {}
    one.start()
    one("start", "alpha")
    ping(one, "alpha", b)
    assert set(pods(one)) == {address(one, "alpha")}


@pytest.mark.parametrize("alone", [True, False])
def test_a_docker_that_was_killed_gives_back_what_it_no_longer_has(
    one: Docker, *, alone: bool
) -> None:
    """A machine that lost its power: what ran is gone, and nobody has said good-bye."""
    run(one, "alpha")
    pid = one.inspect("container", "alpha")["State"]["Pid"]
    one.stop(kill=True)
    if not alone:
        one.host.run("kill", "-9", str(pid))
    one.start()
    eventually(lambda: pods(one) == {} and reserved(one) == [], within=PATIENCE)
    assert links(one) == []
    one("start", "alpha")
    ping(one, "alpha", address(one, "alpha"))


def test_containers_outlive_a_docker_that_restores_them(one: Docker, other: Docker) -> None:
    a, b = run(one, "alpha"), run(other, "beta")
    other.stop()
    ping(one, "alpha", b)
    other.start()
    ping(other, "beta", a)
    assert set(pods(other)) == {b}
    other("restart", "--time=0", "beta")
    ping(one, "alpha", address(other, "beta"))


def test_what_a_docker_has_forgotten_altogether_can_be_freed(one: Docker) -> None:
    run(one, "alpha")
    pid = one.inspect("container", "alpha")["State"]["Pid"]
    one.stop(kill=True)
    one.host.run("kill", "-9", str(pid))
    one.host.run("sh", "-c", "rm -rf /var/lib/docker/network /var/lib/docker/containers/*")
    one.start()
    assert NETWORK not in one("network", "ls").split()
    (pod,) = pods(one).values()
    one.host.says("pod", "del", pod["name"])
    assert reserved(one) == [pod["address"]]
    create(one)
    one("network", "rm", NETWORK)
    assert reserved(one) == [], "with the network goes what was reserved for it"
    create(one)


# -- published ports -------------------------------------------------------------------------------

SERVE = answering(80, GREETING)


def greeting(host: Host, target: str, port: int) -> str:
    """What somebody on a host is told at an address and port."""
    said = host.attempt("busybox", "nc", "-w", "5", target, str(port)).stdout
    return said.strip()


def test_a_published_port_is_open_at_the_node_for_others_and_itself(
    one: Docker, other: Docker
) -> None:
    run(one, "alpha", "--publish=8080:80", command=SERVE)
    underlay = one.host.machine.address
    eventually(lambda: greeting(other.host, underlay, 8080) == GREETING, within=PATIENCE)
    assert greeting(one.host, "127.0.0.1", 8080) == GREETING
    (pod,) = pods(one).values()
    assert [(port["host_port"], port["port"]) for port in pod["ports"]] == [(8080, 80)]
    one("rm", "--force", "alpha")
    assert greeting(other.host, underlay, 8080) == ""


def test_a_port_of_a_range_is_the_first_that_no_other_pod_has(one: Docker, other: Docker) -> None:
    run(one, "alpha", "--publish=8080-8085:80", command=SERVE)
    run(one, "beta", "--publish=8080-8085:80", command=SERVE)
    opened = [port["host_port"] for pod in pods(one).values() for port in pod["ports"]]
    assert sorted(opened) == [8080, 8081]
    for port in opened:
        eventually(
            lambda port=port: greeting(other.host, one.host.machine.address, port) == GREETING,
            within=PATIENCE,
        )


def test_a_port_that_docker_leaves_open_is_found(one: Docker, other: Docker) -> None:
    run(one, "alpha", "--publish=80", command=SERVE)
    ((port,),) = (pod["ports"] for pod in pods(one).values())
    target = one.host.machine.address
    eventually(lambda: greeting(other.host, target, port["host_port"]) == GREETING, within=PATIENCE)


def test_a_port_that_is_another_pods_is_refused_and_leaves_nothing(one: Docker) -> None:
    run(one, "alpha", "--publish=8080:80")
    words = ("run", "--detach", f"--network={NETWORK}", "--publish=8080:80", images.NAME)
    assert "port-taken" in refused(one.refuses(*words))
    assert len(pods(one)) == len(reserved(one)) == 1
