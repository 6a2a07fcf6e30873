"""What Docker asks, checked and put into the words of this node: pure functions of JSON.

    CreateNetwork    {"NetworkID", "IPv4Data", "IPv6Data", "Options"}        check_network
    CreateEndpoint   {"NetworkID", "EndpointID", "Interface", "Options"}     endpoint_wanted
    RequestPool      {"AddressSpace", "Pool", "SubPool", "V6"}               pool_wanted
    RequestAddress   {"PoolID", "Address", "Options"}                        address_wanted

A pool is the cluster's range and nothing else, because every node hands out addresses of the whole
of it. Docker refuses a pool that the host has a route to, unless the operator named it or it is no
range at all; so who names none gets `0.0.0.0/0`. `--ip` works only where the range was named: that
is Docker's rule.

References:
    moby, libnetwork/network.go: requestPoolHelper, ipamAllocateVersion; endpoint.go:
    assignAddressVersion; types.PortBinding; netlabel/labels.go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_interface, ip_network
from typing import Final

from node.control.schema import ControlError
from node.kernel.model import GATEWAY, GATEWAY6
from overlay.attachment import MAX_PORTS, HostPort, Protocol
from overlay.types import Address, Prefix, parse_address

Json = Mapping[str, object]

SPACE: Final = "muslin"
"""The address space: Docker's word for a set of pools that do not overlap."""

EVERYTHING: Final = {4: "0.0.0.0/0", 6: "::/0"}
"""Pools of networks that were made without `--subnet`, by IP version."""

DOCKERS_OWN: Final = "com.docker."
"""How options begin that Docker adds by itself."""

OPTION_PORTS: Final = "com.docker.network.portmap"
OPTION_GENERIC: Final = "com.docker.network.generic"
OPTION_INTERNAL: Final = "com.docker.network.internal"
OPTION_GATEWAY: Final = "com.docker.network.gateway"
OPTION_ADDRESS_TYPE: Final = "RequestAddressType"

HOW_TO_CREATE: Final = "docker network create -d muslin --ipam-driver muslin NAME"

FREE_PORTS: Final = range(49_152, 65_536)
"""Where a host port comes from that Docker leaves open (RFC 6335, section 6: dynamic ports)."""

_PROTOCOLS: Final[dict[int, Protocol]] = {6: "tcp", 17: "udp", 132: "sctp"}
"""By their numbers, which is how Docker says them."""

_LONGEST_ID: Final = 128


@dataclass(frozen=True, slots=True)
class PortWanted:
    """A port to publish.

    Attributes:
        first: what it is, with the lowest port of the host that will do; 0: any.
        last: the highest that will do.
    """

    first: HostPort
    last: int

    @property
    def has_choice(self) -> bool:
        """Whether more than one port of the host will do."""
        return self.first.host_port != self.last or not self.last


@dataclass(frozen=True, slots=True)
class EndpointWanted:
    """What `CreateEndpoint` asks for.

    Attributes:
        network: its id.
        endpoint: its id.
        address: IPv4 from the address driver; None: this network has IPv6 alone.
        address6: IPv6 from the address driver; None: this network has IPv4 alone.
        mac: what the operator wants; empty: whatever there is.
        ports: what to publish.
    """

    network: str
    endpoint: str
    address: Address | None
    address6: Address | None
    mac: str
    ports: tuple[PortWanted, ...]


def identifier(body: Json, key: str) -> str:
    """An id of Docker's.

    Raises:
        ControlError: `bad-request`. Nothing else.
    """
    value = body.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID or not value.isalnum():
        raise ControlError("bad-request", f"{key} is no id")
    return value


def check_network(body: Json) -> str:
    """The id of a network that can be made.

    Raises:
        ControlError: its addresses are not ours (`other-ipam`), or it has options that mean
            nothing here (`unknown-option`), or it is malformed. Nothing else.
    """
    network = identifier(body, "NetworkID")
    pools = [pool for key in ("IPv4Data", "IPv6Data") for pool in _list(body.get(key))]
    if any(_mapping(pool).get("AddressSpace") != SPACE for pool in pools) or not pools:
        why = "its addresses would come from Docker, which knows nothing of the other nodes"
        raise ControlError("other-ipam", why, HOW_TO_CREATE)
    options = _mapping(body.get("Options"))
    if options.get(OPTION_INTERNAL):
        why = "a pod network reaches all pods of all nodes: it cannot be --internal"
        raise ControlError("unknown-option", why, "leave --internal out")
    unknown = sorted(map(str, _mapping(options.get(OPTION_GENERIC))))
    if unknown:
        raise ControlError(
            "unknown-option", f"there is no option {unknown[0][:64]}", "leave -o out"
        )
    return network


def endpoint_wanted(body: Json) -> EndpointWanted:
    """What is asked for with `CreateEndpoint`.

    Raises:
        ControlError: it is malformed, or has no address (`other-ipam`). Nothing else.
    """
    interface = _mapping(body.get("Interface"))
    address, address6 = (_held(interface, key) for key in ("Address", "AddressIPv6"))
    if address is None and address6 is None:
        why = "the endpoint has no address"
        raise ControlError("other-ipam", why, HOW_TO_CREATE)
    ports = _list(_mapping(body.get("Options")).get(OPTION_PORTS))
    if len(ports) > MAX_PORTS:  # `-P` publishes what an image says, whatever that is
        why = f"{len(ports)} ports to publish, {MAX_PORTS} at most"
        raise ControlError("bad-request", why, "publish fewer")
    return EndpointWanted(
        network=identifier(body, "NetworkID"),
        endpoint=identifier(body, "EndpointID"),
        address=address,
        address6=address6,
        mac=_text(interface, "MacAddress"),
        ports=tuple(dict.fromkeys(map(_port, ports))),
    )


def choose_ports(wanted: Iterable[PortWanted], taken: Collection[HostPort]) -> tuple[HostPort, ...]:
    """Ports of the host for what is to be published: the first that are free.

    Args:
        wanted: what Docker asks for.
        taken: what other pods of this node have.

    Raises:
        ControlError: there is none left (`port-taken`). Nothing else.
    """
    held: dict[tuple[Protocol, int], list[HostPort]] = {}
    for port in taken:
        held.setdefault((port.protocol, port.host_port), []).append(port)
    chosen: list[HostPort] = []
    for want in wanted:
        port = _first_free(want, held)
        held.setdefault((port.protocol, port.host_port), []).append(port)
        chosen.append(port)
    return tuple(chosen)


def _first_free(want: PortWanted, held: Mapping[tuple[Protocol, int], list[HostPort]]) -> HostPort:
    protocol, low = want.first.protocol, want.first.host_port
    for number in range(low, want.last + 1) if low else FREE_PORTS:
        others = held.get((protocol, number), ())
        if not others or not any(map(replace(want.first, host_port=number).collides, others)):
            return replace(want.first, host_port=number)
    what = f"{protocol} port {low or 'of the host'}"
    raise ControlError("port-taken", f"{what} is another pod's", "publish another port")


def pool_wanted(body: Json, ranges: Mapping[int, Prefix | None]) -> str:
    """The pool for `RequestPool`, which is its own id.

    Args:
        body: the request.
        ranges: of the cluster, by IP version.

    Raises:
        ControlError: the pool is not the cluster's range (`other-range`), the cluster has none of
            that version (`no-ipv6`), or something is asked for that is not known
            (`unknown-option`). Nothing else.
    """
    options = body.get("Options")
    for name in options if isinstance(options, dict) else ():
        if not name.startswith(DOCKERS_OWN):
            why = f"there is no option {name[:64]} for addresses"
            raise ControlError("unknown-option", why, "leave --ipam-opt out")
    version = 6 if body.get("V6") else 4
    asked, part = _text(body, "Pool"), _text(body, "SubPool")
    whole = ranges.get(version)
    if whole is None:
        why = f"the cluster has no IPv{version}"
        raise ControlError("no-ipv6", why, "create the network without --ipv6")
    if part:
        why = "addresses come from this node's blocks, not from a part of the range"
        raise ControlError("other-range", why, "leave --ip-range out")
    if not asked:
        return EVERYTHING[version]
    if _network(asked) != whole:
        fix = f"leave --subnet out, or say --subnet {whole}"
        raise ControlError("other-range", f"{asked[:64]} is not the cluster's range", fix)
    return str(whole)


def pool_version(body: Json) -> int:
    """The IP version of the pool that a request is about.

    Raises:
        ControlError: `bad-request`. Nothing else.
    """
    network = _network(_text(body, "PoolID"))
    if network is None:
        raise ControlError("bad-request", "PoolID is no pool of this driver")
    return network.version


def address_wanted(body: Json) -> Address | None:
    """The address that a request is about; None if it names none.

    Raises:
        ControlError: `bad-request`. Nothing else.
    """
    said = _text(body, "Address")
    try:
        return parse_address(said) if said else None
    except ValueError as error:
        raise ControlError("bad-request", f"{said[:64]!r} is not an address") from error


def is_gateway(body: Json, address: Address | None) -> bool:
    """Whether a request for an address is about the gateway, which every veth has.

    Raises:
        ControlError: another gateway is wanted (`other-gateway`). Nothing else.
    """
    if address in (GATEWAY, GATEWAY6):
        return True
    if _mapping(body.get("Options")).get(OPTION_ADDRESS_TYPE) != OPTION_GATEWAY:
        return False
    if address is not None:
        why = f"the gateway of pods is {GATEWAY}, on every node"
        raise ControlError("other-gateway", why, "leave --gateway out")
    return True


def _port(value: object) -> PortWanted:
    said = _mapping(value)
    protocol = _PROTOCOLS.get(_number(said, "Proto"))
    inside, first, last = (_number(said, key) for key in ("Port", "HostPort", "HostPortEnd"))
    host = _text(said, "HostIP")
    if protocol is None or not inside:
        raise ControlError("bad-request", "a port to publish has no protocol or no number")
    try:
        at = parse_address(host) if host else None
    except ValueError as error:
        raise ControlError("bad-request", f"{host[:64]!r} is not an address") from error
    where = "" if at is None or at.is_unspecified else str(at)
    return PortWanted(HostPort(protocol, first, inside, where), max(first, last))


def _held(interface: Json, key: str) -> Address | None:
    said = _text(interface, key)
    try:
        return ip_interface(said).ip if said else None
    except ValueError as error:
        raise ControlError("bad-request", "an address of the interface is none") from error


def _network(text: str) -> Prefix | None:
    try:
        return ip_network(text) if "/" in text else None
    except ValueError:
        return None


def _number(body: Json, key: str) -> int:
    value = body.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 16:
        raise ControlError("bad-request", f"{key} is no number of 16 bits")
    return value


def _text(body: Json, key: str) -> str:
    value = body.get(key) or ""
    if not isinstance(value, str):
        raise ControlError("bad-request", f"{key} is no text")
    return value


def _mapping(value: object) -> Json:
    """An object; what Docker leaves out or sends as null is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ControlError("bad-request", "something that should be an object is none")
    return value


def _list(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ControlError("bad-request", "something that should be a list is none")
    return value
