"""What a pod has besides its addresses: who made it, under which names, and its limits and ports.

    runtime's words            container, network, labels      how it finds its own pods again
    of the interface           interface, handed               what the kernel is told to make
    what the node enforces     ingress, egress, ports          rates towards and from it, host ports

All of it is of this node alone: it is stored with the pod, shown by the node's own daemon, and
never told to other nodes. Whoever may open the control socket says it, so everything is bounded
and printable.

References:
    CNI specification 1.1.0, CNI_CONTAINERID and CNI_IFNAME; its conventions for `portMappings` and
    `bandwidth` (bits per second, bits). Linux net/core/dev.c, dev_valid_name.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from hashlib import blake2s
from ipaddress import ip_address
from typing import Final, Literal, get_args

from overlay.errors import ConfigError
from overlay.types import parse_address

Protocol = Literal["tcp", "udp", "sctp"]

DEFAULT_INTERFACE: Final = "eth0"

MAX_CONTAINER: Final = 128
"""Characters of a container's id: those of today have 64 digits."""

MAX_NETWORK: Final = 128
MAX_LABELS: Final = 32
MAX_LABEL: Final = 256
"""Characters of a label's key or value: a Kubernetes pod's name has 253 at most."""

MAX_PORTS: Final = 256
MIN_RATE: Final = 8
"""Bits: rates are kept in whole bytes by whoever enforces them."""

MAX_RATE: Final = 10**13
"""Bits per second, and bits of a burst: no link is as fast."""

NAME_LONGEST: Final = 63

_INTERFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", re.ASCII)
_NO_INTERFACES: Final = frozenset({"lo", "all", "default"})
_OUTSIDE_NAMES: Final = re.compile(r"[^a-z0-9]+")
_CONTAINER_DIGITS: Final = 12
_HASH_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the node that leads to one of the pod.

    Attributes:
        protocol: of both.
        host_port: the node's, 1 to 65535.
        port: the pod's, 1 to 65535.
        host: the address of the node that it is open at; empty for all of its own, 0.0.0.0 and ::
            for all of one family.
    """

    protocol: Protocol
    host_port: int
    port: int
    host: str = ""

    def __str__(self) -> str:
        """`8080:80/tcp`, `192.0.2.1:8080:80/tcp`, `[2001:db8::1]:8080:80/tcp`."""
        host = f"[{self.host}]:" if ":" in self.host else f"{self.host}:" if self.host else ""
        return f"{host}{self.host_port}:{self.port}/{self.protocol}"

    def collides(self, other: HostPort) -> bool:
        """Whether both want the same port of the node."""
        same = (self.protocol, self.host_port) == (other.protocol, other.host_port)
        return same and _meet(self.host, other.host)


@dataclass(frozen=True, slots=True)
class Rate:
    """How much may pass: `bits` per second, and up to `burst` bits at once."""

    bits: int
    burst: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """What one pod is to its runtime, and what the node does for it.

    Attributes:
        container: the runtime's id of the container; empty for a person's pod.
        interface: name inside the pod's namespace.
        network: the runtime's name of the network.
        labels: key and value, as the runtime gave them; each key once.
        ingress: limit towards the pod.
        egress: limit from the pod.
        ports: ports of the node that lead to the pod.
        handed: the runtime moves the pod's end of the veth into its namespace and configures it.
    """

    container: str = ""
    interface: str = DEFAULT_INTERFACE
    network: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    ingress: Rate | None = None
    egress: Rate | None = None
    ports: tuple[HostPort, ...] = ()
    handed: bool = False

    def check(self) -> None:
        """Check every bound.

        Raises:
            ConfigError: something is too long, too much, or not printable; `key` is the
                parameter's name. Nothing else.
        """
        check_text(self.container, MAX_CONTAINER, "container")
        check_text(self.network, MAX_NETWORK, "network")
        if not _INTERFACE.fullmatch(self.interface) or self.interface in _NO_INTERFACES:
            why = f"{self.interface[:16]!r} is not a name of an interface: 1 to 15 of letters,"
            raise ConfigError(f"{why} digits and . _ -", "interface")
        self._check_labels()
        for key, rate in (("ingress", self.ingress), ("egress", self.egress)):
            if rate is not None:
                _check_rate(rate, key)
        self._check_ports()

    def _check_labels(self) -> None:
        if len(self.labels) > MAX_LABELS:
            raise ConfigError(f"{len(self.labels)} labels, {MAX_LABELS} at most", "labels")
        for label in self.labels:
            for text in label:
                check_text(text, MAX_LABEL, "labels")
        keys = [key for key, _ in self.labels]
        if "" in keys or len(set(keys)) < len(keys):
            raise ConfigError("a label's key is empty or there twice", "labels")

    def _check_ports(self) -> None:
        if len(self.ports) > MAX_PORTS:
            raise ConfigError(f"{len(self.ports)} ports, {MAX_PORTS} at most", "ports")
        for at, port in enumerate(self.ports):
            _check_port(port)
            if any(port.collides(other) for other in self.ports[:at]):
                raise ConfigError(f"{port} wants a port that is there twice", "ports")


NOTHING_SAID: Final = Attachment()
"""Of a pod of which nobody said anything: a person's, or another node's."""


def check_text(text: str, limit: int, key: str) -> None:
    """Check that `text` can be stored and shown.

    Raises:
        ConfigError: over `limit` characters, or not printable. Nothing else.
    """
    if len(text) > limit or not text.isprintable():
        raise ConfigError(f"more than {limit} characters, or not printable", key)


def _meet(one: str, other: str) -> bool:
    """Whether two hosts of ports have an address in common."""
    if one == other or not one or not other:
        return True
    this, that = ip_address(one), ip_address(other)
    return this.version == that.version and (this.is_unspecified or that.is_unspecified)


def _check_rate(rate: Rate, key: str) -> None:
    for name, bits in (("rate", rate.bits), ("burst", rate.burst)):
        if not MIN_RATE <= bits <= MAX_RATE:
            raise ConfigError(f"a {name} is {MIN_RATE} to {MAX_RATE} bits, not {bits}", key)


def _check_port(port: HostPort) -> None:
    if port.protocol not in get_args(Protocol):
        raise ConfigError(f"the protocol is tcp, udp or sctp, not {port.protocol[:16]!r}", "ports")
    if not (0 < port.host_port < 1 << 16 and 0 < port.port < 1 << 16):
        raise ConfigError(f"{port}: a port is 1 to 65535", "ports")
    try:
        canonical = not port.host or str(parse_address(port.host)) == port.host
    except ValueError:
        canonical = False
    if not canonical:
        raise ConfigError(f"{port.host[:64]!r} is not an address in its shortest form", "ports")


def choose_name(attachment: Attachment, owner: str, taken: Container[str]) -> str:
    """A name for a pod whose owner gave none: lower case, at most 63 characters.

    `NAMESPACE-POD` or `POD` from the labels, else `OWNER-` and the first digits of the container's
    id. Another interface than eth0 is part of it. A name that is taken gets six digits of a hash of
    container and interface, so that the same one asked for again gets the same name.

    Args:
        attachment: whose labels, container and interface are looked at.
        owner: of the pod.
        taken: the names of this node's pods.

    >>> web = Attachment("c0ffee" * 10, labels=(("namespace", "shop"), ("pod", "Web_0")))
    >>> choose_name(web, "cni", ()), choose_name(web, "cni", {"shop-web-0"})
    ('shop-web-0', 'shop-web-0-66ef9c')
    >>> choose_name(Attachment("c0ffee" * 10, "net1"), "cni", ())
    'cni-c0ffeec0ffee-net1'
    """
    labels: Mapping[str, str] = dict(attachment.labels)
    parts = [labels.get("namespace", ""), labels["pod"]] if labels.get("pod") else []
    if not any(map(_fitted, parts)):
        parts = [owner, attachment.container[:_CONTAINER_DIGITS]]
    behind = [] if attachment.interface == DEFAULT_INTERFACE else [attachment.interface]
    name = _joined(parts, behind)
    if name in taken:
        name = _joined(parts, [*behind, _digits(attachment)])
    return name


def _digits(attachment: Attachment) -> str:
    said = f"{attachment.container}\0{attachment.interface}".encode()
    return blake2s(said, digest_size=_HASH_DIGITS // 2).hexdigest()


def _joined(parts: list[str], behind: list[str]) -> str:
    """Both joined by dashes; the front is cut where that is too long."""
    end = "".join(f"-{fitted}" for part in behind if (fitted := _fitted(part)))
    front = "-".join(fitted for part in parts if (fitted := _fitted(part))) or "pod"
    return front[: NAME_LONGEST - len(end)].rstrip("-") + end


def _fitted(text: str) -> str:
    return _OUTSIDE_NAMES.sub("-", text.lower()).strip("-")
