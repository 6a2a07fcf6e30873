"""The nouns everything else is written in.

All durations are seconds as float, all sizes are bytes, all times are monotonic seconds (`now`)
unless the name says `wall`: then they are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, NewType

from overlay.errors import ConfigError

NodeId = NewType("NodeId", bytes)
"""A node's Ed25519 public key, 32 bytes.

The key itself is the identity, not a fingerprint of it: whoever has a record or a deed can check
its signature without looking anything up. People see the name from the certificate.
"""

BlockIndex = NewType("BlockIndex", int)
"""Number of an address block, 0 <= index < blocks in the cluster range. Names the IPv4 and the
IPv6 prefix of the block at once (see `overlay.ipam.plan`)."""

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

Entropy = Callable[[int], bytes]
"""Returns that many random bytes. `os.urandom` in the daemon, seeded in the simulator."""

DEFAULT_PORT = 6875
"""UDP port of the underlay ("MUSL" on a telephone's keypad)."""


def parse_address(text: str) -> Address:
    """Read an address that somebody else has written.

    One with a zone is refused. Python takes any text behind the percent sign, and writes it out
    again: into a line for nft, or onto a terminal.

    Raises:
        ValueError: it is none, or has a zone. Nothing else.

    >>> parse_address("2001:DB8:0::1")
    IPv6Address('2001:db8::1')
    """
    if "%" in text:
        raise ValueError(f"{text[:64]!r} has a zone")
    return ip_address(text)


class Endpoint(NamedTuple):
    """Where a datagram goes to or came from in the underlay.

    `host` is a numeric IPv4 or IPv6 address in its shortest form, never a name and never an
    IPv4-mapped IPv6 address: equal endpoints compare equal.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """`192.0.2.1:6875`, `[2001:db8::1]:6875`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def ip_overhead(self) -> int:
        """Bytes of IP and UDP header in front of a datagram to this endpoint."""
        return 48 if ":" in self.host else 28

    @classmethod
    def parse(cls, text: str, default_port: int = DEFAULT_PORT) -> Endpoint:
        """Read `ADDR`, `ADDR:PORT`, `[ADDR6]` or `[ADDR6]:PORT`.

        Raises:
            ConfigError: not such a text. Nothing else.

        >>> Endpoint.parse("[2001:db8:0::1]:99")
        Endpoint(host='2001:db8::1', port=99)
        >>> str(Endpoint.parse("192.0.2.7"))
        '192.0.2.7:6875'
        """
        host, port = _split_endpoint(text)
        try:
            address = ip_address(host)
        except ValueError as error:
            raise ConfigError(f"{text!r} is not ADDRESS:PORT ({error})") from error
        if port is None:
            return cls.of(str(address), default_port)
        # int() alone would take "+1", "1_0" and digits of other scripts, and it has a limit.
        if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
            raise ConfigError(f"{text!r}: the port must be 1 to 65535")
        return cls.of(str(address), int(port))

    @classmethod
    def of(cls, host: str, port: int) -> Endpoint:
        """The endpoint of a numeric address as the kernel or a person writes it."""
        address = ip_address(host.partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return cls(str(mapped or address), port)


def _split_endpoint(text: str) -> tuple[str, str | None]:
    """The address and what is behind its colon; None when no port is given."""
    if text.startswith("[") and text.endswith("]"):
        return text[1:-1], None
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
        return host, port
    if text.count(":") != 1:
        return text, None
    host, _, port = text.partition(":")
    return host, port


def short_id(node: NodeId) -> str:
    """The first four bytes in hex: enough to tell nodes apart in a log line."""
    return node[:4].hex()
