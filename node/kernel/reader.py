"""Reads the kernel's network state of one namespace: a socket of its own, and dumps.

    request (type, family header, filter) --> messages, of which those of one size of buffer each
                                          --> end, or "interrupted": something changed meanwhile

What `read` has taken a message for is remembered by its bytes: the next reading takes apart only
what is new. So looking again at 250 pods is four system calls per hundred of them, and little else.

References:
    netlink(7). Linux Documentation/userspace-api/netlink/intro.rst, "Dump consistency";
    NETLINK_GET_STRICT_CHK: the kernel filters by protocol and table.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_UNSPEC
from typing import Any, Final, TypeVar

from node.kernel import packed
from node.kernel.frames import (
    NLMSG_DONE,
    NLMSG_ERROR,
    SOL_NETLINK,
    attribute,
    error_of,
    frame,
    split,
)
from node.kernel.messages import RT_TABLE_MAIN
from node.kernel.model import ROUTE_PROTOCOL, KernelState, Link
from node.kernel.queues import read_limits

T = TypeVar("T")

Ours = Callable[[Link], bool]
"""Tells our links by name and kind."""

_Key = tuple[int, bytes]
"""Kind of dump, and message."""

DUMP_TRIES: Final = 5
"""A dump during which something changed is asked for again, this often at most."""

SYSCTL_ROOT: Final = Path("/proc/sys")

_ORDER: Final = sys.byteorder

RTM_GETLINK: Final = 18
RTM_GETADDR: Final = 22
RTM_GETROUTE: Final = 26
RTM_GETNEIGH: Final = 30

_NETLINK_GET_STRICT_CHK: Final = 12
_NLM_F_DUMP: Final = 0x300
_NLM_F_DUMP_INTR: Final = 0x10
_IFLA_EXT_MASK: Final = 29
_RTEXT_FILTER_SKIP_STATS: Final = 8
_BUFFER: Final = 1 << 18
_PATIENCE: Final = 10.0


class InterruptedDumpError(OSError):
    """Something changed during a dump: what was read may be incomplete."""


class Reader:
    """Reads the namespace of the thread that made it.

    Args:
        make: makes the socket.

    Raises:
        OSError: the kernel refused the socket. Nothing else.
    """

    def __init__(self, make: Callable[[], socket.socket] | None = None) -> None:
        self._socket = (make or _open)()
        self._number = 0
        self._buffer = bytearray(_BUFFER)
        self._links: dict[bytes, packed.HeldLink] = {}
        self._known: dict[_Key, packed.OnLink[Any]] = {}
        self._names: dict[int, str] = {}
        self._indexes: dict[str, int] = {}

    def index(self, name: str) -> int | None:
        """The index of a link that the last `read` found and took for ours."""
        return self._indexes.get(name)

    def forget(self, name: str) -> None:
        """The link is gone, or another one has its name."""
        self._indexes.pop(name, None)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def read(self, ours: Ours, sysctls: Iterable[str]) -> KernelState:
        """The links that are `ours`, what is on them, our routes, and these sysctls.

        A link that was ours the last time still is, should somebody have renamed it.

        Raises:
            OSError: the kernel did not answer, or things keep changing. Nothing else.
        """
        links = self.links()
        own, renamed = self._own(links, ours)
        names = {held.index: held.link.name for held in own}
        known = self._still_known(names)
        self._known = {}
        return KernelState(
            links={held.link.name: held.link for held in own},
            addresses=frozenset(self._each(RTM_GETADDR, packed.parse_address, known)),
            routes=frozenset(self._each(RTM_GETROUTE, packed.parse_route, known)),
            neighbours=frozenset(self._each(RTM_GETNEIGH, packed.parse_neighbour, known)),
            limits=read_limits(self._dump, names),
            sysctls=_sysctls(own, sysctls),
            advertised_links=frozenset(
                held.link.name
                for held in links
                if held.takes_advertisements and held.index not in names
            ),
            renamed=renamed,
            namespaces={
                held.link.name: held.namespace for held in own if held.namespace is not None
            },
        )

    def _own(
        self, links: list[packed.HeldLink], ours: Ours
    ) -> tuple[list[packed.HeldLink], dict[str, str]]:
        """Our links; those that had another name the last time, under that, and the new ones."""
        present = {held.link.name for held in links}
        own, renamed = [], {}
        for held in links:
            known = self._names.get(held.index, held.link.name)
            if known != held.link.name and known not in present:
                back = replace(held.link, name=known)
                if ours(back):
                    renamed[known] = held.link.name
                    own.append(replace(held, link=back))
            elif ours(held.link):
                own.append(held)
        return own, renamed

    def _still_known(self, names: dict[int, str]) -> dict[_Key, packed.OnLink[Any]]:
        """What was taken apart before and is not about a link that has a new name."""
        before, self._names = self._names, names
        self._indexes = {name: index for index, name in names.items()}
        other = {one for one in names.keys() | before.keys() if names.get(one) != before.get(one)}
        if not other:
            return self._known
        return {key: said for key, said in self._known.items() if said.index not in other}

    def links(self) -> list[packed.HeldLink]:
        """All links, whoever made them.

        Raises:
            OSError: the kernel did not answer, or things keep changing. Nothing else.
        """
        before = self._links
        said = self._dump(RTM_GETLINK, _request(RTM_GETLINK, AF_UNSPEC))
        self._links = {one: before.get(one) or packed.parse_link(one) for one in said}
        return list(self._links.values())

    def addresses(self) -> list[bytes]:
        """All addresses, from their family header on. Errors as above."""
        return self._dump(RTM_GETADDR, _request(RTM_GETADDR, AF_UNSPEC))

    def routes(self, family: int, table: int) -> list[bytes]:
        """All routes of one family and table, from their family header on. Errors as above."""
        return self._dump(RTM_GETROUTE, _route_request(family, table, 0))

    def _each(
        self,
        kind: int,
        parse: Callable[[bytes, dict[int, str]], packed.OnLink[T]],
        known: dict[_Key, packed.OnLink[Any]],
    ) -> Iterator[T]:
        for family in (AF_INET, AF_INET6) if kind == RTM_GETROUTE else (AF_UNSPEC,):
            for message in self._dump(kind, _request(kind, family)):
                key = kind, message
                said = known.get(key) or parse(message, self._names)
                self._known[key] = said
                if said.value is not None:
                    yield said.value

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        for _ in range(DUMP_TRIES - 1):
            try:
                return self._dump_once(kind, body)
            except InterruptedDumpError:
                continue
        return self._dump_once(kind, body)

    def _dump_once(self, kind: int, body: bytes) -> list[bytes]:
        self._number += 1
        self._socket.send(frame(kind, _NLM_F_DUMP, self._number, body))
        found: list[bytes] = []
        interrupted = False
        while True:
            room = self._socket.recv_into(self._buffer)
            for answer, flags, number, inside in split(bytes(memoryview(self._buffer)[:room])):
                if number != self._number:
                    continue  # the late answer to a request that was not waited for
                interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    if interrupted:
                        raise InterruptedDumpError(errno.EINTR, "things keep changing")
                    _check(inside)
                    return found
                found.append(inside)


def _open() -> socket.socket:
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    opened = socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE)
    try:
        opened.setsockopt(SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        opened.settimeout(_PATIENCE)
    except OSError:
        opened.close()
        raise
    return opened


def _request(kind: int, family: int) -> bytes:
    if kind == RTM_GETLINK:
        # Without counters: they change all the time, and nobody wants them here.
        quiet = _RTEXT_FILTER_SKIP_STATS.to_bytes(4, _ORDER)
        return packed.LINK_HEADER.pack(family, 0, 0, 0, 0) + attribute(_IFLA_EXT_MASK, quiet)
    if kind == RTM_GETADDR:
        return packed.ADDRESS_HEADER.pack(family, 0, 0, 0, 0)
    if kind == RTM_GETROUTE:
        return _route_request(family, RT_TABLE_MAIN, ROUTE_PROTOCOL)
    return packed.NEIGHBOUR_HEADER.pack(family, 0, 0, 0, 0)


def _route_request(family: int, table: int, made_by: int) -> bytes:
    header = packed.ROUTE_HEADER.pack(family, 0, 0, 0, 0, made_by, 0, 0, 0)
    return header + attribute(packed.RTA_TABLE, table.to_bytes(4, _ORDER))


def _check(inside: bytes) -> None:
    """The end of a dump says how it went."""
    code = error_of(inside)
    # A namespace without any route of a family has no table of it yet.
    if code not in (0, errno.ENOENT):
        raise OSError(code, os.strerror(code))


def _sysctls(own: Iterable[packed.HeldLink], paths: Iterable[str]) -> dict[str, str]:
    """Those of `paths` that exist: of links from what came along with them, others from files."""
    known = dict(setting for held in own for setting in held.settings())
    found = {}
    for path in paths:
        value = known.get(path)
        if value is None:
            try:
                value = (SYSCTL_ROOT / path).read_text().strip()
            except OSError:
                continue  # the link is not there, or the kernel has no IPv6
        found[path] = value
    return found
