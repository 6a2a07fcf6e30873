"""What Docker is told: pure functions of what the daemon's own methods answer.

    Join -> {"InterfaceName": {"SrcName": the pod's end of the veth, "DstPrefix": "eth"},
             "Gateway": "169.254.1.1", "GatewayIPv6": "fe80::1",
             "StaticRoutes": [{"Destination": "169.254.1.1/32", "RouteType": 1}, ...]}

Docker moves that end into the container, names it, gives it the addresses with a mask of 32 and 128
bits, adds the connected routes and then the gateways, which no address of such a mask would reach.

The scope is `local`: Docker shares no state of its networks between nodes. Networks of scope
`global` need a key-value store, or a swarm, whose managers would hand out addresses. That networks
of several nodes are one is our affair, not Docker's.

References:
    moby, libnetwork/drivers/remote/api/api.go; types.StaticRoute: 1 is a connected route.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from node.docker.requests import OPTION_GATEWAY, OPTION_PORTS, SPACE
from node.kernel.model import GATEWAY, GATEWAY6
from overlay.attachment import HostPort

Body = dict[str, object]

ACTIVATED: Final[Body] = {"Implements": ["NetworkDriver", "IpamDriver"]}
CAPABILITIES: Final[Body] = {"Scope": "local", "ConnectivityScope": "global"}

IPAM_CAPABILITIES: Final[Body] = {"RequiresMACAddress": False, "RequiresRequestReplay": False}
"""No replay: what was handed out is stored here, so that Docker need not ask for all of it again
when it starts."""

SPACES: Final[Body] = {"LocalDefaultAddressSpace": SPACE, "GlobalDefaultAddressSpace": SPACE}

CONNECTED: Final = 1
"""The `RouteType` of a route without a next hop."""

_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
_MASKS: Final = {4: 32, 6: 128}


def pool(network: str) -> Body:
    """The answer to `RequestPool`: the pool, which is its own id, and its gateway.

    >>> pool("10.244.0.0/16")["Data"]
    {'com.docker.network.gateway': '169.254.1.1/32'}
    """
    gateway = GATEWAY6 if ":" in network else GATEWAY
    return {"PoolID": network, "Pool": network, "Data": {OPTION_GATEWAY: masked(str(gateway))}}


def masked(address: str) -> str:
    """An address as Docker is to configure it: alone in its network.

    >>> masked("10.244.0.7"), masked("fd00::7")
    ('10.244.0.7/32', 'fd00::7/128')
    """
    return f"{address}/{_MASKS[ip_address(address).version]}"


def created(pod: Mapping[str, object], mac_given: bool) -> Body:
    """The answer to `CreateEndpoint`. What Docker has said itself must not be said again."""
    return {"Interface": {} if mac_given else {"MacAddress": pod["mac"]}}


def joined(pod: Mapping[str, object], *, dual: bool) -> Body:
    """The answer to `Join`.

    Args:
        pod: as `pod.add` has answered.
        dual: whether the endpoint has IPv6 as well.
    """
    gateways = [GATEWAY, GATEWAY6] if dual else [GATEWAY]
    routes = [
        {"Destination": masked(str(gateway)), "RouteType": CONNECTED, "NextHop": ""}
        for gateway in gateways
    ]
    return {
        "InterfaceName": {"SrcName": pod["peer"], "DstPrefix": "eth"},
        "Gateway": str(GATEWAY),
        "GatewayIPv6": str(GATEWAY6) if dual else "",
        "StaticRoutes": routes,
    }


def operational(pod: Mapping[str, object], ports: tuple[HostPort, ...]) -> Body:
    """The answer to `EndpointOperInfo`: the pod, and what was published."""
    published = [
        {
            "Proto": _PROTOCOLS[port.protocol],
            "IP": pod["address"],
            "Port": port.port,
            "HostIP": port.host,
            "HostPort": port.host_port,
            "HostPortEnd": port.host_port,
        }
        for port in ports
    ]
    return {
        "Value": {"muslin.pod": pod["name"], "muslin.link": pod["link"], OPTION_PORTS: published}
    }
