"""Which ports of the machine somebody listens on: a host port must not be taken away from them.

A translated port never reaches the sockets of the machine, so a program that listens there would
fall silent without a word. The kernel lists its sockets per namespace and family:

    sl  local_address rem_address st ...
    0:  0100007F:0CEA 00000000:0000 0A      127.0.0.1:3306, LISTEN

Addresses are words of 32 bits in the machine's byte order. Listening TCP sockets come before all
connections, so reading ends with the first of those; of UDP a socket without a peer listens.

SCTP is not looked for.

References:
    proc(5), /proc/net/tcp; Linux Documentation/networking/proc_net_tcp.rst;
    include/net/tcp_states.h (states).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from overlay.attachment import HostPort
from overlay.types import Endpoint

TABLES: Final = Path("/proc/thread-self/net")
"""Of the namespace of the thread that reads."""

_LISTENS: Final = {"tcp": "0A", "udp": "07"}
_FILES: Final = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6"), "sctp": ()}


def taken_by_socket(port: HostPort, tables: Path = TABLES) -> Endpoint | None:
    """Where somebody listens whom a host port would silence; None if nobody does.

    Args:
        port: the host port.
        tables: folder of the kernel's lists.
    """
    for name in _FILES[port.protocol]:
        for held in _listening(tables / name, _LISTENS[port.protocol]):
            if held.port == port.host_port and _meets(port.host, held.host):
                return held
    return None


def _meets(wanted: str, held: str) -> bool:
    """Whether two addresses, of which each may stand for all, have one in common."""
    if not wanted:
        return True
    one, other = ip_address(wanted), ip_address(held)
    # A socket at [::] hears IPv4 as well, unless it asked not to; the lists do not say.
    if held == "::" or one == other:
        return True
    return one.version == other.version and (one.is_unspecified or other.is_unspecified)


def _listening(table: Path, state: str) -> Iterator[Endpoint]:
    try:
        with table.open() as rows:
            next(rows, "")
            yield from _rows(rows, state)
    except FileNotFoundError:
        return  # a kernel without IPv6


def _rows(rows: Iterable[str], state: str) -> Iterator[Endpoint]:
    for row in rows:
        _, local, _, found, *_ = row.split(maxsplit=4)
        if found == state:
            address, _, port = local.partition(":")
            yield Endpoint(_address(address), int(port, 16))
        elif state == _LISTENS["tcp"]:
            return


def _address(digits: str) -> str:
    words = struct.iter_unpack(">I", bytes.fromhex(digits))
    return str(ip_address(b"".join(struct.pack("=I", word) for (word,) in words)))
