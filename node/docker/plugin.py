"""Which question of Docker's leads to which methods of the daemon.

    docker network create   RequestPool, CreateNetwork           is it possible?
    docker run, connect     RequestAddress (IPv4, then IPv6)     address.reserve
                            CreateEndpoint                       pod.add, handed
                            Join                                 pod.check
    docker stop, disconnect Leave, DeleteEndpoint                pod.del
                            ReleaseAddress                       pod.del, address.release
    docker network rm       ReleasePool, DeleteNetwork           pod.del of what is left
    any of them             which pods this node has             pod.list

The methods are those of the control socket, through the same door: what they refuse is refused
here, with the same words.

An address of this network is a pair, of which Docker asks for one half after the other, and only
the order tells which halves belong together. It is reliable: Docker makes the endpoints of one
network one at a time, and a node has one network. `CreateEndpoint` compares all the same.

Published ports are opened with the endpoint, not with `ProgramExternalConnectivity`: they are a
part of the pod, stored with it, and of no use without it.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from node.control.schema import ControlError
from node.docker import answers, requests
from node.docker.answers import Body
from node.docker.requests import EndpointWanted
from node.docker.server import PluginServer
from node.errors import clauses
from node.kernel.model import GATEWAY, GATEWAY6
from overlay.attachment import DEFAULT_INTERFACE, HostPort
from overlay.errors import OverlayError
from overlay.types import Address, Prefix

Dispatch = Callable[[str, dict[str, object]], Awaitable[object]]
"""Does one control request, as `node.control.server.Dispatch`."""

Json = Mapping[str, object]

OWNER: Final = "docker"
PORT_TAKEN: Final = "port-taken"
MOST_TRIES: Final = 16
"""Ports of a range that are tried beside those that pods are known to have."""

LABEL_DUAL: Final = "ipv6"
"""Label of a pod whose endpoint has IPv6: `Join` does not say so, and a gateway without an address
of its version is an error of Docker's."""


class Plugin:
    """Answers Docker.

    Args:
        dispatch: does control requests.
    """

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._half: tuple[str, str] | None = None  # the last IPv4 given, and its unasked partner
        self._is_first = True  # whoever served before may have given an IPv4 half
        self._methods: dict[str, Callable[[Json], Awaitable[Body]]] = {
            "Plugin.Activate": _always(answers.ACTIVATED),
            "NetworkDriver.GetCapabilities": _always(answers.CAPABILITIES),
            "NetworkDriver.AllocateNetwork": _always({"Options": {}}),
            "NetworkDriver.FreeNetwork": _always({}),
            "NetworkDriver.CreateNetwork": self._create_network,
            "NetworkDriver.DeleteNetwork": self._delete_network,
            "NetworkDriver.CreateEndpoint": self._create_endpoint,
            "NetworkDriver.EndpointOperInfo": self._endpoint_info,
            "NetworkDriver.DeleteEndpoint": self._delete_endpoint,
            "NetworkDriver.Join": self._join,
            "NetworkDriver.Leave": _always({}),  # Docker takes the link out; it goes afterwards
            "NetworkDriver.DiscoverNew": _always({}),
            "NetworkDriver.DiscoverDelete": _always({}),
            "NetworkDriver.ProgramExternalConnectivity": _always({}),
            "NetworkDriver.RevokeExternalConnectivity": _always({}),
            "IpamDriver.GetCapabilities": _always(answers.IPAM_CAPABILITIES),
            "IpamDriver.GetDefaultAddressSpaces": _always(answers.SPACES),
            "IpamDriver.RequestPool": self._request_pool,
            "IpamDriver.ReleasePool": _always({}),
            "IpamDriver.RequestAddress": self._request_address,
            "IpamDriver.ReleaseAddress": self._release_address,
        }

    async def answer(self, method: str, body: dict[str, object]) -> Body:
        """Do one request; the `Answer` of `node.docker.server`.

        Raises:
            ControlError: no such method, or the request is malformed or means nothing here.
            OverlayError: the daemon declined it or failed.
        """
        handler = self._methods.get(method)
        if handler is None:
            raise ControlError("unknown-method", f"no method {method[:64]!r}")
        return await handler(body)

    # -- networks and endpoints ----------------------------------------------------------------

    async def _create_network(self, body: Json) -> Body:
        network = requests.check_network(body)
        for pod in await self._pods():
            if pod["network"] not in (None, network):
                why = f"a node has one network, and pod {pod['name']} is of another"
                fix = f"use network {str(pod['network'])[:12]}, or remove it first"
                raise ControlError("other-network", why, fix)
        return {}

    async def _delete_network(self, body: Json) -> Body:
        network = requests.identifier(body, "NetworkID")
        for pod in await self._pods():
            if pod["network"] == network:
                await self._remove(str(pod["container"]))
        # The network was the only one: what is still reserved, Docker has forgotten.
        for held in await self._reserved():
            if held["pod"] is None:
                await self._release(str(held["address"]))
        return {}

    async def _create_endpoint(self, body: Json) -> Body:
        wanted = requests.endpoint_wanted(body)
        self._half = None
        dual = wanted.address6 is not None
        added = await self._add_with_ports(
            wanted,
            owner=OWNER,
            container=wanted.endpoint,
            network=wanted.network,
            ip=str(wanted.address) if wanted.address else None,
            ip6=str(wanted.address6) if wanted.address6 else None,
            labels={LABEL_DUAL: "true"} if dual else {},
            handed=True,
        )
        return answers.created(added, bool(wanted.mac))

    async def _add_with_ports(self, wanted: EndpointWanted, **params: object) -> Json:
        """Add a pod, with the next ports where a program of the node listens on the first ones.

        That is seen only when the pod is connected; and other ports will do only where Docker has
        left a choice.
        """
        taken = await self._ports(wanted.endpoint)
        for tries in range(MOST_TRIES - 1, -1, -1):
            ports = requests.choose_ports(wanted.ports, taken)
            loose = [
                port for port, want in zip(ports, wanted.ports, strict=True) if want.has_choice
            ]
            try:
                return await self._ask("pod.add", **params, ports=list(map(asdict, ports)))
            except (ControlError, OverlayError) as error:
                code = error.code if isinstance(error, ControlError) else clauses(error)[0]
                if code != PORT_TAKEN or not loose or not tries:
                    raise
            taken += loose
        raise AssertionError("the last try returns or raises")

    async def _endpoint_info(self, body: Json) -> Body:
        pod = await self._checked(body)
        return answers.operational(pod, _ports_of(pod))

    async def _delete_endpoint(self, body: Json) -> Body:
        await self._remove(requests.identifier(body, "EndpointID"))
        return {}

    async def _join(self, body: Json) -> Body:
        pod = await self._checked(body)
        labels = pod["labels"]
        return answers.joined(pod, dual=isinstance(labels, dict) and LABEL_DUAL in labels)

    # -- addresses -----------------------------------------------------------------------------

    async def _request_pool(self, body: Json) -> Body:
        status = await self._ask("status")
        ranges: dict[int, Prefix | None] = {
            version: None if status[key] is None else ip_network(str(status[key]))
            for version, key in ((4, "cidr"), (6, "cidr6"))
        }
        return answers.pool(requests.pool_wanted(body, ranges))

    async def _request_address(self, body: Json) -> Body:
        version, wanted = requests.pool_version(body), requests.address_wanted(body)
        if requests.is_gateway(body, wanted):
            gateway = GATEWAY6 if version == 6 else GATEWAY
            return {"Address": answers.masked(str(gateway)), "Data": {}}
        if self._is_first and version == 6:
            self._half = await self._half_of_predecessor(wanted)
        self._is_first = False
        given = await (self._give4(wanted) if version == 4 else self._give6(wanted))
        return {"Address": answers.masked(given), "Data": {}}

    async def _half_of_predecessor(self, wanted: Address | None) -> tuple[str, str] | None:
        """The only pair that is held for no container; with several, Docker's order is lost.

        If that is one which Docker has forgotten, it is as good as a new one.
        """
        free = [held for held in await self._reserved() if held["pod"] is None]
        halves = [(str(held["address"]), str(held["address6"])) for held in free]
        if len(halves) != 1 or (wanted is not None and str(wanted) != halves[0][1]):
            return None
        return halves[0]

    async def _give4(self, wanted: Address | None) -> str:
        pair = await self._reserve(wanted)
        self._half = (str(pair["address"]), str(pair["address6"]))
        return str(pair["address"])

    async def _give6(self, wanted: Address | None) -> str:
        half, self._half = self._half, None
        if half is None:  # a network without IPv4
            return str((await self._reserve(wanted))["address6"])
        if wanted is not None and str(wanted) != half[1]:
            await self._release(half[0])  # Docker does not, when the second half is refused
            fix = "fix the IPv4 address with --ip; the IPv6 address follows from it"
            raise ControlError("not-a-pair", f"{wanted} is not the partner of {half[0]}", fix)
        return half[1]

    async def _reserve(self, wanted: Address | None) -> Json:
        return await self._ask("address.reserve", owner=OWNER, ip=str(wanted) if wanted else None)

    async def _release_address(self, body: Json) -> Body:
        address = requests.address_wanted(body)
        if address is None:
            raise ControlError("bad-request", "Address is missing")
        if requests.is_gateway(body, address):
            return {}
        if self._half is not None and str(address) in self._half:
            self._half = None
        for pod in await self._pods():
            if str(address) in (pod["address"], pod["address6"]):
                await self._remove(str(pod["container"]))  # Docker has forgotten its endpoint
        await self._release(str(address))
        return {}

    async def _release(self, address: str) -> None:
        await self._ask("address.release", owner=OWNER, address=address)

    # -- the daemon ----------------------------------------------------------------------------

    async def _remove(self, endpoint: str) -> None:
        await self._ask("pod.del", container=endpoint, interface=DEFAULT_INTERFACE)

    async def _checked(self, body: Json) -> Json:
        endpoint = requests.identifier(body, "EndpointID")
        return await self._ask("pod.check", container=endpoint, interface=DEFAULT_INTERFACE)

    async def _pods(self) -> list[Json]:
        """This node's pods that are Docker's."""
        return [pod for pod in await self._ask_list("pod.list") if pod["owner"] == OWNER]

    async def _reserved(self) -> list[Json]:
        """The addresses that are held for Docker."""
        held = (await self._ask("ipam.check"))["reserved"]
        assert isinstance(held, list)
        return [one for one in held if one["owner"] == OWNER]

    async def _ports(self, endpoint: str) -> list[HostPort]:
        """The host ports of all pods of this node but one."""
        pods = await self._ask_list("pod.list")
        others = (pod for pod in pods if pod["container"] != endpoint)
        return [port for pod in others for port in _ports_of(pod)]

    async def _ask(self, method: str, **params: object) -> Json:
        answer = await self._dispatch(method, params)
        assert isinstance(answer, dict)
        return answer

    async def _ask_list(self, method: str, **params: object) -> list[Json]:
        answer = await self._dispatch(method, params)
        assert isinstance(answer, list)
        return answer


@asynccontextmanager
async def serving(
    path: str, dispatch: Dispatch, passed: socket.socket | None = None
) -> AsyncIterator[PluginServer | None]:
    """Serve Docker on the socket at `path`, if there is one, for the time of a `with` block.

    Args:
        path: where; empty: nowhere.
        dispatch: does control requests.
        passed: a socket that listens already, perhaps there.

    Raises:
        NodeError: the socket cannot be made. Nothing else.
    """
    if not path:
        if passed is not None:
            passed.close()
        yield None
        return
    server = await PluginServer(Path(path), Plugin(dispatch).answer, passed=passed).start()
    try:
        yield server
    finally:
        await server.close()


def _always(body: Body) -> Callable[[Json], Awaitable[Body]]:
    async def answer(_: Json) -> Body:
        return body

    return answer


def _ports_of(pod: Json) -> tuple[HostPort, ...]:
    ports = pod["ports"]
    assert isinstance(ports, list)
    return tuple(HostPort(**(port | {"host": port["host"] or ""})) for port in ports)
