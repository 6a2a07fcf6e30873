"""What Docker asks, through the plugin and the daemon's own methods, to a real engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from node.control.handlers import Handlers
from node.control.schema import ControlError
from node.docker.plugin import OWNER, Plugin, serving
from node.errors import NodeError, clauses
from overlay.errors import OverlayError
from overlay.views import PodView
from tests.node.docker.test_requests import ENDPOINT, NETWORK, binding, endpoint, network
from tests.node.docker.test_server import ask as ask_socket
from tests.sim.worlds import settled
from tests.support.daemon import FakeDaemon

Json = dict[str, Any]
OTHER = "ef" * 32


class Node(FakeDaemon):
    """A daemon with a real engine, and no machine around it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = settled(1)
        self.engine = self.world["node1"].engine
        self.handlers = Handlers(self)
        self.plugin = Plugin(self.handlers.dispatch)
        self.listening: set[int] = set()

    def now(self) -> float:
        return self.world.now

    async def attach_pod(self, pod: PodView) -> None:
        """Refuses ports that a program of the node listens on, as the kernel's keeper does."""
        if any(port.host_port in self.listening for port in pod.attachment.ports):
            raise NodeError("somebody listens there", code="port-taken")
        await super().attach_pod(pod)

    async def ask(self, method: str, **body: object) -> Json:
        """The answer to one request of Docker's, which is JSON."""
        return json.loads(json.dumps(await self.plugin.answer(method, body)))

    async def address(self, version: int = 4, wanted: str = "", **options: str) -> str:
        pool = {4: "0.0.0.0/0", 6: "::/0"}[version]
        answer = await self.ask(
            "IpamDriver.RequestAddress", PoolID=pool, Address=wanted, Options=options
        )
        return str(answer["Address"])

    async def release(self, address: str) -> None:
        body = {"PoolID": "0.0.0.0/0", "Address": address.partition("/")[0]}
        assert await self.ask("IpamDriver.ReleaseAddress", **body) == {}

    async def connect(self, ident: str = ENDPOINT, *, dual: bool = False, **said: Any) -> str:
        """An endpoint with an address; the address."""
        four = await self.address()
        six = await self.address(6) if dual else ""
        body = endpoint(said.pop("ports", None), Address=four, AddressIPv6=six, **said)
        await self.ask("NetworkDriver.CreateEndpoint", **body | {"EndpointID": ident})
        return four

    async def pods(self) -> list[Json]:
        rows = await self.handlers.dispatch("get", {"kind": "pods"})
        return [row for row in rows if row["owner"] == OWNER]

    async def reserved(self) -> list[str]:
        return [
            row["address"] for row in (await self.handlers.dispatch("ipam.check", {}))["reserved"]
        ]


def scene(play: Callable[[Node], Awaitable[None]]) -> Node:
    """Play a scene; everything that is taken at its end has an owner."""
    node = Node()
    asyncio.run(_play(node, play))
    node.engine.parts.holdings.check_invariants()
    return node


async def _play(node: Node, play: Callable[[Node], Awaitable[None]]) -> None:
    await play(node)


async def refused(work: Awaitable[object]) -> str:
    with pytest.raises((ControlError, OverlayError)) as raised:
        await work
    error = raised.value
    return error.code if isinstance(error, ControlError) else clauses(error)[0]


def of(ident: str = ENDPOINT) -> Json:
    return {"NetworkID": NETWORK, "EndpointID": ident}


def test_docker_activates_both_drivers_and_asks_what_they_can() -> None:
    async def play(node: Node) -> None:
        assert "IpamDriver" in (await node.ask("Plugin.Activate"))["Implements"]
        assert (await node.ask("NetworkDriver.GetCapabilities"))["Scope"] == "local"
        assert not (await node.ask("IpamDriver.GetCapabilities"))["RequiresMACAddress"]
        spaces = await node.ask("IpamDriver.GetDefaultAddressSpaces")
        assert set(spaces.values()) == {"muslin"}

    scene(play)


@pytest.mark.parametrize(
    "method",
    [
        "NetworkDriver.AllocateNetwork",
        "NetworkDriver.FreeNetwork",
        "NetworkDriver.Leave",
        "NetworkDriver.DiscoverNew",
        "NetworkDriver.DiscoverDelete",
        "NetworkDriver.ProgramExternalConnectivity",
        "NetworkDriver.RevokeExternalConnectivity",
        "IpamDriver.ReleasePool",
    ],
)
def test_what_asks_for_nothing_is_answered(method: str) -> None:
    async def play(node: Node) -> None:
        assert not any((await node.ask(method, **of(), PoolID="0.0.0.0/0")).values())

    scene(play)


def test_an_unknown_method_is_refused_with_the_code_that_means_404() -> None:
    async def play(node: Node) -> None:
        assert await refused(node.ask("NetworkDriver.Fly")) == "unknown-method"

    scene(play)


def test_asking_for_a_pool_again_gives_the_same() -> None:
    async def play(node: Node) -> None:
        first = await node.ask("IpamDriver.RequestPool", AddressSpace="muslin", V6=False)
        assert first["Pool"] == "0.0.0.0/0"
        assert await node.ask("IpamDriver.RequestPool", AddressSpace="muslin") == first
        cidr = str(node.world["node1"].snapshot().cidr)
        named = await node.ask("IpamDriver.RequestPool", Pool=cidr)
        assert (named["PoolID"], named["Pool"]) == (cidr, cidr)

    scene(play)


def test_an_endpoint_is_a_pod_with_the_address_that_docker_was_given() -> None:
    async def play(node: Node) -> None:
        four = await node.connect(ports=[binding(8080)])
        (pod,) = await node.pods()
        assert f"{pod['address']}/32" == four
        assert (pod["container"], pod["network"], pod["handed"]) == (ENDPOINT, NETWORK, True)
        assert pod["ports"][0]["host_port"] == 8080
        info = (await node.ask("NetworkDriver.EndpointOperInfo", **of()))["Value"]
        assert info["muslin.pod"] == pod["name"]
        assert info["com.docker.network.portmap"][0]["HostPort"] == 8080

    node = scene(play)
    assert len(node.attached) == 1


def test_joining_names_the_end_of_the_veth_that_docker_moves() -> None:
    async def play(node: Node) -> None:
        await node.connect()
        answer = await node.ask("NetworkDriver.Join", **of(), SandboxKey="/run/docker/netns/1")
        (pod,) = await node.pods()
        assert answer["InterfaceName"]["SrcName"] == pod["link"].replace("mus", "mup")
        assert answer["GatewayIPv6"] == ""

    scene(play)


def test_both_halves_of_an_address_are_of_one_pod() -> None:
    async def play(node: Node) -> None:
        for ident in (ENDPOINT, OTHER):
            await node.connect(ident, dual=True)
        for pod in await node.pods():
            joined = await node.ask("NetworkDriver.Join", **of(pod["container"]))
            assert joined["GatewayIPv6"] == "fe80::1"
        assert len({pod["address6"] for pod in await node.pods()}) == 2

    scene(play)


def test_a_network_without_ipv4_has_pods_all_the_same() -> None:
    async def play(node: Node) -> None:
        six = await node.address(6)
        body = endpoint(Address="", AddressIPv6=six)
        await node.ask("NetworkDriver.CreateEndpoint", **body)
        (pod,) = await node.pods()
        assert f"{pod['address6']}/128" == six
        await node.ask("NetworkDriver.DeleteEndpoint", **of())
        await node.release(six)
        assert await node.reserved() == []

    scene(play)


def test_a_second_half_that_is_no_partner_is_refused_and_frees_the_first() -> None:
    async def play(node: Node) -> None:
        await node.address()
        assert await refused(node.address(6, "fd00::77")) == "not-a-pair"
        assert await node.reserved() == []

    scene(play)


def test_the_partner_of_an_address_that_was_given_back_is_not_given() -> None:
    """What Docker asks for next may be for another network, with IPv6 alone."""

    async def play(node: Node) -> None:
        await node.release(await node.address())
        six = (await node.address(6)).partition("/")[0]
        listed = (await node.handlers.dispatch("ipam.check", {}))["reserved"]
        assert [row["address6"] for row in listed] == [six]

    scene(play)


def test_a_daemon_that_begins_between_both_halves_gives_the_partner_of_the_first() -> None:
    async def play(node: Node) -> None:
        four = await node.address()
        node.plugin = Plugin(node.handlers.dispatch)
        six = await node.address(6)
        body = endpoint(Address=four, AddressIPv6=six)
        await node.ask("NetworkDriver.CreateEndpoint", **body)
        assert len(await node.reserved()) == 1

    scene(play)


def test_a_daemon_that_begins_guesses_no_partner() -> None:
    """One that a container has, another than Docker wants, one of two: it is given a new one."""

    async def play(node: Node) -> None:
        await node.connect()
        first = ip_interface(await node.address(6)).ip
        await node.release(str(first))
        for held, wanted in ((2, ""), (3, str(first + 9)), (4, "")):
            node.plugin = Plugin(node.handlers.dispatch)
            await node.address(6, wanted)
            assert len(await node.reserved()) == held

    scene(play)


def test_a_mac_that_docker_has_is_not_told_again() -> None:
    async def play(node: Node) -> None:
        for ident, mac in ((ENDPOINT, ""), (OTHER, "02:42:00:00:00:09")):
            body = endpoint(Address=await node.address(), MacAddress=mac) | {"EndpointID": ident}
            said = (await node.ask("NetworkDriver.CreateEndpoint", **body))["Interface"]
            assert bool(said.get("MacAddress")) is not bool(mac)

    scene(play)


def test_an_endpoint_can_be_asked_for_again() -> None:
    async def play(node: Node) -> None:
        body = endpoint([binding(8080)], Address=await node.address())
        first = await node.ask("NetworkDriver.CreateEndpoint", **body)
        assert await node.ask("NetworkDriver.CreateEndpoint", **body) == first
        assert len(await node.pods()) == 1

    scene(play)


def test_a_port_of_another_pod_is_refused() -> None:
    async def play(node: Node) -> None:
        await node.connect(ports=[binding(8080)])
        assert await refused(node.connect(OTHER, ports=[binding(8080)])) == "port-taken"
        await node.connect(OTHER, ports=[binding(8080, 8090)])
        assert {port["host_port"] for pod in await node.pods() for port in pod["ports"]} == {
            8080,
            8081,
        }

    scene(play)


def test_a_port_that_a_program_of_the_node_has_is_passed_over_where_there_is_a_choice() -> None:
    async def play(node: Node) -> None:
        node.listening = {8080, 8081}
        await node.connect(ports=[binding(8080, 8090)])
        (pod,) = await node.pods()
        assert [port["host_port"] for port in pod["ports"]] == [8082]
        assert await refused(node.connect(OTHER, ports=[binding(8080)])) == "port-taken"
        assert len(await node.pods()) == 1

    scene(play)


def test_deleting_an_endpoint_and_giving_back_its_address_leaves_nothing() -> None:
    async def play(node: Node) -> None:
        four = await node.connect()
        for _ in range(2):
            await node.ask("NetworkDriver.DeleteEndpoint", **of())
            await node.release(four)
        assert (await node.pods(), await node.reserved()) == ([], [])

    assert scene(play).attached == []


def test_giving_back_an_address_ends_a_pod_whose_endpoint_docker_has_forgotten() -> None:
    async def play(node: Node) -> None:
        four = await node.connect()
        await node.release(four)
        assert (await node.pods(), await node.reserved()) == ([], [])

    assert scene(play).attached == []


def test_what_a_container_costs_does_not_grow_with_the_cluster(monkeypatch) -> None:
    """Nothing looks at the pods of all nodes."""

    async def play(node: Node) -> None:
        four, ports = await node.address(), [binding(8080)]
        monkeypatch.delattr(type(node.engine), "snapshot")
        await node.ask("NetworkDriver.CreateEndpoint", **endpoint(ports, Address=four))
        await node.ask("NetworkDriver.Join", **of())
        await node.ask("NetworkDriver.DeleteEndpoint", **of())
        await node.release(four)
        monkeypatch.undo()

    scene(play)


def test_giving_back_an_address_of_a_persons_pod_leaves_it_alone() -> None:
    async def play(node: Node) -> None:
        pod = await node.handlers.dispatch("pod.add", {"name": "web"})
        await node.release(pod["address"])
        assert await node.handlers.dispatch("pod.get", {"name": "web"})

    scene(play)


def test_the_gateway_is_given_and_given_back_without_an_address_being_spent() -> None:
    async def play(node: Node) -> None:
        typed = {"RequestAddressType": "com.docker.network.gateway"}
        assert await node.address(4, "", **typed) == "169.254.1.1/32"
        assert await node.address(6, "fe80::1", **typed) == "fe80::1/128"
        await node.release("169.254.1.1/32")
        assert await node.reserved() == []
        assert await refused(node.ask("IpamDriver.ReleaseAddress", PoolID="")) == "bad-request"

    scene(play)


def test_a_fixed_address_is_given_once() -> None:
    async def play(node: Node) -> None:
        wanted = str(node.engine.parts.holdings.address + 76)
        assert await node.address(4, wanted) == f"{wanted}/32"
        assert await refused(node.address(4, wanted)) == "address-taken"
        assert await refused(node.address(4, "203.0.113.1")) == "address-not-ours"

    scene(play)


def test_a_second_network_is_refused_while_the_first_has_containers() -> None:
    async def play(node: Node) -> None:
        assert await node.ask("NetworkDriver.CreateNetwork", **network()) == {}
        await node.connect()
        assert await node.ask("NetworkDriver.CreateNetwork", **network()) == {}
        second = network() | {"NetworkID": OTHER}
        assert await refused(node.ask("NetworkDriver.CreateNetwork", **second)) == "other-network"
        await node.ask("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
        assert await node.ask("NetworkDriver.CreateNetwork", **second) == {}

    scene(play)


def test_removing_a_network_frees_what_docker_has_forgotten_of_it() -> None:
    async def play(node: Node) -> None:
        await node.connect()
        await node.address()
        await node.ask("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
        assert (await node.pods(), await node.reserved()) == ([], [])

    assert scene(play).attached == []


def test_an_endpoint_that_this_node_does_not_know_is_refused_when_joined() -> None:
    async def play(node: Node) -> None:
        assert await refused(node.ask("NetworkDriver.Join", **of())) == "no-such-pod"
        assert await refused(node.ask("NetworkDriver.Join", NetworkID="a")) == "bad-request"

    scene(play)


def test_the_socket_is_there_only_if_it_has_a_path(tmp_path: Path) -> None:
    async def play(node: Node) -> None:
        path = tmp_path / "plugins" / "muslin.sock"
        async with serving("", node.handlers.dispatch):
            assert not path.exists()
        async with serving(str(path), node.handlers.dispatch):
            assert (await ask_socket(path, "Plugin.Activate"))[0] == 200
            assert (await ask_socket(path, "NetworkDriver.Fly"))[0] == 404
        assert not path.exists()

    scene(play)
